"""Inputs that move after the plan was made: what moved is named, and nothing that was not planned goes live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import SYSTEM, Project
from tests.terminal import on_terminal

pytestmark = pytest.mark.e2e
SMALL = True
PLAN = "saved.plan.json"


@pytest.fixture
def planned(applied: Project) -> Iterator[Project]:
    """A saved plan of a file that takes text from the environment, from a text file and from included files."""
    applied.edit(SYSTEM, 'content: "${env:TONE} ${file:texts/system.txt}"')
    applied.file.write_text('include: ["parts/*.yaml"]\n' + applied.file.read_text())
    for name, text in _FILES.items():
        path = applied.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    applied.variables["TONE"] = "Be kind."
    applied.ok("plan", "--out", PLAN)
    yield applied
    for name in _FILES:
        (applied.root / name).unlink(missing_ok=True)
    del applied.variables["TONE"]


_FILES = {
    "texts/system.txt": "You are Acme's support assistant.",
    "parts/short.yaml": "prompts:\n  short: {messages: [{role: system, content: Be brief.}]}\n",
    "parts/polite.yaml": "prompts:\n  polite: {messages: [{role: system, content: Say please.}]}\n",
}


def _variable(project: Project) -> None:
    project.variables["TONE"] = "Be rude."


def _no_variable(project: Project) -> None:
    project.variables["TONE"] = ""


def _text(project: Project) -> None:
    (project.root / "texts/system.txt").write_text("You are somebody else.")


def _part(project: Project) -> None:
    (project.root / "parts/short.yaml").unlink()


def _new_part(project: Project) -> None:
    more = _FILES["parts/short.yaml"].replace("short:", "long:")
    (project.root / "parts/short.yaml").write_text(_FILES["parts/short.yaml"] + more.removeprefix("prompts:\n"))


@pytest.mark.parametrize(
    ("move", "named"),
    [
        (_variable, "prompt.answer: changed in llmops.yaml or a file that it refers to"),
        (_no_variable, "prompt.answer: changed"),
        (_text, "prompt.answer: changed in llmops.yaml or a file that it refers to"),
        (_part, "prompt.short: "),
        (_new_part, "prompt.long: "),
    ],
    ids=["a variable", "an empty variable", "a text", "a part that is gone", "a part that grew"],
)
def test_what_moved_since_the_plan_is_named(planned: Project, move: Callable[[Project], None], named: str) -> None:
    refs = planned.refs()
    move(planned)
    refused = planned.llmctl("apply", PLAN, "--yes")
    assert refused.code == 6, refused.text
    assert f"{PLAN} is stale" in refused.err
    assert named in refused.err
    assert planned.refs() == refs


def _text_is_gone(project: Project) -> None:
    (project.root / "texts/system.txt").unlink()


def _parts_are_gone(project: Project) -> None:
    for part in (project.root / "parts").iterdir():
        part.unlink()


def _variable_is_gone(project: Project) -> None:
    project.edit("${env:TONE}", "${env:NO_SUCH_VARIABLE}")


@pytest.mark.parametrize(
    ("move", "named"),
    [
        (_text_is_gone, "texts/system.txt"),
        (_variable_is_gone, "NO_SUCH_VARIABLE"),
        (_parts_are_gone, "no file matches 'parts/*.yaml'"),
    ],
    ids=["a text", "a variable", "all parts"],
)
def test_what_is_gone_since_the_plan_is_told_with_its_place(
    planned: Project, move: Callable[[Project], None], named: str
) -> None:
    refs = planned.refs()
    move(planned)
    refused = planned.llmctl("apply", PLAN, "--yes")
    assert refused.code == 1
    assert named in refused.err
    assert "--> llmops.yaml:" in refused.err
    assert planned.refs() == refs


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_file_that_changes_between_planning_and_storing(applied: Project, kind: str) -> None:
    """While the question whether to apply it waits for its answer."""
    source = {"dataset": "data/faq_eval.jsonl", "model": "models/support-tiny.gguf"}[kind]
    path, served = applied.root / source, applied.answers().revision
    original = path.read_bytes()
    path.write_bytes(_changed(path, b"1"))
    try:
        code, shown = on_terminal(
            applied.root, applied.environment(), "apply", answer=b"y\n", meanwhile=lambda: _change_again(path)
        )
        assert "Traceback" not in shown
        assert code in (1, 6), shown
        assert f"{source} changed after the plan was made" in shown
        assert applied.answers().revision == served
        assert applied.status()["drift"] == []
    finally:
        path.write_bytes(original)
    assert applied.plan_code() == 0, "nothing of it was kept"
    applied.ok("audit", "verify")


def _changed(path: Path, mark: bytes) -> bytes:
    """The file with another end that means the same: a comment of the data, padding of the weights."""
    end = b'{"id": "more-%s", "question": "Q%s?", "answer": "A"}\n' if path.suffix == ".jsonl" else b"\0%s%s"
    return path.read_bytes() + end % (mark, mark)


def _change_again(path: Path) -> None:
    path.write_bytes(_changed(path, b"2"))
