"""A worse model is refused by its gate while the good one keeps answering under load."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from llmctl.core.digests import Json
from tests.e2e.project import MODEL, REPOSITORY, SOURCE, TONE, WORSE_MODEL, Project
from tests.results import Result

pytestmark = pytest.mark.e2e
TIMES = 5  # as many clients ask as the gate has workers: with over 1,000 rows they get their 1,000 answers meanwhile
ROWS = 210 * TIMES
WARM_UP = 1  # the gate asks one question beforehand that it does not count


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of clients that were in hand while an apply ran."""

    requests: int
    statuses: set[int]
    revisions: set[str]
    wrong: int


def _apply_under_load(project: Project) -> tuple[Result, Load]:
    command = [sys.executable, "-m", "tests.e2e.load", project.base_url(), str(project.root / "data/faq_eval.jsonl")]
    log = project.base / "load.jsonl"
    with log.open("w") as output:
        client = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=project.environment() | {"PYTHONPATH": f"{SOURCE}:{REPOSITORY}"},
            stdin=subprocess.PIPE,
            stdout=output,
            text=True,
        )
        project.children.append(client)
        while log.stat().st_size == 0:
            assert client.poll() is None
            time.sleep(0.02)
        begun = time.time()
        result = project.llmctl("apply", "--yes")
        ended = time.time()
        client.communicate("", timeout=60)
    project.children.remove(client)
    assert client.returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    meanwhile = [line for line in lines if line[1] >= begun and line[0] <= ended]
    load = Load(
        len(meanwhile),
        {status for _, _, status, _, _ in meanwhile},
        {revision for _, _, _, revision, _ in meanwhile},
        sum(not right for *_, right in meanwhile),
    )
    return result, load


def _gate(project: Project) -> Json:
    return project.llmctl("plan", "--json").json()["gates"][0]


@pytest.mark.parametrize(
    ("old", "new"),
    [(MODEL, WORSE_MODEL), (MODEL, f"{MODEL}\n    {TONE}")],
    ids=["the model that stopped training early", "the LoRA adapter"],
)
def test_the_gate_refuses_while_clients_notice_nothing(applied: Project, old: str, new: str) -> None:
    project = applied
    good, serial = project.answers().revision, project.serial()
    engines = project.one_of_each()
    project.edit(old, new)
    refused = _gate(project)["revision"]

    result, load = _apply_under_load(project)

    assert result.code == 4
    assert load.requests >= 1000
    assert load.statuses == {200}
    assert load.revisions == {good}, "no client was answered by the refused revision"
    assert load.wrong == 0
    assert project.metric(revision=refused, traffic="public") == 0
    assert project.metric(revision=refused, traffic="staged", code="200") == ROWS + WARM_UP
    _says_why(result)

    status = project.status()
    assert status["routes"][0]["weights"] == {good: 100}
    assert (status["drift"], status["unreadable"], status["interrupted"]) == ([], [], "")
    assert project.one_of_each() == engines, "the refused engine is gone, the good one was not touched"
    _is_recorded(project, serial + 1, refused)

    assert _gate(project)["cached"] == "FAIL"
    assert "by recorded evidence: FAIL" in project.llmctl("plan").out
    project.restore_file()
    assert project.plan_code() == 0
    assert project.ok("audit", "verify").code == 0
    assert project.answers().revision == good


def _says_why(result: Result) -> None:
    assert "gate.faq FAIL" in result.err
    line = next(line for line in result.err.splitlines() if "exact_match ≥ 0.95" in line)
    estimate, interval = line.split()[3], line.partition("[")[2].partition("]")[0]
    low, high = (float(part) for part in interval.split(","))
    assert low < float(estimate) < high < 0.95
    assert line.rstrip().endswith("FAIL")
    worst = result.err.partition("worst rows")[2]
    assert worst.count("expected  ") == worst.count("answered  ") >= 3
    assert "What served before still serves" in result.text


def _is_recorded(project: Project, serial: int, refused: str) -> None:
    entry = project.ok("audit", "log", "--json", "-n", "1").json()["entries"][0]
    assert (entry["serial"], entry["outcome"]) == (serial, "failed")
    assert entry["resources"] == [] or not _specs_changed(project), "the record's resources did not change in effect"
    detail = project.ok("audit", "show", str(serial), "--json").json()
    (gate,) = detail["gates"]
    evidence = gate["evidence"]
    assert evidence["route_revision"] == refused
    assert evidence["verdict"] == "FAIL"
    assert evidence["failing"]
    verdicts = {(j["metric"], j["rule"]): j["verdict"] for j in evidence["judgements"]}
    assert verdicts[("exact_match", "min")] == verdicts[("exact_match", "max_drop")] == "FAIL"
    trailers = project.git("show", "-s", "--format=%(trailers)", "llmctl/dev")
    assert "Llmctl-Gate: faq FAIL sha256:" in trailers
    assert "Llmctl-Outcome: failed" in trailers


def _specs_changed(project: Project) -> bool:
    """Whether what the record says of any resource, but for the numbers it gave away, differs from before."""
    files = project.git("ls-tree", "-r", "--name-only", "llmctl/dev", "resources/").split()

    def read(commit: str) -> list[Json]:
        found = [json.loads(project.git("show", f"{commit}:{path}")) for path in files]
        return [{k: v for k, v in f.items() if k != "revisions"} for f in found]

    return read("llmctl/dev") != read("llmctl/dev^1")
