"""Where the time goes: a flame graph of each service under load, by py-spy."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks import orders
from benchmarks.bench import Bench, throughput
from benchmarks.programs import ROOT
from benchmarks.results import Figure
from benchmarks.roster import OURS

FOLDER = ROOT / "docs" / "benchmarks"
_SECONDS_TO_DRAW = 60


def profile(bench: Bench) -> None:
    """Watch one service after the other through a load of its own each."""
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        bench.teller.say("  py-spy is not installed (requirements/bench.txt): no flame graphs")
        return
    for name, factory in bench.chosen(OURS).items():
        with bench.turn("profile", name, factory) as its:
            pids = its.contender.pids()
            wanted = orders.clean(bench.sagas * len(pids))
            its.contender.prepare(wanted)
            for number, (service, pid) in enumerate(pids.items()):
                part = wanted[number * bench.sagas : (number + 1) * bench.sagas]
                drawing = FOLDER / f"flame-{service}.svg"
                command = [spy, "record", "--rate=200", "--nonblocking", f"--pid={pid}", f"--output={drawing}"]
                with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watching:
                    timed = its.timed(part)
                    watching.send_signal(signal.SIGINT)
                    watching.wait(_SECONDS_TO_DRAW)
                _rename(drawing, f"{service}, {timed.rate:,.0f} sagas/s")
                bench.note(
                    Figure("profile", name, 1, service, throughput(timed), timed.cpu, timed.memory, {}, timed.void)
                )
            for wrong in its.audit():
                bench.teller.say(f"  {wrong}")


def _rename(drawing: Path, title: str) -> None:
    """Give a flame graph a title for readers; py-spy writes its command line there."""
    if drawing.exists():
        titled = re.sub(r'(<text id="title"[^>]*>)[^<]*', lambda found: found[1] + title, drawing.read_text())
        drawing.write_text(titled)
