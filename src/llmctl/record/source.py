"""The project's own files as they were in an earlier source commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.record.objects import list_files, read_objects
from llmctl.record.repository import Repository


class SourceFiles(Mapping[str, bytes]):
    """Files by path; each is read from git when it is asked for."""

    def __init__(self, repository: Repository, blobs: Mapping[str, str]) -> None:
        self._repository = repository
        self._blobs = blobs

    def __getitem__(self, path: str) -> bytes:
        return next(read_objects(self._repository, [self._blobs[path]])).data

    def __iter__(self) -> Iterator[str]:
        return iter(self._blobs)

    def __len__(self) -> int:
        return len(self._blobs)

    def __contains__(self, path: object) -> bool:
        return path in self._blobs


def source_at(repository: Repository, revision: str, folder: Path) -> SourceFiles:
    """The files under ``folder``, by path from there, as they were in a git revision.

    ``revision`` is anything that git takes: a branch, a tag, ``HEAD~1``. Raises ``InvalidInput`` when there is
    no such commit here.
    """
    commit = "" if revision.startswith("-") else repository.git.resolve(f"{revision}^{{commit}}")
    if not commit:
        shallow = repository.git.line("rev-parse", "--is-shallow-repository") == "true"
        fetch = "This clone is shallow: fetch it first, for example `git fetch --unshallow`."
        hint = fetch if shallow else "Name a branch, a tag or a commit, and fetch it first: `git fetch origin`."
        raise InvalidInput([Diagnostic(f"there is no commit {revision!r} in this repository", hint=hint)])
    inside = folder.resolve().relative_to(repository.work_tree.resolve()).as_posix()
    prefix = "" if inside == "." else f"{inside}/"
    found = list_files(repository, commit, *([prefix] if prefix else []))
    return SourceFiles(repository, {path.removeprefix(prefix): blob for path, blob in found.items()})
