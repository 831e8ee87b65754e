"""A long, coverage-guided hunt on one target, or on all of them: `python -m tests.fuzz --help`.

The program makes its own seeds; what it learns is kept in a folder only where one is given.  An
input that fails is kept as a file, and `--replay` runs it again, also without atheris.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .target import Target

ROOT = Path(__file__).parents[2]
INSTRUMENTED = ["tntd", "tnt_client", "tomllib", "tests.fuzz"]
SECONDS = 60
INPUT_TIMEOUT_S = 20  # one input may not take longer
MEMORY_MIB_MAX = 1024


def main() -> int:
    """The program; returns its exit code."""
    options = _options()
    if options.replay is not None:
        _targets()[options.name].run(options.replay.read_bytes())
        print(f"{options.replay} does no harm to {options.name}")
        return 0
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("long runs need atheris: pip install -e '.[fuzz]'", file=sys.stderr)
        return 2
    if options.name == "all":
        return _all(options)
    return _hunt(atheris, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("name", help='a target, or "all"; "list" shows them')
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    parser.add_argument("--corpus", type=Path, help="a folder that keeps what was learnt")
    parser.add_argument("--findings", type=Path, default=Path(), help="where failing inputs go")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input")
    options = parser.parse_args()
    names = list(_targets()) if options.name in ("all", "list") or options.replay else []
    if options.name == "list":
        print("\n".join(names))
        sys.exit(0)
    options.names = names
    return options


def _targets() -> dict[str, Target]:
    targets: dict[str, Target] = importlib.import_module("tests.fuzz.targets").TARGETS
    return targets


def _all(options: argparse.Namespace) -> int:
    """One after the other, each in a process of its own, because the fuzzer never returns."""
    failed = []
    for name in options.names:
        command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(options.seconds)]
        command += ["--findings", str(options.findings)]
        if options.corpus is not None:
            command += ["--corpus", str(options.corpus)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        runs = re.search(r"stat::number_of_executed_units: (\d+)", ended.stderr)
        print(f"{name}: {runs[1] if runs else 0} runs, {_verdict(ended.returncode)}", flush=True)
        if ended.returncode:
            failed.append(name)
            print(ended.stdout + ended.stderr, flush=True)
    return 1 if failed else 0


def _verdict(code: int) -> str:
    return "nothing found" if code == 0 else f"FOUND something (exit code {code})"


def _hunt(atheris: Any, options: argparse.Namespace) -> int:
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets = _targets()
    if options.name not in targets:
        print(f"no target {options.name!r}; there are: {', '.join(targets)}", file=sys.stderr)
        return 2
    target = targets[options.name]
    folder = tempfile.mkdtemp(prefix="tnt-fuzz-corpus-")
    corpus = (options.corpus or Path(folder)) / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options.findings.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_total_time={options.seconds}",
        f"-max_len={target.bytes_max}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={options.findings / target.name}-",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup(arguments, target.run)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
