"""A folder from somebody who means harm: names, links and paths that lead elsewhere.

What holds always: all that arrives is below one new folder in the downloads folder, nothing that
was there is changed, and the sender is told of each file that was not taken.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from bystanders import Scene
from moving import make_tree, picture, wait_state
from raw_lane import RawLane, agree, offer, pack
from tntd.machines import tree
from tntd.machines.pack_record import What
from tntd.machines.records import RecordType
from tntd.wire.frames import Fates, Result

Item = tuple[What, bytes, bytes]
OWN = (b"data", b"run", b".tnt-part", b"new_evil", b"new_evil (1)")

NO_PATHS = [
    b"..",
    b"../victim",
    b"../../victim",
    b"../../../" * 20 + b"tmp/tnt-victim",
    b"/etc/tnt-victim",
    b"//etc/tnt-victim",
    b"a/../../victim",
    b"a/..",
    b"a/./b",
    b"./b",
    b"a//b",
    b"a/",
    b"nul\0byte",
    b"x" * 256,
    b"/".join([b"d"] * 101),
]
# Here these are names as good as any other: each stays one component of its path.
PLAIN = [
    "C:evil",
    "C:\\evil",
    "..\\victim",
    "\\\\server\\share",
    "file:stream",
    "CON",
    "nul.txt",
    "COM1",
    "tail. .",
    "...",
    "..\u2215victim",
    "..\u2044victim",
    "..\uff0fvictim",
    "\uff0e\uff0e",
    "..\u200b",
    "\x1b]0;owned\x07",
    "two\nlines",
    "\u202ecod.exe",
    "-rf",
    "~root",
    "$(reboot)`x`",
    ".tnt-part",
    "new_mine",
]
# Here these are two names each, and neither may take the place of the other.
ALIKE = [("Case", "cASE"), *[tuple(unicodedata.normalize(f, "caf\u00e9") for f in ("NFC", "NFD"))]]


class Attack:
    """A folder that mallory sends, record by record; and what stands around the downloads."""

    def __init__(self, scene: Scene) -> None:
        self.alice = scene.alice
        self.downloads = scene.alice.downloads
        self.downloads.mkdir(exist_ok=True)
        self.victims = [self.downloads / "victim", self.downloads.parent / "victim"]
        for each in self.victims:
            each.write_text("mine")
        self.before = self._around()
        self.final = self.downloads / "new_evil"
        self.fates: dict[bytes, str] = {}

    def clear(self) -> None:
        """Other tests find the downloads folder as it was."""
        for each in (*self.downloads.glob("new_*"), *self.victims):
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink()

    def send(self, scene: Scene, *records: list[Item], large: tuple[bytes, ...] = ()) -> None:
        """All of it, and then what mallory is told of it."""
        size = sum(len(item[2]) for each in records for item in each) + 10 * len(large)
        with scene.contact() as mallory:
            transfer = offer(mallory, b"evil", size, kind="folder", files=100)
            with RawLane(scene, mallory, agree(mallory, transfer)) as lane:
                lane.send(RecordType.HELLO)
                number = 0
                for items in records:
                    lane.send(RecordType.PACK, pack(number, *items))
                    number += len(items)
                for path in large:
                    lane.send_large(number, path, b"0123456789")
                    number += 1
                lane.send(RecordType.END)
                fates = mallory.take(Fates)
                self.fates = {each.path: each.reason for each in fates.files}
                assert all(each.state == "failed" for each in fates.files)
                assert mallory.take(Result).transfer == transfer
        assert self._around() == self.before, "nothing but the new folder is there or changed"

    def arrived(self) -> dict[str, bytes]:
        """All that is below the new folder: contents, targets, nothing for folders."""
        found: dict[str, bytes] = {}
        for folder, folders, names in os.walk(self.final):
            for path in (Path(folder) / name for name in (*folders, *names)):
                content = b""
                if path.is_symlink():
                    content = os.fsencode(os.readlink(path))
                elif path.is_file():
                    content = path.read_bytes()
                found[os.path.relpath(path, self.final)] = content
        return found

    def _around(self) -> dict[bytes, bytes]:
        """Files and links in the home of the daemons, but their own and what has come."""
        found: dict[bytes, bytes] = {}
        for folder, folders, names in os.walk(os.fsencode(self.alice.home)):
            folders[:] = [each for each in folders if each not in OWN]
            for path in (os.path.join(folder, name) for name in (*folders, *names)):
                if os.path.islink(path):
                    found[path] = os.readlink(path)
                elif os.path.isfile(path):
                    found[path] = Path(os.fsdecode(path)).read_bytes()
        return found


@pytest.fixture
def attack(scene: Scene) -> Iterator[Attack]:
    """On the alice of that scene."""
    made = Attack(scene)
    yield made
    made.clear()


def test_paths_that_lead_elsewhere(scene: Scene, attack: Attack) -> None:
    good: Item = ("file", b"good", b"good")
    attack.send(
        scene,
        [("file", path, b"evil") for path in NO_PATHS] + [good],
        [("folder", path, b"") for path in NO_PATHS],
        [("link", path, b"good") for path in NO_PATHS],
        [("skipped", path, b"gone") for path in NO_PATHS[:3]],  # takes nothing away either
        large=tuple(NO_PATHS),
    )
    assert attack.arrived() == {"good": b"good"}
    assert set(attack.fates) == set(NO_PATHS)
    assert {attack.fates[path] for path in NO_PATHS[:3]} == {tree.NO_NAME}
    scene.undisturbed()


def test_odd_names_stay_one_name(scene: Scene, attack: Attack) -> None:
    names = [*PLAIN, *(name for both in ALIKE for name in both)]
    entries: list[Item] = [("file", name.encode(), name.encode()) for name in names]
    folders: list[Item] = [("file", f"in/{name}/x".encode(), name.encode()) for name in names]
    taken: list[Item] = [("file", b"CON", b"another"), ("link", b"Case", b"CON")]
    attack.send(scene, entries + taken, folders)
    there = attack.arrived()
    assert {name: there.get(name) for name in names} == {name: name.encode() for name in names}
    inside = {name: there.get(f"in/{name}/x") for name in names}
    assert inside == {name: name.encode() for name in names}
    assert attack.fates == {b"CON": tree.TAKEN, b"Case": tree.TAKEN}
    assert all(line.isprintable() for line in scene.log())
    scene.undisturbed()


def test_nothing_goes_through_links_of_the_same_transfer(scene: Scene, attack: Attack) -> None:
    """Neither through those that are taken, nor where one was refused; in the same record, in
    a later one, and as a large file."""
    outside = os.fsencode(attack.downloads)
    links: list[Item] = [
        ("folder", b"sub", b""),
        ("file", b"sub/there", b"first"),
        ("link", b"alias", b"sub"),
        ("link", b"sub/up", b"../alias"),
        ("link", b"out", b"../.."),
        ("link", b"abs", outside),
        ("link", b"sub/back", b"../sub/../../victim"),
        ("link", b"victim", b"../victim"),
    ]
    kept = {"alias": b"sub", "sub/up": b"../alias"}
    through = [b"alias/victim", b"alias/there", b"sub/up/victim", b"sub/up/there"]
    attack.send(
        scene,
        [*links, *[("file", path, b"evil") for path in through]],
        [("file", path, b"evil") for path in [*through, b"alias", b"sub/up"]],
        [("folder", b"alias", b""), ("folder", b"alias/in", b""), ("link", b"alias/l", b"there")],
        [("failed", path, b"take it away") for path in through],
        [("file", b"out/victim", b"a name"), ("file", b"abs/victim", b"a name")],
        large=(*through, b"alias", b"abs"),
    )
    there = attack.arrived()
    assert {name: there[name] for name in kept} == kept
    assert there["sub/there"] == b"first"
    assert there["out/victim"] == there["abs/victim"] == b"a name", "where no link came to be"
    assert set(there) == {*kept, "sub", "sub/there", "out", "out/victim", "abs", "abs/victim"}
    assert {*through, b"alias", b"sub/up", b"alias/in", b"alias/l"} <= set(attack.fates)
    for path in (b"out", b"abs", b"sub/back", b"victim"):
        assert path in attack.fates
    scene.undisturbed()


def test_what_is_there_is_not_replaced_and_others_are_served(scene: Scene, attack: Attack) -> None:
    """The name of the folder itself, too; and after all this a good folder arrives."""
    mine = attack.downloads / "new_evil"
    mine.symlink_to(attack.victims[1].parent)
    attack.send(scene, [("file", b"victim", b"evil"), ("file", b"../x", b"evil")])
    assert os.readlink(mine) == str(attack.victims[1].parent)
    assert (attack.downloads / "new_evil (1)" / "victim").read_bytes() == b"evil"
    source = make_tree(scene.bob.home / "served", files=5)
    (sent,) = scene.bob.rpc("transfers.send", to="alice", paths=[str(source)])["transfers"]
    wait_state(scene.bob, sent["id"], "done")
    assert picture(attack.downloads / "new_served") == picture(source)
    scene.undisturbed()
