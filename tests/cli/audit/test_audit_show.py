"""``audit show``, ``diff`` and ``blame`` for programs, and of what is damaged, old or unknown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from llmctl.core.digests import Json
from tests.cli.audit.conftest import Ask
from tests.record.population import ENV, HOSTILE, PEOPLE, Population, record
from tests.record.story import begin


def packet(ask: Ask, serial: int) -> Json:
    done = ask("show", str(serial), "--json")
    assert (done.code, done.err) == (0, "")
    return done.json()


def test_a_packet_answers_what_an_auditor_asks(ask: Ask) -> None:
    found = packet(ask, 5)
    assert (found["format"], found["environment"], found["serial"]) == (1, "prod", 5)
    assert (found["actor"], found["time"], found["machine"]) == (PEOPLE["bot"], "2025-11-28T23:42:50Z", "runner-3")
    assert (found["action"], found["outcome"], found["signed"]) == ("apply", "failed", True)
    assert found["run"] == "https://ci.acme.example/llm/runs/4005"
    assert found["plan"].startswith("sha256:")
    assert len(found["source"]["commit"]) == 40
    prompt, route = found["changes"]
    assert (prompt["address"], prompt["action"], prompt["state"]) == ("prompt.answer", "update", "taken back")
    assert (prompt["before"]["version"], prompt["after"]["version"]) == (3, 4)
    assert [diff["path"] for diff in prompt["fields"]] == ["messages[0].content"]
    assert (route["address"], route["state"], route["fields"]) == ("route.support", "not reached", [])
    (gate,) = found["gates"]
    assert (gate["gate"], gate["verdict"], gate["evidence"]["samples"]) == ("faq", "FAIL", 210)
    judged = gate["evidence"]["judgements"][0]
    assert (judged["metric"], judged["threshold"], judged["verdict"]) == ("exact_match", 0.95, "FAIL")
    assert judged["lower"] < judged["estimate"] < judged["upper"] < judged["threshold"]
    assert [p["policy"] for p in found["policies"]] == ["open-licence", "canary-first"]
    assert found["approvals"]["required"] == len(found["approvals"]["given"]) == 2
    assert [step["state"] for step in found["steps"]] == ["done", "done", "failed"]
    assert [c["subject"][:9] for c in found["commits"]] == ["update pr", "gate faq ", "take back"]
    assert found["damaged"] == []


def test_emergencies_promotions_and_rejections_are_in_it(ask: Ask) -> None:
    broken = packet(ask, 17)["break_glass"]
    assert (broken["gates"], broken["approvals"], broken["open"], broken["reconciled_by"]) == (
        ["gate.faq"],
        2,
        False,
        19,
    )
    assert packet(ask, 28)["break_glass"]["open"] is True
    assert packet(ask, 19)["reconciles"] == [17]
    assert packet(ask, 19)["gates"][0]["earlier"] is False
    assert packet(ask, 21)["promotion"]["from"] == "staging"
    assert packet(ask, 21)["policies"][0]["waiver"]["approved_by"] == "chiara@acme.example"
    assert [r["serial"] for r in packet(ask, 8)["rejected"]] == [8]
    assert [r["serial"] for r in packet(ask, 9)["allowed"]] == [8]
    assert packet(ask, 11)["unfinished"] == ["stage:route.support@92b6d4faf3ceaa5f"]
    assert packet(ask, 23)["restored"][0]["address"] == "endpoint.support"
    assert packet(ask, 25)["reason"] == HOSTILE  # programs get what is there


@pytest.mark.parametrize("line", ["show 29", "diff 3 29", "diff 29"])
def test_a_serial_that_is_not_there(ask: Ask, line: str) -> None:
    done = ask(*line.split())
    assert done.code == 1
    assert "serial 29 is not in the record of prod; it has 1 to 28" in done.err
    assert "`llmctl audit log -e prod`" in done.err


def test_a_difference_for_programs(ask: Ask) -> None:
    found = ask("diff", "0", "1", "--json").json()
    assert (found["format"], found["before"], found["after"]) == (1, 0, 1)
    assert {change["action"] for change in found["changes"]} == {"create"}
    assert ask("diff", "27", "--json").json()["after"] == 28
    back = ask("diff", "16", "12", "--json").json()["changes"][0]
    assert (back["before"]["version"], back["after"]["version"], back["changed_by"]) == (7, 6, [16])
    moved = ask("diff", "13", "14", "--json").json()["changes"]
    assert [(c["action"], c["moved_from"], c["changed_by"]) for c in moved] == [("move", "dataset.prices", [14])]


def test_a_blame_for_programs(ask: Ask) -> None:
    found = ask("blame", "model.support-tiny", "--json").json()
    assert (found["format"], found["version"], found["serials"]) == (1, 2, [1, 21])
    assert {f["path"]: f["serial"] for f in found["fields"]} == {
        "api_key": 1, "license": 1, "protect": 1, "source": 1, "weights.adapters": 1, "weights.digest": 21,
    }  # fmt: skip
    renamed = ask("blame", "dataset.price-list", "--json").json()
    assert (renamed["names_before"], renamed["deleted_by"], renamed["renamed_to"]) == (["dataset.prices"], 15, None)
    old = ask("blame", "dataset.prices", "--json").json()
    assert (old["deleted_by"], old["renamed_to"]) == (14, "dataset.price-list")
    assert {f["serial"] for f in old["fields"] + renamed["fields"]} == {13}


@pytest.mark.parametrize(
    ("address", "said", "hint"),
    [
        ("prompt.anser", "prompt.anser was never recorded in prod", "did you mean `prompt.answer`?"),
        ("dataset.prises", "was never recorded", "did you mean `dataset.prices`"),
        ("kind.nothing", "was never recorded", "--resource kind` lists"),
        ("support", "'support' is not an address", "did you mean `route.support` or `endpoint.support`?"),
        ("prompt.Answer", "is not an address", "did you mean `prompt.answer`?"),
    ],
)
def test_an_unknown_address_is_explained(ask: Ask, address: str, said: str, hint: str) -> None:
    done = ask("blame", address)
    assert done.code == 1
    assert said in done.err
    assert hint in done.err


# -- entries that lack parts --------------------------------------------------------------------


@pytest.fixture
def young(tmp_path: Path) -> Population:
    """A record that a test adds to."""
    story = Population(tmp_path / "young")
    begin(story)
    return story


def test_an_entry_of_an_old_version_says_what_it_has(young: Population, run: Ask) -> None:
    prompt = young.put("prompt.answer", {"messages": []})
    young.entry("bob", record(prompt), subject="apply: prompt.answer v2", bare=True)
    done = run(young.folder, "show", "2")
    assert done.code == 0
    assert "  who      Bob O'Hara <bob@acme.example>\n" in done.out
    assert "prompt.answer  v1 → v2" in done.out
    found = run(young.folder, "show", "2", "--json").json()
    assert (found["decisions"], found["steps"], found["policies"], found["machine"]) == ({}, [], [], "")
    for form in ("html", "csv", "json"):
        assert run(young.folder, "export", "--format", form).code == 0


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("approvals", {"required": "two"}),
        ("approvals", []),
        ("break_glass", {"serial": 2}),
        ("promotion", "staging"),
        ("changes", 17),
        ("changes", [{"address": "no address", "action": "update"}]),
        ("policies", [{"policy": "half"}]),
        ("steps", {"id": "x"}),
        ("drift", ["text"]),
    ],
)
def test_a_part_that_cannot_be_read_is_named(young: Population, run: Ask, part: str, value: Json) -> None:
    """Everything else of the entry is told all the same."""
    young.entry("ada", [], subject="apply: something", **{part: value})
    done = run(young.folder, "show", "2")
    assert done.code == 0
    assert f"the record's {part} of this entry cannot be read: run `llmctl audit verify`" in done.out
    assert run(young.folder, "show", "2", "--json").json()["damaged"] == [part]
    page = run(young.folder, "export")
    assert page.code == 0
    assert f"Cannot be read in the record: {part}." in page.out
    assert run(young.folder, "log", "--resource", "prompt", "--text", "some").code == 0


def test_evidence_that_is_gone_is_said(young: Population, run: Ask) -> None:
    """Somebody deleted it by hand: the claim stands, and nothing is there."""
    young.entry(
        "ada", [], subject="apply: gate.faq", trailers=[("Gate", f"faq PASS sha256:{'a' * 64}")], changes=[]
    )  # fmt: skip
    shown = run(young.folder, "show", "2").out
    assert f"faq PASS, and the evidence sha256:{'a' * 64} is not in the record" in shown
    page = run(young.folder, "export").out
    assert "Parts that are missing or damaged" in page
    assert "is not in the record" in page


def test_a_record_that_cannot_be_parsed_is_an_error_with_a_hint(young: Population, run: Ask) -> None:
    head = f"refs/heads/llmctl/{ENV}"
    text = _git(young.folder, "show", f"{head}:resources/prompt/answer.json")
    broken = _replaced(young.folder, head, "resources/prompt/answer.json", text[: len(text) // 2])
    _git(young.folder, "update-ref", head, broken)
    done = run(young.folder, "show", "2")
    assert done.code == 1
    assert "resources/prompt/answer.json" in done.err
    assert "`llmctl audit verify`" in done.err


def _git(folder: Path, *arguments: str, stdin: str = "") -> str:
    command = ["git", "-c", "user.name=Mallory", "-c", "user.email=mallory@example.org", *arguments]
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, check=True)
    return done.stdout


def _replaced(folder: Path, head: str, path: str, text: str) -> str:
    """A commit on ``head``, made by hand, that claims serial 2."""
    blob = _git(folder, "hash-object", "-w", "--stdin", stdin=text).strip()
    _git(folder, "read-tree", "--index-output=.git/by-hand", head)
    subprocess.run(
        ["git", "update-index", "--cacheinfo", f"100644,{blob},{path}"],
        cwd=folder, check=True, env={"PATH": "/usr/bin:/bin", "GIT_INDEX_FILE": str(folder / ".git" / "by-hand")},
    )  # fmt: skip
    tree = subprocess.run(
        ["git", "write-tree"], cwd=folder, check=True, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "GIT_INDEX_FILE": str(folder / ".git" / "by-hand")},
    ).stdout.strip()  # fmt: skip
    message = json.dumps("by hand") + "\n\nLlmctl-Serial: 2\nLlmctl-Action: apply\nLlmctl-Outcome: applied\n"
    return _git(folder, "commit-tree", tree, "-p", head, stdin=message).strip()
