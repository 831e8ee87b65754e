"""Who may talk to us: finding, adding and judging contacts.

What holds always: `trust` is our own user's word and nothing that a peer sends raises it; the
local name is ours; a request that waits is one row for its key and their number is bounded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mnemonic import Mnemonic

from tntd import limits
from tntd.control.names import check_name
from tntd.errors import Code, CommandError, RemoteError
from tntd.machines.identity import id_range, id_to_key, key_to_id
from tntd.machines.naming import fold, local_name
from tntd.node.core import Core
from tntd.store.contacts import ContactRow

NOT_BY_CHANCE_CHARS = 10  # two groups of an id: no other key that begins so is found by trying
PREFIX_CHARS_MIN = 4  # of an id; fewer are likelier a typing slip than an id
WORDS_FOR_A_KEY = 6  # 66 bits each, and a slow hash before them
_WORD_ROUNDS = 5200  # as the safety numbers of Signal have it


class Contacts:
    """The contacts, as commands and links need them."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows = core.store.contacts

    def find(self, who: str) -> ContactRow:
        """The contact that `who` means: a local name, an id, or an unambiguous id prefix.

        Raises CommandError: NO_SUCH_CONTACT, AMBIGUOUS.
        """
        if who.startswith("#"):
            raise CommandError(
                Code.NO_SUCH_CONTACT, f"no room {who!r}", "see your contacts with: contacts"
            )
        key = id_to_key(who)
        named = self._rows.by_folded_name(fold(who))
        if named is not None and len(who.replace("-", "")) < NOT_BY_CHANCE_CHARS:
            return named
        found = [self._rows.by_key(key)] if key is not None else self._with_prefix(who)
        matches = [row for row in found if row is not None]
        if named is not None and named not in matches:
            matches.insert(0, named)  # who calls themselves like the id of somebody else
        if len(matches) > 1:
            names = ", ".join(row.name for row in matches[:8])
            raise CommandError(
                Code.AMBIGUOUS, f"{who!r} fits several contacts: {names}", "give more of the id"
            )
        if not matches:
            raise CommandError(
                Code.NO_SUCH_CONTACT,
                f"no contact {who!r}",
                "see who there is with: contacts; meet somebody with: connect ADDRESS",
            )
        return matches[0]

    def _with_prefix(self, who: str) -> Sequence[ContactRow | None]:
        ends = id_range(who) if len(who.replace("-", "")) >= PREFIX_CHARS_MIN else None
        return [] if ends is None else self._rows.between(*ends)

    def choose(self, key: bytes, hint: str) -> ContactRow:
        """Our user connected to this key by hand: it is accepted from now on.

        Raises CommandError(WRONG_STATE) for one that is blocked.
        """
        row = self._rows.by_key(key)
        if row is None:
            row = self._add(key, hint, "accepted")
        elif row.trust == "blocked":
            raise CommandError(
                Code.WRONG_STATE, f"{row.name} is blocked", f"take it back with: unblock {row.name}"
            )
        elif not row.accepted:
            self.set_trust(row, "accepted")
        self._rows.update(row.row, chosen_at=self._core.now.wall_ms)
        return self.reread(row)

    def request(self, key: bytes, hint: str) -> ContactRow:
        """A stranger asks for us: one waiting row for each key.

        Raises RemoteError("limit") when too many wait already.
        """
        if self._rows.count("pending") >= limits.PENDING_CONTACTS_MAX:
            raise RemoteError("limit", "too many contact requests wait here already")
        row = self._add(key, hint, "pending")
        self._core.publish("contact.request", row.row)
        self._core.log("info", f"contact request from {row.name} ({key_to_id(key)})")
        return row

    def _add(self, key: bytes, hint: str, trust: str) -> ContactRow:
        core = self._core
        if self._with_prefix(hint):
            hint = "someone"  # what is typed for somebody else may not mean them
        name = local_name(hint, self._rows.folded_names() | {fold(core.profile.name)})
        row = self._rows.add(
            key, name, fold(name), trust=trust, epoch=core.random(16), at=core.now.wall_ms
        )
        if trust != "pending":
            core.publish("contact.changed", row.row)
        return row

    def set_trust(self, row: ContactRow, trust: str) -> ContactRow:
        """Change our word on a contact."""
        if row.trust != trust:
            self._rows.update(row.row, trust=trust)
            self._core.publish("contact.changed", row.row)
        return self.reread(row)

    def rename(self, row: ContactRow, name: str) -> ContactRow:
        """Change the local name.  Raises CommandError for a bad one or one in use."""
        name = check_name(name)
        folded = fold(name)
        other = self._rows.by_folded_name(folded)
        if folded == fold(self._core.profile.name) or (other is not None and other.row != row.row):
            raise CommandError(
                Code.INVALID_PARAMS, f"the name {name!r} is taken", "choose another name"
            )
        self._rows.update(row.row, name=name, folded=folded)
        self._core.publish("contact.changed", row.row)
        return self.reread(row)

    def reread(self, row: ContactRow) -> ContactRow:
        """The row as it is stored now."""
        fresh = self._rows.get(row.row)
        assert fresh is not None
        return fresh

    def words(self, row: ContactRow) -> list[str]:
        """Words that are the same on both sides: six for each of the two keys, in one order.

        A stand-in would need a key whose own six words match (66 bits behind a slow hash), not
        merely some pair of keys that collide, because each key is shown by itself.
        """
        listed = Mnemonic("english").wordlist
        keys = sorted((self._core.profile.identity.public, row.key))
        return [listed[index] for key in keys for index in _word_indexes(key)]


def _word_indexes(key: bytes) -> list[int]:
    digest = key
    for _ in range(_WORD_ROUNDS):
        digest = hashlib.sha512(digest + key).digest()
    bits = int.from_bytes(digest[:16], "big")
    return [(bits >> (117 - 11 * at)) & 0x7FF for at in range(WORDS_FOR_A_KEY)]
