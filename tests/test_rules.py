"""Rules of the house that a machine can check; the layers are checked by import-linter."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tntd import config
from tntd.settings import HELP, Settings

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    "tntd",
    "client",
    "tests",
    "README.md",
    "setup.py",
    "pyproject.toml",
    "LICENSE",
    "CHANGELOG.md",
}
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 500
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("tntd", "client")
    for path in (ROOT / folder).rglob("*.py")
)
# What the clients may know of the daemon's package.
CLIENT_MAY_IMPORT = ("tntd.control", "tntd.errors", "tntd.limits")


def tree_of(source: str) -> ast.Module:
    return ast.parse((ROOT / source).read_text("utf-8"), source)


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The absolute names of all modules that are imported, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_top_level_entries():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    entries = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert {entry for entry in entries if not entry.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_and_its_functions_fit_a_head(source: str):
    tree = tree_of(source)
    assert len((ROOT / source).read_text("utf-8").splitlines()) <= FILE_LINES_MAX
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    }
    assert not long


@pytest.mark.parametrize("source", SOURCES)
def test_a_module_tells_its_theory(source: str):
    tree = tree_of(source)
    assert ast.get_docstring(tree) or not tree.body


@pytest.mark.parametrize("source", SOURCES)
def test_public_things_are_explained(source: str):
    def explained(node: ast.stmt) -> bool:
        kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        return (
            not isinstance(node, kinds)
            or node.name.startswith("_")
            or ast.get_docstring(node) is not None
        )

    tree = tree_of(source)
    bodies = [tree.body]
    bodies += [
        node.body
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [node for body in bodies for node in body if not explained(node)] == []


@pytest.mark.parametrize("source", [s for s in SOURCES if s.startswith("client/")])
def test_the_clients_know_only_the_control_protocol(source: str):
    seen = {name for name in imports_of(tree_of(source)) if name.split(".")[0] == "tntd"}
    allowed = {
        name
        for name in seen
        if name.startswith(CLIENT_MAY_IMPORT) or name in ("tntd", "tntd.__version__")
    }
    assert seen == allowed


@pytest.mark.parametrize("source", [s for s in SOURCES if s.startswith("tntd/")])
def test_the_daemon_starts_no_threads(source: str):
    forbidden = {"threading", "asyncio", "concurrent", "multiprocessing", "_thread", "queue"}
    assert not {name.split(".")[0] for name in imports_of(tree_of(source))} & forbidden


@pytest.mark.parametrize("source", SOURCES)
def test_no_bare_except(source: str):
    tree = tree_of(source)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler) and n.type is None]


def said_in(tree: ast.Module, names: set[str]) -> Iterator[str]:
    """The texts in calls of functions with these names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
            if (name.id if isinstance(name, ast.Name) else name) in names:
                parts = (part for each in node.args for part in ast.walk(each))
                yield from (str(part.value) for part in parts if isinstance(part, ast.Constant))


@pytest.mark.parametrize("source", [s for s in SOURCES if s.startswith("tntd/")])
def test_nobody_is_told_of_lanes(source: str):
    """Users do not know the word.  What strangers did stands in the log only."""
    if source.endswith("/lane_stranger.py"):
        return
    said = said_in(tree_of(source), {"LaneTrouble", "LaneFailed", "RemoteError", "_expect"})
    assert [text for text in said if re.search(r"\blanes?\b", text)] == []


def test_every_setting_is_explained():
    names = set(Settings.__struct_fields__)
    assert set(HELP) == names
    assert set(config.ALLOWED) == names
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in sorted(names) if f"`{name}`" not in readme] == []


def test_every_verb_is_in_the_readme():
    verbs = pytest.importorskip("tnt_client.verbs").VERBS
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [name for name in verbs if not re.search(rf"`{re.escape(name)}[ `]", readme)]
    assert missing == []


def test_every_package_is_installed():
    listed = set(re.findall(r'"(tntd[\w.]*)",', (ROOT / "setup.py").read_text("utf-8")))
    there = {"tntd"} | {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "tntd").rglob("__init__.py")
    }
    assert listed == there
