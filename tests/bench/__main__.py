"""Figures of real daemons, side by side with other tools.  See README.md here.

python -m tests.bench [SCENARIO ...] [--runs N] [--size MIB] [--files N] [--disk [FOLDER]]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The daemons are started with -P: they are those of this checkout, wherever it was called.
os.environ["PYTHONPATH"] = os.pathsep.join(
    (str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")]))
)

from tests.bench import crowd, files, memory, patches, talk  # noqa: E402
from tests.bench.measure import MIB  # noqa: E402
from tests.bench.report import Report, say  # noqa: E402
from tests.bench.scene import Bench, TransferFailed, base_folder  # noqa: E402
from tests.harness import RpcError  # noqa: E402

SCENARIOS: dict[str, Callable[[Bench], None]] = {
    "single": files.single,
    "small": files.small,
    "chat": talk.chat,
    "messages": talk.messages,
    "memory": memory.memory,
    "resume": patches.resume,
    "delta": patches.delta,
    "fair": crowd.fair,
    "contacts": crowd.contacts,
    "million": memory.million,
}
ONLY_ON_REQUEST = ("contacts", "million")


def main() -> None:
    """Run what was asked for and print the report."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is cleared away
    asked = _arguments()
    names = asked.scenarios or [name for name in SCENARIOS if name not in ONLY_ON_REQUEST]
    report = Report()
    failed = []
    with base_folder(asked.disk) as folder:
        bench = Bench(
            folder, report, asked.runs, asked.size * MIB, asked.files, asked.disk is not None
        )
        try:
            for name in names:
                say(name)
                if not _ran(name, bench):
                    failed.append(name)
        finally:
            bench.close()
    where = f"on disk ({asked.disk})" if asked.disk else "in memory"
    conditions = f"All files {where}; medians of {asked.runs} interleaved runs."
    command = " ".join(["python -m tests.bench", *sys.argv[1:]])
    print(report.text(command, conditions))
    sys.exit(1 if failed else 0)


def _ran(name: str, bench: Bench) -> bool:
    """Run one; what goes wrong in it does not end the others."""
    try:
        SCENARIOS[name](bench)
    except (AssertionError, RpcError, TransferFailed, RuntimeError, OSError) as error:
        bench.report.note(f"**{name} did not get to its end**: {type(error).__name__}: {error}")
        return False
    finally:
        bench.tidy()
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--runs", type=int, default=3, help="how often each; 3")
    parser.add_argument("--size", type=int, default=1024, help="MiB of a large file; 1024")
    parser.add_argument("--files", type=int, help="how many small files, messages or contacts")
    parser.add_argument(
        "--disk", nargs="?", const="/var/tmp", metavar="FOLDER", help="on disk, not in memory"
    )
    asked = parser.parse_args()
    unknown = [name for name in asked.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return asked


if __name__ == "__main__":
    main()
