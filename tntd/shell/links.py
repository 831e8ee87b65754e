"""The links to peers: dialled and accepted, opened and closed, and what the node does to them.

What holds always:
- A dial ends in exactly one of LinkOpened and DialFailed, or in nothing after CancelDial.
- A link that was opened ends in exactly one LinkClosed, once its socket is gone.  After the
  node's CloseLink no frame of it is told any more.
- Before LinkOpened nobody is known: such a connection ends with a line in the summary of cuts.
- Whoever is not known HANDSHAKE_TIMEOUT_S after being accepted (or after TLS of a dial) is cut.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from tntd import limits
from tntd.effects import (
    Authenticated,
    CancelDial,
    CloseLink,
    Dial,
    RaiseFrameLimit,
    SendFrame,
)
from tntd.events import DialFailed, LinkClosed, LinkOpened
from tntd.shell.cuts import CutLog
from tntd.shell.dialling import Dialling
from tntd.shell.link import Link
from tntd.shell.loop import Loop, Timer
from tntd.shell.stream import Linger, Stream, StreamEnded, in_words
from tntd.shell.tls import Tls

AUTH_LABEL = b"EXPORTER-tnt-auth"
AUTH_BYTES = 32


class Links:
    """All connections to peers but the lanes."""

    def __init__(
        self, loop: Loop, tls: Tls, cuts: CutLog, links_max: int = limits.LINKS_MAX
    ) -> None:
        self._loop = loop
        self._tls = tls
        self._cuts = cuts
        self._links_max = links_max
        self._dialling: dict[int, tuple[Dialling, Timer]] = {}
        self._dialled: dict[int, Link] = {}  # TCP is up, TLS is not
        self._arriving: set[Link] = set()  # accepted, TLS is not up
        self._links: dict[int, Link] = {}
        self._dirty: dict[Link, None] = {}
        self._lingering: dict[int, Linger] = {}

    @property
    def full(self) -> bool:
        """No more may be accepted."""
        return len(self._links) + len(self._arriving) >= self._links_max

    @property
    def _sockets(self) -> int:
        """All there are, dials too: thousands of contacts may be away, and each has a socket while
        it is dialled."""
        under_way = len(self._dialling) + len(self._dialled)
        return len(self._links) + len(self._arriving) + under_way

    @property
    def idle(self) -> bool:
        """There is none, not even one that is closing."""
        return not (self._links or self._arriving or self._dialled or self._lingering)

    # -- effects -------------------------------------------------------------------------

    def dial(self, effect: Dial) -> None:
        """Connect: LinkOpened or DialFailed follows, within DIAL_TIMEOUT_S."""
        dial = effect.dial

        def connected(sock: socket.socket) -> None:
            self._connected(effect, sock)

        def failed(reason: str) -> None:
            self._dialling.pop(dial)[1].cancel()
            self._loop.post(DialFailed(dial, reason))

        if self._sockets >= self._links_max:
            self._loop.post(DialFailed(dial, "too many links and dials here"))
            return
        try:
            dialling = Dialling(self._loop, effect.host, effect.port, connected, failed)
        except OSError as error:
            self._loop.post(DialFailed(dial, in_words(error)))
            return
        timer = self._loop.call_later(limits.DIAL_TIMEOUT_S, lambda: self._dial_late(dial))
        self._dialling[dial] = (dialling, timer)

    def cancel_dial(self, effect: CancelDial) -> None:
        """Give a dial up; nothing follows."""
        if effect.dial in self._dialling:
            dialling, timer = self._dialling.pop(effect.dial)
            dialling.cancel()
            timer.cancel()
        elif effect.dial in self._dialled:
            self._let_go(self._dialled.pop(effect.dial))

    def send(self, effect: SendFrame) -> None:
        """Send whole frames, with the next `flush`."""
        link = self._links.get(effect.link)
        if link is not None:
            self._dirty[link] = None
            link.send(effect.data)

    def authenticated(self, effect: Authenticated) -> None:
        """They are known; a contact does not take a stranger's place."""
        link = self._links.get(effect.link)
        if link is None:
            return
        _cancel(link.timer)
        if effect.contact:
            link.return_place()

    def raise_frame_limit(self, effect: RaiseFrameLimit) -> None:
        """Take longer frames."""
        link = self._links.get(effect.link)
        if link is not None:
            link.raise_frame_limit(effect.frame_bytes_max)

    def close(self, effect: CloseLink) -> None:
        """Flush and close, within LINK_GRACE_S; LinkClosed follows."""
        link = self._links.pop(effect.link, None)
        if link is None:
            return
        _cancel(link.timer)
        self._dirty.pop(link, None)

        def done() -> None:
            self._lingering.pop(link.number, None)
            link.return_place()
            self._loop.post(LinkClosed(link.number, effect.reason))

        self._lingering[link.number] = Linger(self._loop, link.finish(), done)

    # -- for the driver, the listener and the lanes --------------------------------------

    def flush(self) -> None:
        """Hand what was sent in this turn to the sockets."""
        dirty, self._dirty = self._dirty, {}
        for link in dirty:
            link.flush()

    def adopt(
        self,
        sock: socket.socket,
        host: str,
        port: int,
        give_back: Callable[[], None],
        deadline: float,
    ) -> None:
        """Take an accepted connection that begins like TLS.  `give_back` returns its place at
        the gate; who it is has to be known at the boot time `deadline`."""
        link = Link(
            self._loop, self, Stream(self._loop, sock), self._tls.accept(), host=host, port=port
        )
        link.give_back = give_back
        link.timer = self._loop.call_at(deadline, lambda: self._silent(link))
        self._arriving.add(link)
        self._start(link)

    def export(self, number: int, label: bytes, context: bytes, length: int) -> bytes | None:
        """`length` bytes that only the two ends of a link know; None where it is gone."""
        link = self._links.get(number)
        return None if link is None else link.tls.export(label, context, length)

    def close_all(self, reason: str) -> None:
        """Close every link with a grace, and at once what is not one yet."""
        for number in list(self._links):
            self.close(CloseLink(number, reason))
        for dial in [*self._dialling, *self._dialled]:
            self.cancel_dial(CancelDial(dial))
        for link in list(self._arriving):
            self._arriving.discard(link)
            self._let_go(link)

    # -- what links tell -----------------------------------------------------------------

    def opened(self, link: Link) -> None:
        """TLS is up: the node hears of it."""
        link.number = self._loop.next_number()
        self._links[link.number] = link
        if link.dial is None:
            self._arriving.discard(link)
        else:
            self._dialled.pop(link.dial, None)
            _cancel(link.timer)
            link.timer = self._loop.call_later(
                limits.HANDSHAKE_TIMEOUT_S, lambda: self.ended(link, "it did not say who it is")
            )
        self._loop.post(
            LinkOpened(
                link.number,
                link.dial,
                link.host,
                link.port,
                link.tls.export(AUTH_LABEL, b"", AUTH_BYTES),
                link.tls.key_exchange,
            )
        )

    def ended(self, link: Link, reason: str) -> None:
        """It is over, from either side."""
        self._dirty.pop(link, None)
        if link.number:
            if self._links.pop(link.number, None) is None:
                return
            self._loop.post(LinkClosed(link.number, reason))
        elif link.dial is not None:
            self._dialled.pop(link.dial, None)
            self._loop.post(DialFailed(link.dial, reason))
        else:
            self._arriving.discard(link)
            self._cuts.add(link.host, reason)
        self._let_go(link)

    # -- inside --------------------------------------------------------------------------

    def _connected(self, effect: Dial, sock: socket.socket) -> None:
        _, timer = self._dialling.pop(effect.dial)
        link = Link(
            self._loop,
            self,
            Stream(self._loop, sock),
            self._tls.dial(),
            host=effect.host,
            port=effect.port,
            dial=effect.dial,
        )
        link.timer = timer
        self._dialled[effect.dial] = link
        self._start(link)

    def _start(self, link: Link) -> None:
        try:
            link.start()
        except StreamEnded as error:
            self.ended(link, str(error))

    def _silent(self, link: Link) -> None:
        reason = "it stayed silent"
        if link.number:
            self._cuts.add(link.host, reason)  # the node has no line for each stranger that goes
        self.ended(link, reason)

    def _dial_late(self, dial: int) -> None:
        reason = f"no answer within {limits.DIAL_TIMEOUT_S:.0f} s"
        if dial in self._dialling:
            self._dialling.pop(dial)[0].cancel()
            self._loop.post(DialFailed(dial, reason))
        elif dial in self._dialled:
            self.ended(self._dialled[dial], reason)

    def _let_go(self, link: Link) -> None:
        _cancel(link.timer)
        link.drop()
        link.return_place()


def _cancel(timer: Timer | None) -> None:
    if timer is not None:
        timer.cancel()
