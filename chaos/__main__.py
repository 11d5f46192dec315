"""Makes faults under load: `python -m chaos`. The report is made from what this leaves: `chaos.report`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import secrets
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from chaos import ground, machine
from chaos.faults import FAULTS, Fault, Ground
from chaos.images import oldest_with_these_tables
from chaos.load import Load
from chaos.progress import Teller, telling
from chaos.results import RESULTS, Run
from chaos.schedule import turns
from chaos.soak import Soak
from chaos.stage import Stage
from chaos.turn import Turns
from tools import images
from tools.docker_engine import SetupError, only_one
from tools.processes import terminated_like_interrupted

#: Seconds from the beginning of one fault of a soak to the next, if it does not take longer.
_BETWEEN = 60.0


def main() -> int:
    """Make the faults that were asked for, ground after ground; 1 if anything was found that must not be."""
    options = _options()
    # It warns of every alarm and lost connection, which are made here on purpose.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    with terminated_like_interrupted(), telling(aside=options.json) as teller:
        found = images.ensure()
        skipped, more = ground.possible(options.faults, found, options.previous)
        runs = []
        for place in Ground:
            mine = [fault for fault in options.faults if fault.ground is place]
            left_out = {fault.name: skipped[fault] for fault in mine if fault in skipped}
            for name, why in left_out.items():
                teller.say(f"{name} is left out: {why}")
            faults = [fault for fault in mine if fault not in skipped]
            if not faults:
                continue
            run = Run(
                began=datetime.now(UTC).isoformat(timespec="seconds"),
                ground=place.value,
                seed=options.seed,
                rate=options.rate,
                machine=machine.describe(),
                skipped=left_out,
            )
            runs.append(run)
            teller.say(f"{place.value}: {len(faults)} faults, seed {run.seed}, {run.rate:g} payments a second")
            chance = random.Random(run.seed)
            # A ground has one run at a time; runs on different grounds may go side by side.
            with only_one(f"chaos-{place.value}"), ground.standing(place, found, more, chance) as stage:
                asyncio.run(_run(stage, faults, run, options, teller))
            teller.total(run)
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=1))
    return 0 if all(run.passed for run in runs) else 1


async def _run(stage: Stage, faults: list[Fault], run: Run, options: argparse.Namespace, teller: Teller) -> None:
    file: Path = options.results / f"{run.began.replace(':', '')[:17]}-{run.ground}.json"
    load = Load(stage.system, options.rate, f"c{secrets.token_hex(2)}", stage.chance)
    making = Turns(stage, load, teller.say)
    async with load.running():
        await making.ready()
        run.machine |= await machine.versions(stage.system)
        async with Soak(stage, run).sampling(options.soak):
            for number, fault in enumerate(turns(faults, stage.chance, options.minutes), 1):
                began = time.monotonic()
                teller.begin(number, fault.name, fault.told)
                turn = await making.make(fault)
                run.turns.append(turn)
                teller.end(turn)
                run.write(file)
                if options.soak:
                    await asyncio.sleep(max(0.0, began + _BETWEEN - time.monotonic()))
    run.total = await making.total()
    run.write(file)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--faults", type=_faults, default=_faults(""), metavar="NAME,...", help=", ".join(FAULTS))
    parser.add_argument(
        "--minutes", type=float, default=0, help="round after round for so long; default: each once"
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats the choices of a run")
    parser.add_argument("--rate", type=float, default=20, help="payments a second; default: %(default)s")
    parser.add_argument(
        "--soak", action="store_true", help="a fault a minute, of those that cost only time; measure what grows"
    )
    parser.add_argument(
        "--previous",
        default="",
        metavar="COMMIT",
        help="the older version; default: the oldest with today's tables",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results go; default: %(default)s")
    parser.add_argument("--json", action="store_true", help="the results on standard output, all else aside")
    options = parser.parse_args()
    if options.soak:
        options.faults = [fault for fault in options.faults if fault.suits_a_soak]
    options.previous = options.previous or oldest_with_these_tables()
    return options


def _faults(text: str) -> list[Fault]:
    if not text:
        return list(FAULTS.values())
    unknown = [name for name in text.split(",") if name not in FAULTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(FAULTS)}")
    return [FAULTS[name] for name in text.split(",")]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetupError as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit("Interrupted; the turns that were finished are in the results.")
