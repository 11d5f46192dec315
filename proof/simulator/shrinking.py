"""A failing case made small: Hypothesis takes away sagas, oddities and faults for as long as it still fails.

A case of hundreds of sagas is the wrong thing to read. So a small one that fails as well is looked for among cases
of up to three sagas whose faults are planned one by one, and made smaller until nothing can be left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from common import saga
from proof.simulator.faults import RATES, Act, Moment, Strike
from proof.simulator.simulation import Case, Run, run
from proof.simulator.verdict import Violation, judge
from proof.simulator.workload import Curse, Ill, Order, What, Wishes, order

#: Cases looked at before it is given up.
_CASES = 300
_SECONDS = 2.0


@st.composite
def _strikes(draw: st.DrawFn) -> Strike:
    moment = draw(st.sampled_from(Moment))
    act = draw(st.sampled_from(list(RATES[moment])))
    return Strike(draw(st.sampled_from(saga.SERVICES)), moment, draw(st.integers(1, 12)), act, _seconds(act))


def _seconds(act: Act) -> float:
    return _SECONDS if act in {Act.SLOW, Act.AWAY, Act.CRASH, Act.RESTART, Act.UNBIND} else 0.0


@st.composite
def _orders(draw: st.DrawFn, number: int) -> Order:
    wishes = Wishes(
        # The first ones are the simplest: a saga that succeeds, and has nothing to do with any other.
        user=draw(st.sampled_from((number, 0))),
        seat=draw(st.sampled_from((number, 0))),
        points=draw(st.sampled_from((200, 0, 400))),
        token=draw(st.sampled_from(("", "t0"))),
        amount=draw(st.sampled_from((None, 1))),
        thinks=draw(st.sampled_from((3.0, 0.0))),
        repeated=tuple(draw(st.lists(st.tuples(st.integers(0, 3), st.sampled_from((0.0, 4.0))), max_size=1))),
        curses=tuple(draw(st.lists(_curses(number), max_size=1))),
    )
    return order(number, wishes)


def _curses(number: int) -> st.SearchStrategy[Curse]:
    return st.builds(
        Curse,
        service=st.sampled_from(saga.SERVICES[:-1]),
        id=st.just(f"p{number}"),
        what=st.sampled_from((What.FORWARD, What.FAILURE)),
        ill=st.sampled_from((Ill.FAILS, Ill.FAILS_LATE, Ill.FAILS_AGAIN)),
        times=st.integers(1, 4),
    )


@st.composite
def small_cases(draw: st.DrawFn) -> Case:
    """Up to three sagas, and up to four faults, each at a moment of its own."""
    count = draw(st.integers(1, 3))
    plan = draw(
        st.lists(_strikes(), max_size=4, unique_by=lambda strike: (strike.service, strike.moment, strike.number))
    )
    return Case(
        seed="small",
        orders=tuple(draw(_orders(number)) for number in range(count)),
        plan=tuple(plan),
    )


def smallest(fails: Callable[[Case], bool], *, seed: int = 0, cases: int = _CASES) -> Case | None:
    """The smallest case that fails, as far as so many tries find one."""
    try:
        return find(
            small_cases(),
            fails,
            settings=settings(
                max_examples=cases,
                database=None,
                deadline=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
            random=random.Random(seed),  # noqa: S311 - a search, not a secret
        )
    except NoSuchExample:
        return None


def breaks(case: Case) -> bool:
    """Whether the promise is broken in this case."""
    return not judge(run(case)).holds


def told(case: Case) -> str:
    """A planned case, and what comes of it, in words."""
    result = run(case)
    lines = [f"{len(case.orders)} sagas:"]
    lines += [f"  {told}" for order in case.orders for told in order.told]
    lines += [f"  cursed: {curse}" for order in case.orders for curse in order.curses]
    lines += ["and nothing goes wrong" if not case.plan else "and this goes wrong:"]
    lines += [f"  {strike}" for strike in case.plan or ()]
    lines += ["so that:"]
    lines += [f"  {event}  {event.key}".rstrip() for event in result.chronicle.events]
    lines += [f"broken: {violation}" for violation in judge(result).violations]
    return "\n".join(lines)


def story(result: Run, violation: Violation) -> str:
    """What happened to what a violation is about, line by line."""
    keys = {violation.key}
    for one in result.case.orders:
        ids = {one.id, *(told.id for told in one.told)}
        if violation.key in ids:
            keys |= ids
    events = result.chronicle.story(frozenset(keys - {""}))
    return "\n".join(f"{event}  {event.key}".rstrip() for event in events)
