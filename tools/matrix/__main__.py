"""Run the matrix, or what is named of it: `make matrix ARGS="sid python3.12"`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tools.docker_engine import SetupError
from tools.matrix.combinations import COMBINATIONS
from tools.matrix.running import run

RESULTS = Path(__file__).with_name("results")


def main() -> int:
    """Run, and keep what came of it; 1 if anything failed. What cannot be had here is told, and is no failure."""
    names = [combination.name for combination in COMBINATIONS]
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(names)}; all by default")
    chosen = parser.parse_args().names or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such combination: {', '.join(sorted(unknown))}")
    failed = False
    for combination in COMBINATIONS:
        if combination.name not in chosen:
            continue
        print(f"--- {combination.name}", flush=True)
        try:
            result = run(combination)
        except SetupError as missing:
            print(f"{combination.name} cannot be had here: {missing}", flush=True)
            continue
        failed |= bool(result.failed)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{combination.name}.json").write_text(json.dumps(result.document(), indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
