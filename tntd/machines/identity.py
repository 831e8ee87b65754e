"""Who we are: an Ed25519 key, the strings that it may sign, and how keys are shown.

What holds always: the key signs nothing but strings that begin with `tnt/1 PURPOSE` and a
zero byte, so that a signature made for one purpose can never serve another.  Inside TLS both
ends sign the exporter of that very connection (channel binding as in RFC 9266): a middleman has
two different exporter values, so neither signature can be passed on.

A key of small order, such as 32 zero bytes, is no key: it has signatures that fit many texts or
all of them, and anybody can make those.  OpenSSL does not refuse it (RFC 8032 leaves it open), so
it is refused here, and with it every second way to write a key.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from tntd.errors import RemoteError

KEY_BYTES = 32
_GROUP_CHARS = 5
_ID_CHARS = 52  # 32 bytes in base32 without padding
_FIELD = 2**255 - 19
_EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD - 1, _EIGHTH, _FIELD - _EIGHTH})


class Identity:
    """Our own key.  `seed` is the 32 bytes of the private key (RFC 8032)."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign_dial(self, exporter: bytes) -> bytes:
        """The dialler's signature over this connection."""
        return self._key.sign(_dial_text(exporter))

    def sign_accept(self, exporter: bytes, dialler: bytes) -> bytes:
        """The acceptor's signature over this connection and the dialler's key."""
        return self._key.sign(_accept_text(exporter, dialler))


def verify_dial(key: bytes, signature: bytes, exporter: bytes) -> None:
    """Raises RemoteError("authentication") unless `key` signed this connection as dialler."""
    _verify(key, signature, _dial_text(exporter))


def verify_accept(key: bytes, signature: bytes, exporter: bytes, dialler: bytes) -> None:
    """Raises RemoteError("authentication") unless `key` signed it as acceptor for `dialler`."""
    _verify(key, signature, _accept_text(exporter, dialler))


def _dial_text(exporter: bytes) -> bytes:
    return b"tnt/1 dial\0" + exporter


def _accept_text(exporter: bytes, dialler: bytes) -> bytes:
    return b"tnt/1 accept\0" + exporter + dialler


def _verify(key: bytes, signature: bytes, text: bytes) -> None:
    if not _may_be_key(key):
        raise RemoteError("authentication", "the key is none that somebody can have")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError) as error:
        raise RemoteError("authentication", "the signature does not fit the key") from error


def _may_be_key(key: bytes) -> bool:
    """Whether the bytes are not a point of small order, and written in the one right way."""
    y = int.from_bytes(key, "little") & (2**255 - 1)  # without the sign of x
    return y < _FIELD and y not in _SMALL_ORDER_Y


@lru_cache(1024)  # Python's base32 is slow, and few keys are shown often
def key_to_id(key: bytes) -> str:
    """A public key as people see it: lower-case base32 in groups of five."""
    text = base64.b32encode(key).decode().rstrip("=").lower()
    return "-".join(text[at : at + _GROUP_CHARS] for at in range(0, len(text), _GROUP_CHARS))


def id_to_key(text: str) -> bytes | None:
    """The public key behind a whole id (groups and case do not matter), or None."""
    plain = text.replace("-", "").upper()
    if len(plain) != _ID_CHARS:
        return None
    try:
        return base64.b32decode(plain + "====")
    except (binascii.Error, ValueError):
        return None


def id_range(beginning: str) -> tuple[bytes, bytes] | None:
    """The lowest and the highest public key whose id begins so, or None where none can."""
    plain = beginning.replace("-", "").upper()
    if len(plain) > _ID_CHARS:
        return None
    try:
        low, high = (base64.b32decode(plain.ljust(_ID_CHARS, each) + "====") for each in "A7")
    except (binascii.Error, ValueError):
        return None
    return low, high


def short_id(key: bytes) -> str:
    """The first two groups, for lines that people read."""
    return key_to_id(key)[: 2 * _GROUP_CHARS + 1]
