"""The gateway's configuration is changed behind llmctl's back: named by ``drift``, restored by ``apply``."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from llmctl.core.digests import Json
from tests.e2e.project import Project

pytestmark = pytest.mark.e2e
SMALL = True


def _no_traffic(config: Json, revision: str) -> None:
    route = config["routes"]["support"]
    route["weights"], route["promoted"] = {}, ""
    assert revision in route["revisions"]


def _other_prompt(config: Json, revision: str) -> None:
    config["routes"]["support"]["revisions"][revision]["messages"][0]["content"] = "Answer in rhymes."


def _other_route(config: Json, _: str) -> None:
    config["routes"]["shadow"] = copy.deepcopy(config["routes"]["support"])


def _no_route(config: Json, _: str) -> None:
    config["routes"] = {}


@pytest.mark.parametrize(
    ("change", "address", "said"),
    [
        (_no_traffic, "route.support", "traffic is nothing"),
        (_other_prompt, "route.support", "its messages were changed"),
        (_other_route, "route.shadow", "unmanaged: the gateway serves it, and nobody recorded it"),
        (_no_route, "route.support", "the gateway does not serve it"),
    ],
    ids=["weights removed", "another prompt", "a route nobody declared", "the route removed"],
)
def test_drift_names_it_and_apply_restores_it(
    applied: Project, change: Callable[[Json, str], None], address: str, said: str
) -> None:
    revision, serial = applied.answers().revision, applied.serial()
    assert applied.ok("drift").code == 0
    _, served = applied.admin("GET", "/config")
    config = copy.deepcopy(served["config"])
    change(config, revision)
    code, answer = applied.admin("PUT", "/config", {"expected": served["revision"], "config": config})
    assert code == 200, answer

    drift = applied.llmctl("drift")
    assert drift.code == 2
    assert address in drift.out
    assert said in drift.out
    assert address in [d["address"] for d in applied.llmctl("drift", "--json").json()["drift"]]
    assert applied.plan_code() == 2
    assert address in [d["address"] for d in applied.status()["drift"]]

    applied.apply()
    assert applied.ok("drift").code == 0
    assert applied.plan_code() == 0
    assert applied.answers().revision == revision
    _, now = applied.admin("GET", "/config")
    assert now["config"]["routes"] == served["config"]["routes"]
    assert applied.serial() == serial + 1, "a restoration is recorded"
    assert applied.ok("audit", "verify").code == 0
