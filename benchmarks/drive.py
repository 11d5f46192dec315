"""The driver as a program: `python -m benchmarks.drive PLAN RESULT` carries out a plan and leaves its times."""

from __future__ import annotations

import asyncio
import gc
import pickle
import sys
from pathlib import Path

from benchmarks.driver import drive


def main(plan_file: Path, result_file: Path) -> None:
    """Carry out the plan in the first file and leave the times in the second."""
    plan = pickle.loads(plan_file.read_bytes())  # noqa: S301 - written by the benchmark a moment ago
    # Tens of thousands of frames that never become garbage: looking through them would be seen in the latencies.
    gc.freeze()
    gc.disable()
    result_file.write_bytes(pickle.dumps(asyncio.run(drive(plan))))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
