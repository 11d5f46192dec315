"""`python -m tools.demo`: over a hundred payments through five services, and a verdict from their databases."""

import asyncio
import random
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console

from common import saga, topology
from common.messages import Body
from tools import seat
from tools.broker import Broker, BrokerError
from tools.client import Client, connect
from tools.demo import ending, plan, verdict
from tools.demo.plan import Case
from tools.demo.progress import Progress
from tools.demo.screen import Screen
from tools.processes import terminated_like_interrupted
from tools.stack import Stack, StackError
from tools.stack.together import together

# Slow enough to be watched.
_PER_SECOND = 30

# The service that is stopped in the middle, after how much of the payments, and for how long.
_STOPPED = "point"
_STOPPED_AFTER = 0.35
_STOPPED_FOR = 3.0

# How long the holds last that are meant to run out before they are paid for.
_BRIEF = timedelta(seconds=4)

_SECONDS_TO_SETTLE = 90.0
_PAUSE = 0.1
_PARKED = topology.parked_queue(saga.FIRST.service)


class Demo:
    """One run: prepare, pay in two waves, wait for the end, look into the databases."""

    def __init__(self, stack: Stack, broker: Broker, console: Console) -> None:
        self._stack = stack
        self._broker = broker
        self._mark = f"demo-{secrets.token_hex(3)}"
        self._plan = plan.make(self._mark)
        self._progress = Progress(self._plan.cases)
        self._console = console
        self._screen = Screen(console, self._progress)

    async def run(self) -> bool:
        """Do it all; return whether everything is consistent."""
        async with connect(self._broker.amqp_url, self._progress.hear) as client:
            await self._prepare(client)
            before = verdict.read(self._stack, self._mark).balances
            parked = await client.depth(_PARKED)
            async with self._screen.showing():
                await self._pay(client)
            self._screen.say("All payments are sent and settled. Reading the five databases ...")
            await _until(lambda: verdict.read(self._stack, self._mark).quiet)
            parked = await client.depth(_PARKED) - parked
        books = verdict.read(self._stack, self._mark)
        self._console.print(ending.kinds(self._plan, books))
        self._console.print(ending.balances(self._plan, before, books.balances))
        findings = [
            *verdict.compare(self._plan, books),
            verdict.Finding(
                f"the malformed message waits in {_PARKED} for a person, and disturbed nothing",
                () if parked == 1 else (f"{parked} messages came there",),
            ),
            await verdict.audit(self._stack, self._mark),
        ]
        consistent = ending.verdict(self._console, findings)
        self._console.print(
            "[bold green]CONSISTENT[/bold green]: of each payment all happened, or nothing."
            if consistent
            else f"[bold red]NOT CONSISTENT[/bold red]: see above, and the logs in {self._stack.home / 'log'}"
        )
        return consistent

    async def _prepare(self, client: Client) -> None:
        self._screen.say(f"Holding seats, filling wallets, issuing tokens: {len(self._plan.prepare)} commands")
        await _do(client, self._plan.prepare)

    async def _pay(self, client: Client) -> None:
        """Send the first wave, cut a service off in its middle; when it has settled, send the second."""
        run_out = datetime.now(UTC) + _BRIEF
        await _do(client, [hold(run_out) for hold in self._plan.brief_holds])
        sendings = [case for case in self._plan.first for _ in range(case.times)]
        random.Random(7).shuffle(sendings)  # noqa: S311 - the same mix in every run, not a secret
        cut = int(len(sendings) * _STOPPED_AFTER)
        self._screen.say(f"Publishing {len(self._plan.first)} payments, some of them three times")
        await self._send(client, sendings[:cut])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stop_for_a_while())
            await self._send(client, sendings[cut:])
            await client.publish(saga.FIRST.on, self._plan.malformed)
        self._screen.say("Published; one more message was no JSON")
        await _until(lambda: not self._progress.unsettled())
        await _until(lambda: datetime.now(UTC) > run_out)
        self._screen.say(f"Publishing {len(self._plan.second)} payments that come too late for seat or token")
        await _do(client, self._plan.taken_over)
        await self._send(client, self._plan.second)
        await _until(lambda: not self._progress.unsettled())

    async def _send(self, client: Client, cases: Sequence[Case]) -> None:
        for case in cases:
            self._progress.send(case.pay.payment_id)
            await client.publish(saga.FIRST.on, case.pay)
            await asyncio.sleep(1 / _PER_SECOND)

    async def _stop_for_a_while(self) -> None:
        self._screen.say(f"[red]Stopping[/red] the {_STOPPED} service (SIGTERM), with payments on their way")
        self._screen.stopped.add(_STOPPED)
        stubborn = await asyncio.to_thread(self._stack.stop, _STOPPED)
        if stubborn:
            self._screen.say(f"{_STOPPED} did not leave in time and was ended by force")
        await asyncio.sleep(_STOPPED_FOR)
        await asyncio.to_thread(self._stack.start, _STOPPED, self._broker.amqp_url)
        await asyncio.to_thread(self._stack.wait_ready, _STOPPED)
        self._screen.stopped.discard(_STOPPED)
        self._screen.say(f"[green]Started[/green] the {_STOPPED} service again: it goes on where it was")


async def _do(client: Client, commands: Sequence[Body]) -> None:
    """Publish commands and wait for their answers; a rejection of one is the end of the demo."""
    for answer in await client.ask(commands):
        if answer.key.endswith(".rejected"):
            raise StackError(f"a command of the demo was rejected: {answer.body}")


async def _until(reached: Callable[[], bool]) -> None:
    """Wait until it is so, or for long enough: what is missing then, the verdict tells."""
    for _ in range(int(_SECONDS_TO_SETTLE / _PAUSE)):
        if reached():
            return
        await asyncio.sleep(_PAUSE)


def main() -> int:
    """Run the demo: 0 if all is consistent, 1 if not, 130 after Ctrl-C. What was started is stopped."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    # The demo's users have no mailboxes, and those of the person at the terminal are not theirs.
    stack = Stack(environment={"NOTIFY_URLS": ""})
    try:
        with terminated_like_interrupted(), together(stack, keep=False) as broker:
            consistent = asyncio.run(Demo(stack, broker, console).run())
            payment = asyncio.run(seat.prepare(broker))
    except (BrokerError, StackError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: what was started has been stopped.", file=sys.stderr)
        return 130
    if not stack.running:
        print("All is stopped. `make up` starts it again, on the same data, and leaves it running. Then:\n")
    seat.tell(broker, payment)
    return 0 if consistent else 1


if __name__ == "__main__":
    sys.exit(main())
