"""Tortoise's configuration of each service, for writing migrations.

`tortoise -c tools.migrations.PAYMENT makemigrations` compares the models with the migrations of one service;
`make migrations` does it for all.
"""

from common import db


def _configuration(service: str) -> dict[str, object]:
    return db.configuration("sqlite://:memory:", db.tables(service), f"{service}_svc.migrations")


PAYMENT = _configuration("payment")
RESERVATION = _configuration("reservation")
POINT = _configuration("point")
QUEUE = _configuration("queue")
NOTIFY = _configuration("notify")
