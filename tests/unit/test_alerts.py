"""Alerts, dashboard and the metrics that they name: a rule over a metric that does not exist never rings."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from common import saga, topology
from common.metrics import Metrics, Vitals
from tests.support import dashboard
from tests.support.dashboard import DASHBOARD, OBSERVABILITY
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
PROMETHEUS = OBSERVABILITY / "prometheus"
ALERTS = PROMETHEUS / "alerts.yml"
TESTS = PROMETHEUS / "alerts_test.yml"

#: What others tell: Prometheus itself, and RabbitMQ's plugin rabbitmq_prometheus (3.10 and later).
FOREIGN = {
    "up",
    "ALERTS",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_consumers",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_alarms_free_disk_space_watermark",
}
#: Words of PromQL in our expressions that are no metrics.
WORDS = {
    *("sum", "max", "min", "count", "group", "by", "on", "or", "unless", "absent", "vector"),
    *("rate", "increase", "histogram_quantile", "label_replace", "clamp_min"),
}


def rules() -> list[dict[str, Any]]:
    """All alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def told() -> dict[str, set[str]]:
    """Every metric that the five services tell, each with the names of its labels."""
    found: dict[str, set[str]] = {}
    vitals = Vitals(
        is_broker_there=True,
        is_database_there=True,
        outbox_depth=0,
        outbox_limit=1,
        notices={"pending": 0, "parked": 0},
        open_sagas=0,
        oldest_open_saga=datetime.now(UTC),
    )
    for service in saga.SERVICES:
        page = Metrics(service, slowest_ms=1, vitals=lambda: vitals).page().decode()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
            if family.type == "counter":
                # A counter that has counted nothing has no line yet.
                found.setdefault(f"{family.name}_total", set())
    return found


def named(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(?:by|on|without)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"[a-zA-Z_]\w*", bare)) - WORDS


EXPRESSIONS = [*(rule["expr"] for rule in rules()), *dashboard.expressions()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_in_alerts_and_dashboard_exists(expression: str) -> None:
    """Prometheus takes a name that nobody tells for something that has not happened yet."""
    names = named(expression)
    assert names
    assert names <= told().keys() | FOREIGN


def test_a_name_that_nobody_tells_is_found() -> None:
    """The test above must be able to fail."""
    assert named('sum by (le) (rate(saga_gone_total{became="a (b) {c}"}[5m])) > 0') == {"saga_gone_total"}
    assert "saga_gone_total" not in told()


def test_no_metric_goes_unseen() -> None:
    """What no alert and no panel asks for is either missing there or not worth its bytes."""
    asked = {name for expression in EXPRESSIONS for name in named(expression)}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told() if name.startswith("saga_")}
    seen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    assert ours - seen <= {"saga_service_info"}


def test_every_queue_that_the_alerts_name_is_one_of_the_topology() -> None:
    """A service that the saga table gains must be watched, too."""
    queues = {queue.name for queue in topology.derive(()).queues}
    for alert, kinds in (("SagaParked", ("parked",)), ("SagaConsumerMissing", ("events", "commands", "dead"))):
        (rule,) = [rule for rule in rules() if rule["alert"] == alert]
        (pattern,) = re.findall(r'queue=~"([^"]+)"', rule["expr"])
        matched = {queue for queue in queues if re.fullmatch(pattern.replace("\\\\", "\\"), queue)}
        assert matched == {queue for queue in queues if queue.rpartition(".")[2] in kinds}
    (down,) = [rule for rule in rules() if rule["alert"] == "SagaServiceDown"]
    assert re.findall(r'"service", "(\w+)"', down["expr"]) == list(saga.SERVICES)
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["dns_sd_configs"][0]["names"] == list(saga.SERVICES)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_happened_and_what_to_do(rule: dict[str, Any]) -> None:
    """It comes at night, to somebody who did not write it."""
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_is_seen_to_ring_and_to_be_silent() -> None:
    """A rule that cannot ring is worse than none: somebody relies on it."""
    names = [rule["alert"] for rule in rules()]
    healthy, *others = yaml.safe_load(TESTS.read_text())["tests"]
    assert [check["alertname"] for check in healthy["alert_rule_test"]] == names
    assert not any(check.get("exp_alerts") for check in healthy["alert_rule_test"])
    ringing = {
        check["alertname"] for test in others for check in test["alert_rule_test"] if check.get("exp_alerts")
    }
    assert ringing == set(names)


def test_the_rules_do_what_their_tests_say() -> None:
    """Prometheus' own engine runs them over made-up series."""
    assert "SUCCESS" in promtool("test", "rules", TESTS)


def test_prometheus_takes_its_configuration() -> None:
    """Rules included; a mistake in it would be found when everything else is down, too."""
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_prometheus_takes_every_question_of_the_dashboard(tmp_path: Path) -> None:
    """A panel with a broken question only shows a small red triangle."""
    records = [
        {"record": f"panel_{number}", "expr": dashboard.asked(expression)}
        for number, expression in enumerate(dashboard.expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    promtool("check", "rules", file)


def test_the_panels_of_the_dashboard_neither_overlap_nor_share_an_id() -> None:
    """Grafana would silently move or lose one."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_what_grafana_is_given_fits_together() -> None:
    """The dashboard names its source by an id that another file gives."""
    sources = yaml.safe_load((OBSERVABILITY / "grafana/datasources/datasources.yml").read_text())["datasources"]
    assert {source["uid"] for source in sources} == {"prometheus", "jaeger"}
    used = set(re.findall(r'"uid": "(\w+)"', DASHBOARD.read_text()))
    assert used == {"prometheus"}


def test_every_file_that_compose_mounts_is_there() -> None:
    """A profile that nobody starts every day must not have lost its files when somebody does."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    mounted = {
        place.partition(":")[0]
        for service in services.values()
        for place in service.get("volumes", ())
        if place.startswith("./")
    }
    assert "./deploy/observability/prometheus" in mounted
    assert [place for place in sorted(mounted) if not (ROOT / place).exists()] == []


def test_what_looks_on_is_started_by_its_profile_alone() -> None:
    """`docker compose up` starts the saga, and nothing that a saga does not need."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert {name for name, it in services.items() if it.get("profiles") == ["observability"]} == {
        "prometheus",
        "grafana",
        "jaeger",
    }
    assert {name for name, it in services.items() if "profiles" not in it} == {
        *saga.SERVICES,
        "rabbitmq",
        "postgres",
    }
