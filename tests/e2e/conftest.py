"""Projects that are taken away again, whatever happens to a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.project import Project


@pytest.fixture
def project(request: pytest.FixtureRequest) -> Iterator[Project]:
    """A project of the test's own, with nothing applied."""
    yield from _given(request)


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Project]:
    """One project for the tests of a module, applied once. Each test leaves it as the example has it."""
    for project in _given(request):
        project.apply()
        yield project
        project.destroy()


@pytest.fixture
def applied(shared: Project) -> Iterator[Project]:
    """The shared project, with its own file back and applied afterwards."""
    yield shared
    shared.restore_file()
    shared.llmctl("apply", "--yes")


def _given(request: pytest.FixtureRequest) -> Iterator[Project]:
    """A module that says ``SMALL = True`` tests something else than the gate; one with ``TIMES`` needs a long gate."""
    project = Project.make(small=getattr(request.module, "SMALL", False), times=getattr(request.module, "TIMES", 1))
    try:
        yield project
    finally:
        project.end()
