"""What the shell offers after a key press: names from ``llmops.yaml``, read lightly and without a word.

Every function has the form that click's ``shell_complete=`` asks for. A file that is missing, damaged or
too large to be read between two key presses offers nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from llmctl.spec.files import Files

_MAX_BYTES = 500_000  # about a quarter of a second


def environments(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of environments, for ``-e``."""
    return _starting(_names(ctx).get("environments", ()), incomplete)


def addresses(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Addresses of all resources: ``route.support``."""
    from llmctl.core.errors import LlmctlError
    from llmctl.spec.sections import kind_in

    found = []
    for section, names in _names(ctx).items():
        with suppress(LlmctlError):
            if kind := kind_in(section):
                found += [f"{kind}.{name}" for name in names]
    return _starting(found, incomplete)


def routes(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of routes."""
    return _starting(_names(ctx).get("routes", ()), incomplete)


def gates(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of gates."""
    return _starting(_names(ctx).get("gates", ()), incomplete)


def policies(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of policies."""
    return _starting(_names(ctx).get("policies", ()), incomplete)


def logs(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """What ``llmctl logs`` can show: endpoints by address, the gateway and the process manager."""
    endpoints = (f"endpoint.{name}" for name in _names(ctx).get("endpoints", ()))
    return _starting((*endpoints, "gateway", "supervisord"), incomplete)


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _names(ctx: click.Context) -> Mapping[str, tuple[str, ...]]:
    """The keys below each section of the file and of those that it includes. No value is looked at or checked."""
    from llmctl.core.errors import LlmctlError
    from llmctl.spec import find_file
    from llmctl.spec.files import Files
    from llmctl.spec.includes import read_tree
    from llmctl.spec.nodes import Mapping as Tree
    from llmctl.spec.yaml_reader import decode

    try:
        path = find_file(ctx.params.get("file"), Path.cwd()).absolute()
        folder = _Folder(Files(path.parent))
        tree = read_tree(decode(folder.read(path.name), path.name), path.name, folder).root
    except (LlmctlError, OSError, ValueError):
        return {}
    sections = {section: node for section, (_, node) in tree.items.items()}
    return {section: tuple(node.items) for section, node in sections.items() if isinstance(node, Tree)}


@dataclass
class _Folder:
    """The project's folder, in which files that take too long to read are refused."""

    files: Files
    left: int = _MAX_BYTES

    def read(self, source: str) -> bytes:
        self.left -= self.files.find(source).stat().st_size
        if self.left < 0:
            raise ValueError(source)
        return self.files.read(source)

    def matching(self, pattern: str) -> list[str]:
        return self.files.matching(pattern)

    def shown(self, source: str) -> str:
        return source
