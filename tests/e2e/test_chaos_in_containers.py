"""`make chaos` itself, in seconds: that its hands harm, its load goes on, and its verdict can be given."""

from __future__ import annotations

import random
import secrets
from dataclasses import replace

import pytest

from chaos.faults import FAULTS
from chaos.load import Load
from chaos.stage import Stage
from chaos.turn import Turns
from containers.system import System

pytestmark = pytest.mark.container


async def test_faults_under_load_are_judged_payment_by_payment(system: System) -> None:
    """A chaos run takes an hour, so it is seldom made; a small one sees to it that it still can be made."""
    stage = Stage(system, random.Random(1))
    load = Load(system, 5, f"s{secrets.token_hex(3)}", stage.chance)
    making = Turns(stage, load, print)
    async with load.running():
        await making.ready()
        for fault in (FAULTS["services-all-killed"], FAULTS["connections-closed"]):
            turn = await making.make(replace(fault, holds=1))
            assert turn.finds == []
            assert turn.recovered is not None
            assert turn.completed + turn.undone == turn.sagas > 0
    total = await making.total()
    assert total.finds == []
    assert total.completed > total.undone > 0
    # Payment, hold, top-up and token of each, and those who sent twice.
    assert total.commands["payment.pay"] >= total.sagas
    assert len(total.commands) == 4
