"""Names and texts from the other side: where files arrive, what is kept, what a terminal shows."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from bystanders import RawContact, Scene
from harness import RpcError, environment
from moving import Start
from peer import PeerClosed, RawPeer, hello, listener, trusted
from raw_lane import RawLane, agree, offer
from tntd.wire.frames import Decision, LinkError, Offer, Refused, Result, Text

ESC = "\x1b[2J\x1b]0;owned\x07"
OVERRIDE = "\u202e"
DATA = b"harmless"
HIDDEN = {"Cc", "Cf", "Zl", "Zp"}

FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")

NO_NAMES = [b"/etc/x", b"..", b".", b"a/b", b"a/", b"/", b"nul\0", b"../../x", b"\0"]
MALFORMED = [b"", b"x" * 256, b"x" * 70_000]
# What is offered, and the name under which it arrives.
NAMES = {
    b"plain.txt": b"new_plain.txt",
    b"two\nlines": b"new_two%0Alines",
    ESC.encode(): b"new_%1B[2J%1B]0;owned%07",
    f"{OVERRIDE}cod.exe".encode(): b"new_%E2%80%AEcod.exe",
    b"back\\slash": b"new_back%5Cslash",
    b"C:evil": b"new_C%3Aevil",
    b"tail. . ": b"new_tail",
    b"...": b"new_file",
    b"-rf": b"new_-rf",
    b"~": b"new_~",
    b"$(reboot)`x`": b"new_$(reboot)`x`",
    b"raw\xff\xfebytes": b"new_raw\xff\xfebytes",
    b"x" * 255: b"new_" + b"x" * 251,
    b"y" * 251 + b".tar": b"new_" + b"y" * 247 + b".tar",
    "ü".encode() * 127 + b"z": b"new_" + "ü".encode() * 125,
    b"a." + "ü".encode() * 120: b"new_a." + "ü".encode() * 31,
    b"\n" * 200: (b"new_" + b"%0A" * 84)[:255],
    b".tnt-part": b"new_.tnt-part",
    **{
        # Look like what they are not, and name nothing but themselves.
        f"..{slash}..{slash}victim".encode(): f"new_..{slash}..{slash}victim".encode()
        for slash in ("\u2215", "\u2044", "\uff0f", "\u29f8", "\uff3c")
    },
    "\uff0e\uff0e".encode(): "new_\uff0e\uff0e".encode(),
    b"CON": b"new_CON",
    b"nul.txt": b"new_nul.txt",
    b"COM1": b"new_COM1",
}
# The same where the setting `prefix` is empty.
BARE_NAMES = {
    b"plain.txt": b"plain.txt",
    b"CON": b"%43ON",
    b"nul.txt": b"%6Eul.txt",
    b"Com1.tar.gz": b"%43om1.tar.gz",
    b"aux. ": b"%61ux",
    b"console": b"console",
    b"...": b"file",
    b" ": b"file",
    b"C:": b"C%3A",
    b"..\\..\\victim": b"..%5C..%5Cvictim",
    "..\u2215victim".encode(): "..\u2215victim".encode(),
    b".tnt-part": b".tnt-part (1)",
}
# Two names here; where a file system takes both for one, the second gets a number.
ALIKE = [b"Case", b"cASE", *(unicodedata.normalize(f, "caf\u00e9").encode() for f in FORMS)]


def send(scene: Scene, mallory: RawContact, name: bytes) -> None:
    """Send a file of that name, whole."""
    with RawLane(scene, mallory, agree(mallory, offer(mallory, name, len(DATA)))) as lane:
        lane.send_file(DATA)
        assert mallory.take(Result).error == ""


def downloaded(scene: Scene) -> set[bytes]:
    """All that is in the downloads folder and below, but parts, of earlier tests maybe."""
    top = os.fsencode(scene.alice.downloads)
    found = {
        os.path.relpath(os.path.join(folder, each), top)
        for folder, folders, files in os.walk(top)
        for each in [*folders, *files]
    }
    return {each for each in found if each.split(b"/")[0] != b".tnt-part"}


def clean(scene: Scene) -> None:
    for each in downloaded(scene):
        os.unlink(os.path.join(os.fsencode(scene.alice.downloads), each))


def test_a_name_that_is_none_is_declined(scene: Scene) -> None:
    before = downloaded(scene)
    listed = scene.alice.rpc("transfers.list", limit=1)["transfers"]  # of earlier tests maybe
    with scene.contact() as mallory:
        for name in NO_NAMES:
            offer(mallory, name, len(DATA))
            decision = mallory.take(Decision)
            assert not decision.accepted, name
            assert "name" in decision.reason
        for name in MALFORMED:
            offer(mallory, name, len(DATA))
            assert mallory.take(Refused).code == "malformed"
        assert scene.alice.rpc("transfers.list", limit=1)["transfers"] == listed
    scene.said("declined a file from mallory", times=len(NO_NAMES))
    assert downloaded(scene) == before
    scene.undisturbed()


def test_every_other_name_arrives_as_one_harmless_component(scene: Scene) -> None:
    clean(scene)
    with scene.contact() as mallory:
        for name, expected in NAMES.items():
            send(scene, mallory, name)
            assert downloaded(scene) == {expected}, name
            shown = scene.alice.rpc("transfers.list", limit=1)["transfers"][0]["path"]
            assert not HIDDEN & {unicodedata.category(character) for character in shown}
            clean(scene)
    assert all(line.isprintable() for line in scene.log())
    scene.undisturbed()


def test_without_a_prefix_a_name_is_as_harmless(daemon: Start, home: Path) -> None:
    config = home / "alice.toml"
    config.write_text('prefix = ""\n')
    scene = Scene(daemon, "--config", str(config))
    with scene.contact() as mallory:
        for name, expected in BARE_NAMES.items():
            send(scene, mallory, name)
            assert downloaded(scene) == {expected}, name
            clean(scene)
    scene.undisturbed()


def test_names_that_are_alike_do_not_replace_each_other(scene: Scene) -> None:
    clean(scene)
    with scene.contact() as mallory:
        for name in ALIKE:
            send(scene, mallory, name)
    there = downloaded(scene)
    assert len(there) == len(ALIKE)
    exact = {b"new_" + name for name in ALIKE}
    assert there == exact or any(b" (1)" in name for name in there)
    clean(scene)
    scene.undisturbed()


def test_the_same_long_name_twice_keeps_its_extension(scene: Scene) -> None:
    clean(scene)
    with scene.contact() as mallory:
        for _ in range(3):
            send(scene, mallory, b"x" * 251 + b".jpg")
    tails = [b".jpg", b" (1).jpg", b" (2).jpg"]
    expected = {(b"new_" + b"x" * 251)[: 255 - len(tail)] + tail for tail in tails}
    assert downloaded(scene) == expected
    clean(scene)
    scene.undisturbed()


def test_the_next_of_a_thousand_files_of_one_name(scene: Scene) -> None:
    clean(scene)
    top = scene.alice.downloads
    for number in range(1000):
        (top / f"new_many ({number}).txt" if number else top / "new_many.txt").touch()
    (top / "new_many (7).txt").unlink()
    (top / "new_many (7).txt").symlink_to("nowhere")  # not to be followed, nor replaced
    with scene.contact() as mallory:
        send(scene, mallory, b"many.txt")
        assert (top / "new_many (1000).txt").read_bytes() == DATA
        (top / "new_many (500).txt").unlink()
        send(scene, mallory, b"many.txt")
        assert (top / "new_many (500).txt").read_bytes() == DATA
    assert os.readlink(top / "new_many (7).txt") == "nowhere"
    clean(scene)
    scene.undisturbed()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "room"},
        {"kind": ESC[:32]},
        {"kind": ""},
        {"files": 0},
        {"files": 2},
        {"files": 2**63 - 1},
    ],
    ids=ascii,
)
def test_an_offer_of_another_kind_is_declined(scene: Scene, changes: dict[str, object]) -> None:
    with scene.contact() as mallory:
        offer(mallory, b"name", len(DATA), **changes)
        assert not mallory.take(Decision).accepted
    assert all(line.isprintable() for line in scene.log())
    scene.undisturbed()


def test_a_time_that_no_clock_has_is_no_trouble(scene: Scene) -> None:
    clean(scene)
    with scene.contact() as mallory:
        for time in (-(2**63), 2**63 - 1, -1):
            transfer = offer(mallory, b"old", len(DATA), mtime_ns=time, executable=True)
            with RawLane(scene, mallory, agree(mallory, transfer)) as lane:
                lane.send_file(DATA)
                assert mallory.take(Result).error == ""
    assert len(downloaded(scene)) == 3
    clean(scene)
    scene.undisturbed()


# -- texts and terminals ------------------------------------------------------------------

TEXTS = [
    f"before {ESC} after",
    f"pay {OVERRIDE}001\u2066 now\u2069",
    "\0nul\0",
    "line\r\nover\rwritten",
    "\u2028\u2029\u200b\ufeff",
    "\ue000 \U0010ffff \ufffe",
    "👩‍👩‍👧 \u0300\u0301" * 50,
    "\x9b2J c1",
]


def test_texts_are_kept_whole(scene: Scene) -> None:
    with scene.contact() as mallory:
        for text in TEXTS:
            mallory.put(Text(text=text, sent_at=2**63 - 1))
        mallory.acknowledged()
        assert scene.alice.texts("mallory") == TEXTS
        for word in ("before", "nul", "written", "c1"):
            assert scene.alice.texts("mallory", search=word) != []
    scene.undisturbed()


def tnt(scene: Scene, *arguments: str) -> str:
    """What `tnt` writes, to both outputs."""
    command = [sys.executable, "-P", "-m", "tnt_client.tnt", *arguments]
    done = subprocess.run(
        command,
        env={**environment(scene.alice.home), "TNT_NAME": "alice"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    return done.stdout.decode()


def test_a_terminal_is_not_driven(scene: Scene) -> None:
    with scene.contact() as mallory:
        for text in TEXTS:
            mallory.put(Text(text=text, sent_at=0))
        mallory.put(
            Offer(
                transfer=os.urandom(16),
                kind="file",
                name=(ESC + OVERRIDE).encode(),
                size=2**62,
                files=1,
                mtime_ns=0,
                executable=False,
            )
        )
        mallory.acknowledged()
        source = scene.alice.home / "declined"
        source.write_bytes(DATA)
        scene.alice.rpc("transfers.send", to="mallory", paths=[str(source)])
        transfer = mallory.take(Offer).transfer
        mallory.put(Decision(transfer=transfer, accepted=False, reason=ESC + OVERRIDE))
        mallory.put(Refused(id=os.urandom(16), code=ESC))
        mallory.acknowledged()
        for arguments in (["history", "mallory"], ["transfers"], ["contacts"]):
            shown = tnt(scene, *arguments)
            assert "mallory" in shown
            assert not odd(shown), (arguments, shown)
        (error,) = [event for event in scene.events() if event["type"] == "error"]
        assert not odd(error["text"]), error
    scene.undisturbed()


def odd(shown: str) -> set[str]:
    """What drives a terminal."""
    return {c for c in shown if unicodedata.category(c) in HIDDEN and c not in "\n\u200d"}


def test_what_a_dialled_peer_says_is_not_driven_either(scene: Scene) -> None:
    for code, text in ((ESC, "x"), (OVERRIDE, "x"), ("not_contact", ESC)):
        with listener() as door, scene.alice.client() as user:
            call = user.send("peers.connect", address=f"127.0.0.1:{door.getsockname()[1]}")
            with RawPeer.accept(door) as peer:
                peer.send_frame(LinkError(code=code, text=text))
                peer.wait_closed()
            with pytest.raises(RpcError, match="not reached") as error:
                user.reply(call)
            assert not odd(error.value.message), error.value
    assert all(line.isprintable() for line in scene.log())
    scene.undisturbed()


def test_the_log_is_not_driven(scene: Scene) -> None:
    for name in (ESC, OVERRIDE, "\n2026-01-01T00:00:00.000Z ERROR forged"):
        with scene.stranger() as peer:
            peer.authenticate()
            peer.send_frame(hello(name=name, explicit=True))
            assert peer.wait_closed()
    with scene.contact() as mallory:
        mallory.peer.send_frame(trusted(epoch=mallory.epoch))
        mallory.peer.send_frame(LinkError(code=ESC, text=f"{ESC}\n{OVERRIDE}"))
        with pytest.raises(PeerClosed):
            while True:
                mallory.peer.read_frame()
    assert all(line.isprintable() for line in scene.log())
    assert "forged" not in "".join(scene.log())
    scene.undisturbed()
