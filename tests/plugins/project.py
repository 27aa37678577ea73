"""A project with an index of the example plug-in, and the real ``llmctl`` with that package installed, or not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.e2e.project import SOURCE, Project
from tests.plugins.packages import EXAMPLE_SOURCE, REPOSITORY, install, install_example

FILE = """\
apiVersion: llmctl/v1
project: acme
environments:
  dev: {target: local}
datasets:
  faq: {source: data/faq.jsonl}
fts_indexes:
  faq:
    dataset: faq
    columns: [question]
"""
ROWS = '{"question": "Can I return shoes?", "answer": "Yes."}\n{"question": "Where is my order?", "answer": "Here."}\n'


@dataclass
class PluginProject(Project):
    """``site`` is where packages are installed for it; without any of them when it is empty."""

    @classmethod
    def make(cls, *, small: bool = True, times: int = 1) -> Self:
        project = super().make(small=small, times=times)
        assert isinstance(project, cls)
        shutil.rmtree(project.root / "models")
        project.file.write_text(FILE)
        project.data.write_text(ROWS)
        project.commit("an index")
        install_example(project.site)
        return project

    @property
    def site(self) -> Path:
        return self.base / "site"

    @property
    def data(self) -> Path:
        return self.root / "data" / "faq.jsonl"

    @property
    def index(self) -> Path:
        return self.state() / "kinds" / "fts" / "faq.sqlite3"

    def uninstall(self) -> None:
        shutil.rmtree(self.site)

    def install_broken(self) -> None:
        """A package whose import fails."""
        install(self.site, "broken-kinds", "broken = broken_kinds:KIND")
        (self.site / "broken_kinds.py").write_text("raise RuntimeError('it needs a newer libfoo')\n")

    def start(self, *arguments: str, module: str = "llmctl") -> subprocess.Popen[str]:
        path = ":".join(map(str, (SOURCE, REPOSITORY, EXAMPLE_SOURCE, self.site)))
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=self.environment() | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.children.append(process)
        return process
