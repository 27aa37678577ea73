"""A rollback across a rename: the route gets its old name back, and no name stops answering."""

from __future__ import annotations

import pytest

from tests.cli.project import Project

pytestmark = pytest.mark.e2e


def test_a_rename_is_no_other_route_to_go_back_to_and_is_undone_as_a_rename(project: Project) -> None:
    assert project.run("apply", "--yes").code == 0
    project.replace("routes:\n  support:", "moved: [{from: route.support, to: route.help}]\nroutes:\n  help:")
    project.replace("route: support", "route: help")
    renamed = project.run("apply", "--yes")
    assert renamed.code == 0, renamed.text

    nothing = project.run("rollback", "--yes")
    assert nothing.code == 1, nothing.text
    assert "there is no earlier good entry with other routes to go back to" in nothing.err

    back = project.run("rollback", "--to", "1", "--yes")
    assert back.code == 0, back.text
    assert "renamed from route.help" in back.text
    assert not [word for word in ("weak", "deletes", "requests to it fail") if word in back.text], back.text
    for name in ("support", "help"):
        assert project.run("chat", name, "Can I return shoes that do not fit?").code == 0
    again = project.run("plan", "--detailed-exitcode")
    assert again.code == 2, again.text
    assert "rejected" not in again.text
