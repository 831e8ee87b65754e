"""A daemon from start to end: the only place that knows all parts, builds and joins them.

What holds always, in the order of a start:
- The folders are private and local, and the locks of name and data folder are held, before
  anything in them is read.
- The two children are started before the key is read: nothing of it is in their memory.
- "Ready" is announced after the first turn, when peers and clients can connect.
Whatever was opened is closed in the opposite order, however the run ends, so that a failed start
leaves neither a socket nor an endpoint file behind.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from tntd import __version__, keyfile, limits, locks, log
from tntd.config import split_address
from tntd.control import places
from tntd.errors import StartError
from tntd.events import Started
from tntd.findable import Control, Findable, open_control
from tntd.folders import private_folder, refuse_network
from tntd.launch import Ready
from tntd.machines.identity import Identity, key_to_id
from tntd.node import Node
from tntd.node.core import Profile
from tntd.settings import Settings
from tntd.shell.children import Children
from tntd.shell.clock import Clock
from tntd.shell.control_server import ControlServer
from tntd.shell.cuts import CutLog
from tntd.shell.driver import Driver
from tntd.shell.files import Files
from tntd.shell.lanes import Lanes
from tntd.shell.links import Links
from tntd.shell.listener import Listener
from tntd.shell.listening import open_listeners
from tntd.shell.loop import Loop
from tntd.shell.tls import Tls
from tntd.shell.world import World
from tntd.signals import Signals
from tntd.store import Store

DATABASE_NAME = "tnt.db"
SPOOL_NAME = "spool"
_PORT_SETTING = "peer_port"
_DESCRIPTORS_BESIDE_LINKS = 512  # clients, strangers, lanes, files, and some to spare
_LINKS_MIN = 64
_WINDOWS_LINKS_MAX = 400  # its select takes 512 sockets
_MACOS_DESCRIPTORS_MAX = 10_240  # what its kernel takes, whatever limit it names

logger = logging.getLogger("tntd")

Announce = Callable[[Ready, list[str]], None]


def run(name: str, folder: Path, settings: Settings, announce: Announce) -> None:
    """Run the daemon of the profile `name` with its data in `folder` until it is stopped.

    `announce` is called once, when it is ready, with notes for the user.  Raises StartError.
    """
    descriptors = _raise_descriptor_limit()
    with ExitStack() as stack:
        place = _claim(stack, name, folder, settings)
        try:
            _run(stack, place, settings, descriptors, announce)
        except StartError as error:
            logger.error("not started: %s", error.message)
            raise
        except Exception as error:
            logger.exception("the daemon has failed")
            raise StartError(
                f"internal error ({type(error).__name__}); the log says more: {place.log_path}"
            ) from error
        logger.info("ended")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a profile's files are, all of them ours by now."""

    name: str
    data: Path
    downloads: Path
    log_path: Path
    log_file: log.LogFile


def _claim(stack: ExitStack, name: str, folder: Path, settings: Settings) -> _Place:
    """Make the folders, hold the locks, open the log."""
    runtime = private_folder(places.runtime_dir())
    stack.callback(locks.lock_name(runtime / f"{name}.lock", name).release)
    private_folder(folder)
    refuse_network(folder)
    stack.callback(locks.lock_data(folder / "lock", name).release)
    log_path = folder / log.FILE_NAME
    log_file = log.open_log(log_path, settings.log_level)
    stack.callback(log.close_log, log_file)
    return _Place(name, folder, _make_downloads(settings), log_path, log_file)


def _make_downloads(settings: Settings) -> Path:
    chosen = Path(settings.downloads).expanduser() if settings.downloads else None
    folder = chosen or places.downloads_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot make the downloads folder {folder}: {error.strerror}; "
            "choose another with --downloads"
        ) from error
    return folder


def _run(
    stack: ExitStack, place: _Place, settings: Settings, descriptors: int, announce: Announce
) -> None:
    logger.info("tntd %s starts for %s, process %d", __version__, place.name, os.getpid())
    notes: list[str] = []
    clock = Clock()
    loop = Loop(clock)
    stack.callback(loop.close)
    signals = Signals(loop, place.log_file.reopen)
    stack.callback(signals.close)
    files = Files()
    stack.callback(files.close_all)
    children = Children(loop, files, logger)
    stack.callback(children.close)
    children.start()

    identity = _identity(place, notes)
    store = _open_store(place.data / DATABASE_NAME)
    stack.callback(store.close)
    control = open_control(stack, place.name, settings)
    peers, port = _open_peers(store, settings, notes)
    for sock in peers:
        stack.callback(sock.close)

    cuts = CutLog(loop)
    links = Links(loop, Tls(), cuts, _links_max(descriptors))
    lanes = Lanes(loop, files, children, logger)
    stack.callback(lanes.close_all)
    server = ControlServer(loop, [control.sock], cuts)
    world = World(
        links=links,
        listener=Listener(loop, peers, links, lanes, cuts),
        lanes=lanes,
        control=server,
        children=children,
        files=files,
        logger=logger,
    )
    profile = Profile(
        identity=identity,
        name=place.name,
        settings=settings,
        downloads=os.fsencode(place.downloads.as_posix()),
        entropy=os.urandom,
        rss_bytes=_rss_bytes,
        boot=_boot(),
        spool=os.fsencode((place.data / SPOOL_NAME).as_posix()),
        token=control.token,
    )
    driver = Driver(loop, clock, store, Node(store, profile), world)
    loop.post(Started(port))
    driver.turn()

    for note in notes:
        logger.warning("%s", note)
    ready = _ready(place, identity, port, control)
    Findable(stack, control, _endpoint(place, ready), server, loop).start()
    announce(ready, notes)
    logger.info("ready: peer port %d, control %s", port, control.address)
    driver.run()


def _identity(place: _Place, notes: list[str]) -> Identity:
    had_database = (place.data / DATABASE_NAME).exists()
    seed, fresh = keyfile.load_or_create(place.data / keyfile.FILE_NAME)
    if fresh and had_database:
        notes.append(
            f"the key file {keyfile.FILE_NAME} was gone, so a new identity was made: to your "
            "contacts you are a stranger; put a copy back if you have one"
        )
    return Identity(seed)


def _open_store(path: Path) -> Store:
    """The database, which nobody else may read even in a folder that they may look into."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # empty, it is a new database
    except OSError as error:
        raise StartError(f"cannot open {path}: {error.strerror}; check its folder") from error
    return Store.open(path)


# -- clients and peers --------------------------------------------------------------------


def _open_peers(
    store: Store, settings: Settings, notes: list[str]
) -> tuple[list[socket.socket], int]:
    """The sockets for peers and their port, which is kept for the next start if it was chosen."""
    addresses = [split_address(text) for text in settings.listen]
    with store.transaction():
        kept = store.get_setting(_PORT_SETTING)
    sockets, port, note = open_listeners(addresses, int(kept) if kept else 0)
    if note is not None:
        notes.append(note)
    chosen = not all(port for _, port in addresses) or not addresses
    if chosen and kept != str(port).encode():
        with store.transaction():
            store.set_setting(_PORT_SETTING, str(port).encode())
    return sockets, port


def _ready(place: _Place, identity: Identity, port: int, control: Control) -> Ready:
    token_file = None if control.token_file is None else str(control.token_file)
    return Ready(
        name=place.name,
        id=key_to_id(identity.public),
        pid=os.getpid(),
        peer_port=port,
        control=control.address,
        token_file=token_file,
        downloads=str(place.downloads),
        log=str(place.log_path),
    )


def _endpoint(place: _Place, ready: Ready) -> places.Endpoint:
    return places.Endpoint(
        name=place.name,
        pid=ready.pid,
        control=ready.control,
        token_file=ready.token_file,
        log=ready.log,
        spool=str(place.data / SPOOL_NAME),
    )


# -- the process --------------------------------------------------------------------------


def _raise_descriptor_limit() -> int:
    """Allow us as many descriptors as the system lets us; how many that is."""
    if sys.platform == "win32":
        return _WINDOWS_LINKS_MAX + _DESCRIPTORS_BESIDE_LINKS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _MACOS_DESCRIPTORS_MAX):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return sys.maxsize if wanted == resource.RLIM_INFINITY else wanted
    return soft


def _links_max(descriptors: int) -> int:
    return min(limits.LINKS_MAX, max(_LINKS_MIN, descriptors - _DESCRIPTORS_BESIDE_LINKS))


def _boot() -> bytes:
    """What names this run of the machine; where nothing does, a new one each time."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    except OSError:
        return os.urandom(16)


def _rss_bytes() -> int:
    """The resident memory of this process; where only the highest ever is known, that."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    if sys.platform == "win32":
        return 0
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * limits.KIB
