"""What is skipped for want of a program must not rot unnoticed."""

from __future__ import annotations

import pytest

from tests.support import tools


@pytest.mark.parametrize(
    ("environment", "fails"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "1", "CI_WITHOUT": "node, promtool"}, False),
        ({"CI": "1", "CI_WITHOUT": "chromium"}, True),
        ({"CI": "false"}, False),
        ({"CI_WITHOUT": "chromium"}, False),
    ],
)
def test_only_a_ci_fails_and_only_for_what_it_did_not_name(environment: dict[str, str], fails: bool) -> None:
    """A laptop may lack a program; a machine that vouches for the whole may not, unless it says so."""
    assert bool(tools.failing("promtool", environment)) is fails


def test_a_test_without_its_program_fails_where_ci_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a missing browser would look like a board that works."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("CI_WITHOUT", raising=False)
    with pytest.raises(pytest.fail.Exception, match="CI_WITHOUT=chromium"):
        tools.missing("Chromium", "install it")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="install it"):
        tools.missing("Chromium", "install it")
