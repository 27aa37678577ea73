"""llmctl was upgraded while the gateway ran: it keeps the program that it was started with, and that is said."""

from __future__ import annotations

import pytest

from llmctl.app.local import outdated
from llmctl.core.protocols import GatewayReading
from tests.cli.conftest import InProcess
from tests.cli.project import Project

pytestmark = pytest.mark.e2e


def test_a_gateway_of_another_version_is_told_by_plan_and_status(
    project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.run("apply", "--yes").code == 0
    assert here("plan", "--json").json()["warnings"] == []
    assert here("status", "--json").json()["gateway_note"] == ""
    monkeypatch.setattr("llmctl.app.local.__version__", "99.0.0")
    (warning,) = here("plan", "--json").json()["warnings"]
    assert (warning["severity"], warning["summary"].endswith(", and this is 99.0.0")) == ("warning", True)
    assert "`llmctl local stop` and then `llmctl local start`" in warning["hint"]
    assert "! the gateway runs llmctl " in here("status").out


def test_a_gateway_that_names_no_version_is_an_earlier_one_and_one_that_is_down_is_none() -> None:
    (said,) = outdated(GatewayReading(True))
    assert said.summary.startswith("the gateway runs an earlier llmctl, and this is ")
    assert outdated(GatewayReading(False)) == ()
    assert outdated(GatewayReading(True, unreadable="it does not answer")) == ()
