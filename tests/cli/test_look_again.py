"""What was edited a moment before its apply is too fresh to be relied on then, and is known to the next command."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.app import remembered
from llmctl.app.preflight import preflight
from llmctl.core.plugins import installed
from tests.cli.conftest import InProcess
from tests.cli.project import Project

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("late_edit", [False, True])
def test_the_next_command_need_not_read_what_was_applied(
    project: Project, here: InProcess, monkeypatch: pytest.MonkeyPatch, late_edit: bool
) -> None:
    file = project.root / "llmops.yaml"
    installed.cache_clear()  # a process that looked for other packages' kinds, as this one may have, keeps nothing
    fresh = True

    def checked(*arguments: object) -> None:
        nonlocal fresh
        fresh = False
        if late_edit:
            file.write_text(file.read_text() + "nonsense: {}\n")
        preflight(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("llmctl.spec.files.is_settled", lambda _: not fresh)
    monkeypatch.setattr("llmctl.app.applying.preflight", checked)
    assert here("apply", "--yes").code == 0
    kept = remembered.recall(Path.cwd() / "llmops.yaml", None)
    assert (kept is None) == late_edit
    assert here("plan").code == (1 if late_edit else 0)
