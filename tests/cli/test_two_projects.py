"""Two projects in one repository, each with an environment of the same name."""

from __future__ import annotations

import shutil

from tests.cli.project import Project

COMMANDS = ("plan", "apply --yes", "destroy --yes", "status", "drift", "rollback --yes")


def test_a_record_of_another_project_is_left_alone(applied: Project) -> None:
    other = applied.root / "other"
    shutil.copytree(applied.root, other, symlinks=True, ignore=shutil.ignore_patterns(".git", ".llmctl", "other"))
    file = other / "llmops.yaml"
    text = file.read_text()
    name = next(line for line in text.splitlines() if line.startswith("project:"))
    file.write_text(text.replace(name, "project: another"))
    refs = applied.git("for-each-ref")
    for command in COMMANDS:
        done = applied.run(*command.split(), cwd=other)
        assert done.code == 1, (command, done.text)
        assert "this file is of another" in done.text
        assert "Traceback" not in done.text
    assert applied.git("for-each-ref") == refs
    shutil.rmtree(other)
    assert applied.run("plan", "--detailed-exitcode").code == 0
