"""`python -m tests.sim --seeds A-B` and `python -m tests.sim --mutants`; see README.md."""

from __future__ import annotations

import argparse
import sys

from .hunt import hunt, hunt_mutants


def _seeds(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    seeds = int(first), int(last or first)
    if seeds[0] > seeds[1]:
        raise argparse.ArgumentTypeError(f"no seeds: {text}")
    return seeds


def main() -> int:
    """Run what is asked for; 1 where a seed fails or a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", metavar="A-B", type=_seeds, help="run seeds A to B")
    parser.add_argument("--mutants", action="store_true", help="every mutant must be caught")
    parser.add_argument("--jobs", type=int, help="processes (all cores)")
    options = parser.parse_args()
    if not options.seeds and not options.mutants:
        parser.error("nothing to do: give --seeds or --mutants")
    good = True
    if options.seeds:
        good = hunt(*options.seeds, options.jobs)
    if options.mutants:
        good = hunt_mutants(options.jobs) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
