"""What MariaDB's errors mean: above all those that no test can bring about at will."""

from __future__ import annotations

import pytest
from asyncmy import errors
from tortoise.exceptions import OperationalError

from common import db
from common.db import Fault
from common.vendors import mariadb


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        *((number, Fault.AWAY) for number in (2002, 2003, 2006, 2013, 1053, 1077, 1152, 1159, 1927)),
        *((number, Fault.AWAY) for number in (1040, 1044, 1045, 1049, 1129, 1130, 1203, 1226, 2005)),
        *((number, Fault.AWAY) for number in (1290, 1792, 1836, 1021, 1114, 1026, 1037, 1047, 1135)),
        *((number, Fault.RACE) for number in (1213, 1205, 1020, 1412)),
        *((number, Fault.DATA) for number in (1406, 1264, 1265, 1292, 1366, 1300, 1153, 1690)),
        *((number, Fault.OTHER) for number in (1054, 1064, 1146, 1317, 1364, 1969, 1644)),
    ],
)
def test_each_error_is_what_becomes_of_the_message_that_met_it(number: int, fault: Fault) -> None:
    """Wrapped by the ORM or not: waited for, done again at once, parked, or tried like any other."""
    said = errors.OperationalError(number, "as the server says")
    wrapped = OperationalError(said)
    wrapped.__context__ = said
    assert db.classify(said) is fault
    assert db.classify(wrapped) is fault


def test_a_row_that_is_there_already_is_a_lost_race() -> None:
    """The driver's own word for it; the ORM's is known for every vendor."""
    assert db.classify(errors.IntegrityError(1062, "Duplicate entry")) is Fault.RACE


@pytest.mark.parametrize(
    ("error", "cut"),
    [
        (errors.OperationalError(2013, "Lost connection"), True),
        (errors.OperationalError(1927, "Connection was killed"), True),
        (errors.InterfaceError(0, "Not connected"), True),
        (errors.InternalError("Packet sequence number wrong"), True),
        (TimeoutError(), True),
        (errors.OperationalError(1290, "read-only"), False),
        (errors.OperationalError(1213, "Deadlock"), False),
        (errors.DataError(1406, "too long"), False),
    ],
)
def test_only_a_lost_connection_may_be_the_works_own_fault(error: Exception, *, cut: bool) -> None:
    """Whoever kills its own connection is found out; whoever waits for room on a disk is not to blame."""
    assert db.may_be_the_work(error) is cut


def test_a_server_ends_a_statement_before_we_give_it_up() -> None:
    """So that it is told why, and nothing goes on running that nobody waits for."""
    for told, limit in (({}, "25.0"), ({"command_timeout": "6"}, "5.0")):
        assert f"max_statement_time={limit}" in mariadb.credentials(told, None)["init_command"]
