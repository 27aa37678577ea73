"""``llmctl state``: what is recorded, and a record that forgets while what serves goes on serving."""

from __future__ import annotations

import signal
from threading import Event, Thread

import pytest

from tests.e2e.project import Project, wait_until

pytestmark = pytest.mark.e2e
SMALL = True
SERVING = ("route.support", "gate.faq", "endpoint.support")


class Clients:
    """Asks the route without a pause, from a thread, and remembers what was no right answer."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._question, self._right = project.a_row()
        self._stop = Event()
        self.asked = 0
        self.wrong: list[object] = []
        self._thread = Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._stop.is_set():
            reply = self._project.ask(self._question)
            self.asked += 1
            if (reply.status, reply.text) != (200, self._right):
                self.wrong.append(reply)

    def __enter__(self) -> Clients:
        self._thread.start()
        wait_until(lambda: self.asked > 0, "the first answer")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def addresses(project: Project) -> list[str]:
    return [r["address"] for r in project.ok("state", "list", "--json").json()["resources"]]


def test_what_is_forgotten_and_still_declared_is_taken_back_in_without_an_outage(applied: Project) -> None:
    before, revision = applied.census(), applied.answers().revision
    with Clients(applied) as clients:
        done = applied.ok("state", "rm", *SERVING, "--reason", "a test", "--yes")
        assert "What runs goes on running." in done.out
        assert not set(SERVING) & set(addresses(applied))
        plan = applied.ok("plan", "--json").json()
        assert {c["address"]: c["action"] for c in plan["changes"]} == {
            "endpoint.support": "adopt",
            "route.support": "adopt",
            "gate.faq": "create",
        }
        assert plan["drift"] == []
        assert {s["type"] for s in plan["steps"]} == {"Provision", "RunGate", "Promote"}
        applied.apply()
    assert clients.wrong == []
    assert applied.census() == before  # not even another process
    assert applied.answers().revision == revision
    assert set(SERVING) <= set(addresses(applied))
    assert applied.plan_code() == 0
    assert applied.ok("audit", "verify").code == 0


def test_a_gate_that_fails_does_not_take_away_what_was_only_to_be_taken_back_in(applied: Project) -> None:
    before = applied.census()
    applied.ok("state", "rm", *SERVING, "--reason", "a test", "--yes")
    applied.edit("latency_p95_ms: {max: 2000}", "latency_p95_ms: {max: 0.001}")
    with Clients(applied) as clients:
        failed = applied.llmctl("apply", "--yes")
        assert failed.code == 4, failed.text
        assert "could not undo" not in failed.text
    assert clients.wrong == []
    assert applied.census() == before
    assert not set(SERVING) & set(addresses(applied))
    applied.restore_file()
    applied.apply()
    assert (applied.census(), applied.plan_code()) == (before, 0)


def test_what_is_forgotten_and_not_declared_is_pointed_out_and_then_taken_away(applied: Project) -> None:
    (engine,) = (name.removeprefix("engine ") for name in applied.census() if name.startswith("engine"))
    revision = applied.answers().revision
    text = applied.file.read_text()
    applied.file.write_text(text[: text.index("endpoints:")])
    applied.ok("state", "rm", *SERVING, "policy.open-licence", "--reason", "a test", "--yes")
    shown = applied.ok("plan")
    assert "2 unmanaged" in shown.out
    assert f"`llmctl import endpoint.support {engine}` takes it in" in shown.out
    assert f"`llmctl import route.support support@{revision}` takes it in" in shown.out
    assert applied.answers().revision == revision  # it serves until somebody applies
    assert applied.llmctl("drift").code == 2
    applied.apply()
    assert applied.ask().status == 404
    assert not [name for name in applied.census() if name.startswith("engine")]
    assert applied.plan_code() == 0


def test_one_resource_in_full(applied: Project) -> None:
    applied.edit("content: You are Acme's support assistant.", "content: You are Acme's support assistant. Be brief.")
    applied.edit("exact_match: {min: 0.95}", "exact_match: {min: 0.05}")
    applied.edit("rouge_l: {min: 0.9}", "rouge_l: {min: 0.05}")
    applied.llmctl("apply", "--yes")  # the gate is loosened and used at once: refused, and recorded
    applied.llmctl("apply", "--yes")
    shown = applied.ok("state", "show", "prompt.answer", "--json").json()
    assert shown["needed_by"] == ["route.support"]
    assert [v["version"] for v in shown["versions"]] == list(range(1, len(shown["versions"]) + 1))
    assert shown["versions"][0]["serial"] == 1
    assert shown["revision"] in [v["revision"] for v in shown["versions"]]
    assert "Spec" in applied.ok("state", "show", "route.support").out
    missing = applied.llmctl("state", "show", "prompt.anser")
    assert (missing.code, "did you mean `prompt.answer`" in missing.err) == (1, True)
    none = applied.llmctl("state", "list", "--kind", "fts")
    assert (none.code, "no fts is recorded in dev" in none.err) == (1, True)


def test_it_is_refused_while_somebody_works_and_after_a_kill_it_goes_on(applied: Project) -> None:
    """An apply holds the lock: each of these says who has it. One that was killed is recorded first."""
    applied.edit("min_rows: 60", "min_rows: 50")
    held = applied.start("apply", module="tests.e2e.holding")
    assert held.stdout is not None
    assert held.stdout.readline() == "held\n"
    commands = [
        ("state", "rm", "policy.open-licence", "--reason", "x", "--yes"),
        ("import", "endpoint.support", "support"),
        ("unreject", "3fa9", "--reason", "x"),
        ("gc", "--yes"),
    ]
    for command in commands:
        refused = applied.llmctl(*command)
        assert refused.code == 5, refused.text
        assert "dev is locked by Tess Tester" in refused.err
    assert applied.ok("state", "list").code == 0
    assert "somebody works on it at this moment" in applied.ok("gc", "--dry-run").out
    held.send_signal(signal.SIGKILL)
    held.communicate()
    done = applied.ok("state", "rm", "policy.open-licence", "--reason", "x", "--yes")
    assert "Forgotten" in done.out
    applied.apply()
    assert applied.plan_code() == 0
