"""``llmctl import``: what runs and was never recorded is taken into the record as it is."""

from __future__ import annotations

import json

import pytest

from tests.e2e.project import ONE_SENTENCE, SYSTEM, Project

pytestmark = pytest.mark.e2e
SMALL = True
SERVING = ("route.support", "gate.faq", "endpoint.support")


def forgotten(project: Project) -> tuple[str, str]:
    """Have the record forget what serves; the keys by which endpoint and route are taken in again."""
    route = f"support@{project.answers().revision}"
    (engine,) = (name.removeprefix("engine ") for name in project.census() if name.startswith("engine"))
    project.ok("state", "rm", *SERVING, "--reason", "a test", "--yes")
    return engine, route


def planned(project: Project) -> dict[str, str]:
    return {c["address"]: c["action"] for c in project.ok("plan", "--json").json()["changes"]}


def test_what_is_taken_in_as_it_is_declared_needs_nothing_but_its_proof(applied: Project) -> None:
    before = applied.ok("state", "show", "route.support", "--json").json()
    engine, route = forgotten(applied)
    census = applied.census()
    first = applied.ok("import", "endpoint.support", engine)
    assert "It is as llmops.yaml declares it." in first.out
    done = applied.ok("import", "route.support", route[:16], "--reason", "the record was lost", "--json").json()
    assert (done["address"], done["revision"], done["differs"]) == ("route.support", before["revision"], [])
    after = applied.ok("state", "show", "route.support", "--json").json()
    assert (after["spec"], after["needs"]) == (before["spec"], before["needs"])
    assert after["recorded_by"]["action"] == "import"
    assert planned(applied) == {"gate.faq": "create"}
    shown = applied.ok("audit", "show", str(done["serial"])).out
    assert f"import route.support v1 from {route}: the record was lost" in shown
    applied.apply()
    assert (applied.plan_code(), applied.census()) == (0, census)
    assert applied.ok("audit", "verify").code == 0


def test_the_plan_after_it_tells_the_true_difference(applied: Project) -> None:
    """The prompt was edited since: the route is recorded as it serves, and then replaced by canary and gate."""
    engine, route = forgotten(applied)
    applied.edit(SYSTEM, ONE_SENTENCE)
    applied.ok("import", "endpoint.support", engine)
    done = applied.ok("import", "route.support", route)
    assert "llmops.yaml declares it otherwise" in done.out
    plan = applied.ok("plan", "--json").json()
    assert {c["address"]: c["action"] for c in plan["changes"]} == {
        "prompt.answer": "update",
        "route.support": "replace",
        "gate.faq": "create",
    }
    (change,) = (c for c in plan["changes"] if c["address"] == "route.support")
    assert f"support@{change['before']}" == route
    assert plan["drift"] == []


def test_an_edited_operating_field_is_a_difference_too(applied: Project) -> None:
    engine, _ = forgotten(applied)
    applied.edit("    options: {slots: 4}", "    replicas: {min: 2, max: 2}\n    options: {slots: 4}")
    done = applied.ok("import", "endpoint.support", engine, "--json").json()
    assert [d["path"] for d in done["differs"]] == ["replicas.max", "replicas.min"]
    assert planned(applied)["endpoint.support"] == "update"


def test_what_is_refused(applied: Project) -> None:
    def refused(*arguments: str, said: str, hint: str = "", code: int = 1) -> None:
        result = applied.llmctl("import", *arguments)
        assert result.code == code, result.text
        assert said in result.err
        assert hint in result.err

    serial = applied.serial()
    (engine,) = (name.removeprefix("engine ") for name in applied.census() if name.startswith("engine"))
    refused("endpoint.support", engine, said="endpoint.support is recorded already, as v1", hint="llmctl state rm")
    refused("prompt.answer", "answer", said="a prompt needs no import")
    refused("gate.faq", "faq", said="a gate does not run")
    refused("nonsense", "faq", said="'nonsense' is not an address")
    refused("fts.faq", "faq", said="no installed package provides the kind 'fts'")
    refused("endpoint.other", engine, said=f"{engine} lives under the name support", hint="endpoint.support")
    refused("endpoint.other", "other@1234", said="no endpoint other@1234 is live", hint=engine)
    refused("route.other", "other", said="no route other is live", hint="support@")
    assert applied.serial() == serial

    engine, route = forgotten(applied)
    refused("route.support", "support@ffff", said="route support@ffff does not serve", hint=f"Serving is {route}.")
    text = applied.file.read_text()
    applied.file.write_text(text[: text.index("endpoints:")])
    entry = '"model": "support-tiny", "engine": "llama.cpp", "context": 512'
    refused("endpoint.support", engine, said="does not declare endpoint.support", hint=entry)
    refused("route.support", route, said="does not declare route.support", hint='"prompt": "answer"')
    applied.restore_file()
    applied.ok("local", "stop")
    refused("endpoint.support", engine, said="is live", hint="No endpoint is live.")
    refused("route.support", route, said="the gateway does not run", hint="llmctl local start")
    applied.ok("local", "start")


def test_what_was_edited_by_hand_is_not_taken_for_what_it_says_it_is(applied: Project) -> None:
    engine, route = forgotten(applied)
    path = applied.state() / "endpoints" / f"{engine}.json"
    was = path.read_text()
    _, served = applied.admin("GET", "/config")
    config = json.loads(json.dumps(served["config"]))
    revision = route.partition("@")[2]
    config["routes"]["support"]["revisions"][revision]["messages"][0]["content"] = "Answer in rhymes."
    assert applied.admin("PUT", "/config", {"expected": served["revision"], "config": config})[0] == 200
    refused = applied.llmctl("import", "route.support", route)
    assert (refused.code, "One of the two was changed by other means" in refused.err) == (1, True), refused.text

    path.write_text(was.replace('"context": 512', '"context": 256'))
    damaged = applied.llmctl("import", "endpoint.support", engine)
    assert (damaged.code, "is not healthy, so it cannot be told what it is" in damaged.err) == (1, True), damaged.text
    path.write_text("nonsense")
    unread = applied.llmctl("import", "endpoint.support", engine)
    assert (unread.code, "cannot be read" in unread.err) == (1, True), unread.text
    path.write_text(was)
    assert applied.serial() == int(applied.ok("state", "list", "--json").json()["serial"])
    assert "endpoint.support" not in applied.ok("state", "list").out
