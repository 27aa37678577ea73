"""A project as its file declares it, and what it was read from. Light: what reads the file is imported to read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Desired, Environment
from llmctl.core.secrets import SecretRef
from llmctl.spec.files import FileRefused, Files, Look
from llmctl.spec.source import display_path

if TYPE_CHECKING:
    from llmctl.spec.document import Parsed

FILE_NAME = "llmops.yaml"


@dataclass(frozen=True)
class Document:
    """A file that is well-formed, with those that it includes.

    ``root`` is the folder that relative paths start from; ``files`` is every file that was read, the main one first.
    """

    project: str
    owner: str
    environments: Mapping[str, Environment]
    path: Path
    root: Path
    files: tuple[Path, ...]
    warnings: tuple[Diagnostic, ...]
    _parse: Callable[[], Parsed] = field(repr=False, compare=False)
    sealed: bool = False  # it is a stranger's: no variable is read

    @cached_property
    def parsed(self) -> Parsed:
        """What the file holds, with its places. A document that was remembered reads its file for it, and raises
        ``InvalidInput`` when that has become wrong since."""
        return self._parse()


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one environment should be. ``secrets`` says which model reads which variable, and no values.

    ``unknown`` is what a sealed file declares and what cannot be told without variables or other packages.
    """

    desired: Desired
    warnings: tuple[Diagnostic, ...]
    secrets: tuple[tuple[Address, SecretRef], ...]
    unknown: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a document and what it resolved to was made from, beside llmctl itself: files by their source, the
    files that globs matched, and the values of environment variables, as one digest of them all."""

    files: Mapping[str, Look]
    patterns: Mapping[str, list[str]]
    variables: tuple[str, ...]
    values: str

    def hold(self, root: Path) -> bool:
        """Whether all of it is as it was. A file counts as unchanged while its real path, its size, its times and
        its inode are, and it can be used."""
        if self.values != digest_of(self.variables):
            return False
        now = Files(root)
        try:
            for source, was in self.files.items():
                now.find(source)
                if now.looked[source] != was:
                    return False
        except FileRefused:
            return False
        return all(now.matching(pattern) == found for pattern, found in self.patterns.items())


def digest_of(variables: tuple[str, ...]) -> str:
    """A digest of the values that environment variables have now. One that is not set differs from an empty one."""
    values = [(name, os.environ.get(name)) for name in variables]
    return sha256(repr(values).encode()).hexdigest()


def find_file(explicit: str | None, start: Path) -> Path:
    """The file named by ``-f``, else ``llmops.yaml`` in ``start`` or the nearest folder above it.

    Raises ``InvalidInput`` when there is none.
    """
    if explicit is not None:
        path = Path(explicit)
        if path.is_file():
            return path
        what = "is a folder" if path.is_dir() else "does not exist or is not a file"
        raise InvalidInput([Diagnostic(f"{explicit!r} {what}", hint="Name a file after -f.")])
    folder = start.absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    summary = f"there is no {FILE_NAME} in {display_path(folder)} or a folder above it"
    hint = "Run llmctl in your project's folder, or pass -f FILE."
    raise InvalidInput([Diagnostic(summary, hint=hint)])
