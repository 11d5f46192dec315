"""The questions of the Grafana dashboard, as its file holds them and as Prometheus gets them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

OBSERVABILITY = Path(__file__).parents[2] / "deploy" / "observability"
DASHBOARD = OBSERVABILITY / "grafana" / "dashboards" / "saga.json"

#: What Grafana puts in for its variables.
_VALUES = {"$service": "payment|reservation|point|queue|notify", "$__rate_interval": "1m", "$__range": "1h"}


def expressions() -> Iterator[str]:
    """Every question that the dashboard asks."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (annotation["expr"] for annotation in dashboard["annotations"]["list"])
    for variable in dashboard["templating"]["list"]:
        metric = re.fullmatch(r"label_values\((\w+), \w+\)", variable["definition"])
        assert metric
        yield metric[1]


def asked(expression: str) -> str:
    """A question with the dashboard's variables filled in."""
    for variable, value in _VALUES.items():
        expression = expression.replace(variable, value)
    return expression
