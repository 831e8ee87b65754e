"""The tools that people use today, as they are installed here, each over loopback.

What holds always: nothing of the machine is changed and nobody's keys or settings are used.  The
ssh server has its own port, host key, user key and configuration, all below the folder of this
run; as root, where the account or the folder that it insists on are missing, it gets them in a
mount namespace of its own.  Whatever is missing is skipped, with the reason.

Tools are looked for in PATH, and what the far end starts is found in the same PATH.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.bench.measure import Cost, Meter
from tests.harness import free_port, wait_for

_BYTES_AT_ONCE = 1 << 18  # of socat; its own 8 KiB would make it slower
_MAIN_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_LIBRARIES = "LD_LIBRARY_PATH"
_SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@dataclass(slots=True)
class Rival:
    """A tool: `send(source, into)` brings a file or a folder below the folder `into`."""

    name: str
    send: Callable[[Path, Path], None]
    servers: list[int] = field(default_factory=list)
    folders: bool = True

    def timed(self, source: Path, into: Path) -> Cost:
        """Send it, from the start of the tool until it has ended, and look that it is there."""
        into.mkdir()
        meter = Meter(self.servers)
        with meter.measured(self._settle):
            self.send(source, into)
        _check(source, into)
        shutil.rmtree(into)
        return meter.cost

    def _settle(self) -> None:
        """Wait until the servers' sessions have ended, so that their time is booked."""
        wait_for(lambda: not any(psutil.Process(pid).children() for pid in self.servers))


class Rivals:
    """All that are here; `missing` says why others are not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "rivals"
        self.folder.mkdir()
        self.missing: dict[str, str] = {}
        self.here: list[Rival] = []
        self._started: list[subprocess.Popen[bytes]] = []
        try:
            self._ssh_tools()
            self._rsync_daemon()
            self._tls_pipe()
            self._wormhole()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the servers."""
        for each in reversed(self._started):
            each.terminate()
            each.wait()
        self._started.clear()

    def _start(self, command: list[str], port: int) -> int:
        """Start a server that stays; its pid once it listens."""
        errors = (self.folder / "errors").open("ab")
        with errors:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
            )
        self._started.append(process)
        wait_for(lambda: _listens(port) or process.poll() is not None, what=f"{command[0]}")
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]}: {(self.folder / 'errors').read_text()[-1000:]}")
        return process.pid

    # -- over ssh ---------------------------------------------------------------------

    def _ssh_tools(self) -> None:
        names = {"scp", "scp aes128-gcm", "rsync over ssh", "tar through ssh"}
        lacking = [each for each in ("ssh", "sshd", "ssh-keygen") if not find(each)]
        if lacking:
            self.missing |= {name: f"no {', '.join(lacking)} here" for name in names}
            return
        try:
            server, config = self._ssh_server()
        except (RuntimeError, AssertionError) as error:
            self.missing |= {name: f"its server does not start: {error}" for name in names}
            return
        scp, ssh = ["scp", "-q", "-r", "-F", config], ["ssh", "-F", config]
        gcm = ["-c", "aes128-gcm@openssh.com"]

        def copy(*options: str) -> Callable[[Path, Path], None]:
            return lambda source, into: run([*scp, *options, str(source), f"bench:{into}/"])

        def pack(source: Path, into: Path) -> None:
            there = shlex.join([*ssh, "bench", f"tar -xf - -C {shlex.quote(str(into))}"])
            here = shlex.join(["tar", "-cf", "-", "-C", str(source.parent), source.name])
            run(["sh", "-c", f"{here} | {there}"])

        self._add("scp", "scp", copy(), server)
        self._add("scp aes128-gcm", "scp", copy(*gcm), server)
        self._add("tar through ssh", "tar", pack, server)
        remote = ["rsync", "-a", "-e", shlex.join(ssh)]
        self._add(
            "rsync over ssh",
            "rsync",
            lambda source, into: run([*remote, str(source), f"bench:{into}/"]),
            server,
        )

    def _add(
        self, name: str, program: str, send: Callable[[Path, Path], None], *servers: int
    ) -> None:
        if find(program):
            self.here.append(Rival(name, send, list(servers)))
        else:
            self.missing[name] = f"no {program} here"

    def _ssh_server(self) -> tuple[int, str]:
        """Start it; its pid and the file with a client's settings for the host `bench`."""
        folder, port = self.folder / "ssh", free_port()
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        server, client = folder / "sshd_config", folder / "config"
        server.write_text(_server_settings(folder, port))
        client.write_text(_client_settings(folder, port))
        command = [find("sshd"), "-D", "-e", "-f", str(server)]
        if os.geteuid() == 0:
            command = _with_what_root_needs(command, folder)
        return self._start(command, port), str(client)

    # -- without ssh ------------------------------------------------------------------

    def _rsync_daemon(self) -> None:
        name = "rsync, not encrypted"
        if not find("rsync"):
            self.missing[name] = "no rsync here"
            return
        config, port = self.folder / "rsyncd.conf", free_port()
        config.write_text(
            f"address = 127.0.0.1\nport = {port}\nuse chroot = no\n"
            f"[in]\npath = {self.folder.parent}\nread only = no\n"
            + ("uid = 0\ngid = 0\n" if os.geteuid() == 0 else "")
        )
        command = ["rsync", "--daemon", "--no-detach", f"--config={config}"]
        server = self._start(command, port)

        def send(source: Path, into: Path) -> None:
            there = into.relative_to(self.folder.parent)
            run(["rsync", "-a", str(source), f"rsync://127.0.0.1:{port}/in/{there}/"])

        self.here.append(Rival(name, send, [server]))

    def _tls_pipe(self) -> None:
        name = "TLS pipe (socat)"
        if not find("socat") or not find("openssl"):
            self.missing[name] = "no socat or no openssl here"
            return
        both = self.folder / "pipe.pem"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench"]
        run([*make, "-keyout", f"{both}.key", "-out", f"{both}.crt"])
        both.write_bytes(Path(f"{both}.key").read_bytes() + Path(f"{both}.crt").read_bytes())
        self.here.append(
            Rival(name, lambda source, into: _pipe(both, source, into / source.name), [], False)
        )

    def _wormhole(self) -> None:
        name = "magic-wormhole"
        if not find("wormhole") or not find("twist"):
            self.missing[name] = "no wormhole, or no twist for its mailbox server, here"
            return
        port = free_port()
        where = f"tcp:{port}:interface=127.0.0.1"
        store = f"--channel-db={self.folder / 'mailbox.sqlite'}"
        try:
            self._start(["twist", "wormhole-mailbox", f"--port={where}", store], port)
        except (RuntimeError, AssertionError) as error:
            self.missing[name] = f"its mailbox server does not start: {str(error)[-200:]}"
            return
        base = ["wormhole", f"--relay-url=ws://127.0.0.1:{port}/v1", "--transit-helper="]

        def send(source: Path, into: Path) -> None:
            code = f"{time.monotonic_ns() % 1_000_000_007}-a-b"
            give = [*base, "send", "--hide-progress", "--code", code, str(source)]
            take = [*base, "receive", "--hide-progress", "--accept-file", code]
            with subprocess.Popen(give, **_SILENT) as giver:
                run([*take, "-o", str(into / source.name)])
            if giver.returncode:
                raise RuntimeError("wormhole send failed")

        self.here.append(Rival(name, send))


def find(program: str) -> str:
    """The path of a program, empty if it is not here."""
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *_MAIN_FOLDERS))
    return shutil.which(program, path=folders) or ""


def run(command: list[str]) -> None:
    """Run a tool to its end.  Raises RuntimeError with what it said where it fails."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-500:]}")


def _pipe(certificate: Path, source: Path, destination: Path) -> None:
    """A file through TLS with nothing around it; the listener is ready before."""
    port = free_port()
    size = ["-u", "-b", str(_BYTES_AT_ONCE)]
    listen = f"OPENSSL-LISTEN:{port},bind=127.0.0.1,reuseaddr,cert={certificate},verify=0"
    with subprocess.Popen(["socat", *size, listen, f"CREATE:{destination}"]) as receiver:
        wait_for(lambda: _is_listed(port))
        run(["socat", *size, f"OPEN:{source}", f"OPENSSL:127.0.0.1:{port},verify=0"])
    if receiver.returncode:
        raise RuntimeError("socat failed")


def _check(source: Path, into: Path) -> None:
    """The copy has the size, or as many things in it; nothing more is looked at."""
    copy = into / source.name
    if source.is_file():
        assert copy.stat().st_size == source.stat().st_size, f"{copy} is not whole"
    else:
        assert count(copy) == count(source), f"{copy} is not whole"


def count(folder: Path) -> int:
    """All that is in a folder and below."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_listed(port: int) -> bool:
    """Whether somebody listens, without connecting: for those who take only one connection."""
    state = f":{port:04X} 00000000:0000 0A"
    return state in Path("/proc/net/tcp").read_text()


# -- the ssh server's settings --------------------------------------------------------------


def _server_settings(folder: Path, port: int) -> str:
    sshd = Path(find("sshd"))
    places = [sshd.parents[1] / "lib/openssh/sftp-server", Path("/usr/libexec/sftp-server")]
    files = next((str(each) for each in places if each.exists()), "internal-sftp")
    environment = [f"PATH={os.environ['PATH']}"]
    if _LIBRARIES in os.environ:
        environment.append(f"{_LIBRARIES}={os.environ[_LIBRARIES]}")
    return "\n".join(
        (
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder / 'host'}",
            f"AuthorizedKeysFile {folder / 'user.pub'}",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "PidFile none",
            "MaxStartups 100",
            f"SetEnv {' '.join(environment)}",
            f"Subsystem sftp {files}",
            "",
        )
    )


def _client_settings(folder: Path, port: int) -> str:
    return "\n".join(
        (
            "Host bench",
            "HostName 127.0.0.1",
            f"Port {port}",
            f"IdentityFile {folder / 'user'}",
            "IdentitiesOnly yes",
            "StrictHostKeyChecking no",
            f"UserKnownHostsFile {folder / 'known_hosts'}",
            "BatchMode yes",
            "LogLevel ERROR",
            "",
        )
    )


def _with_what_root_needs(command: list[str], folder: Path) -> list[str]:
    """Run as root it insists on an account `sshd` and on /run/sshd: seen by it alone, where the
    machine has none."""
    accounts = Path("/etc/passwd").read_text()
    steps = []
    if not any(line.startswith("sshd:") for line in accounts.splitlines()):
        more = folder / "passwd"
        more.write_text(accounts + "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
        more.chmod(0o644)
        steps.append(f"mount --bind {shlex.quote(str(more))} /etc/passwd")
    if not Path("/run/sshd").exists():
        steps.append("mount -t tmpfs -o mode=755 none /run && mkdir -m 755 /run/sshd")
    if not steps:
        return command
    script = " && ".join([*steps, f"exec {shlex.join(command)}"])
    return [find("unshare") or "unshare", "-m", "sh", "-c", script]
