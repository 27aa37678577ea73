"""The example package by itself: its own tests pass, and it can be built and found as it is packaged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.plugins.packages import EXAMPLE, EXAMPLE_SOURCE, REPOSITORY, install_example


def test_its_own_tests_pass() -> None:
    path = os.pathsep.join((str(EXAMPLE_SOURCE), str(REPOSITORY / "src")))
    done = subprocess.run(
        # Another package's tests do not share the plug-ins of pytest that ours need.
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_tests_install_what_the_package_declares(tmp_path: Path) -> None:
    declared = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]["llmctl.kinds"]
    site = install_example(tmp_path / "site")
    noted = next(site.glob("*.dist-info/entry_points.txt")).read_text()
    assert [f"{name} = {value}" for name, value in declared.items()] == noted.splitlines()[1:]


def test_the_how_to_shows_code_that_is_there() -> None:
    """Every piece of Python and TOML in docs/extending.md is in the package as it stands."""
    page = (REPOSITORY / "docs" / "extending.md").read_text()
    sources = [p.read_text() for p in (*EXAMPLE.rglob("*.py"), EXAMPLE / "pyproject.toml")]
    pieces = re.findall(r"^```(?:python|toml)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(pieces) > 5
    assert [piece for piece in pieces if not any(piece in source for source in sources)] == []
