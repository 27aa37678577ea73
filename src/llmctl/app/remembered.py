"""What a file resolved to, kept between commands: a project that did not change is not read, checked and resolved anew.

What is kept holds only while everything that it was made from is as it was: the files, what globs match, environment
variables, the day (waivers end), the working directory (messages name files from there) and llmctl itself. Whatever
is not certain is not kept.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.machinery import PathFinder
from pathlib import Path

import llmctl
from llmctl import spec
from llmctl.core.address import NAME, Address
from llmctl.core.cache import NONSENSE, CacheFile
from llmctl.core.diagnostics import Diagnostic, Severity, SourceRange
from llmctl.core.digests import Json
from llmctl.core.resources import Desired, Environment, Resource
from llmctl.core.secrets import SecretRef

#: What of llmctl, and which other package beside it, decides what a file resolves to.
_ROOMS = ("core", "spec", "spec/models", "gates", "policy", "app")
_INSTALLED_BESIDE = "pydantic"


def recall(path: Path, asked: str | None) -> tuple[spec.Document, spec.Resolved] | None:
    """What that file resolved to, for the environment that was asked for or the only one; ``None`` when it has to be
    read."""
    root = Path(os.path.abspath(path)).parent
    for name in (asked, "") if asked and NAME.match(asked) else ("",):
        with suppress(*NONSENSE):
            found = _read(CacheFile(root, _file(name)), path, root)
            if found is not None and asked in (None, found[1].desired.environment.name):
                return found
    return None


def keep(document: spec.Document, resolved: spec.Resolved, basis: Json) -> None:
    """Keep what a document resolved to, once all checks were passed. ``basis`` is that from before it was read: the
    day may end, and llmctl may be replaced, while a command works."""
    inputs = spec.inputs_of(document)
    if basis is None or inputs is None or not inputs.hold(document.root):
        return
    made_from = [inputs.files, inputs.patterns, inputs.variables, inputs.values]
    head = json.dumps({"basis": basis, "inputs": made_from})
    body = json.dumps(_body(document, resolved), separators=(",", ":"))
    content = f"{head}\n{body}".encode()
    name = resolved.desired.environment.name if len(document.environments) > 1 else ""
    CacheFile(document.root, _file(name)).keep(sha256(content).hexdigest().encode() + b"\n" + content)


def basis(path: Path) -> Json:
    """What decides how that file is read, beside what it says; ``None`` when that cannot be told."""
    try:
        return [_llmctl_itself(), str(path), os.getcwd(), _today()]
    except OSError:  # llmctl lies in an archive, or the working directory is gone
        return None


def _file(environment: str) -> str:
    """The file of an environment; that of a file's only one has no name, because it need not be asked for."""
    return f"resolved.{environment}.json" if environment else "resolved.json"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


@cache
def _llmctl_itself() -> str:
    """A digest of what decides how a file is read: our own files, Python, and when a package was last installed.

    Raises ``OSError`` when they are no files.
    """
    home = Path(llmctl.__file__).parent
    seen: list[object] = [llmctl.__version__, sys.version, str(home)]
    for room in _ROOMS:
        with os.scandir(home / room) as entries:
            seen += sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries if e.name.endswith(".py"))
    other = PathFinder.find_spec(_INSTALLED_BESIDE)
    if other is not None and other.origin is not None:
        seen.append(os.stat(Path(other.origin).parents[1]).st_mtime_ns)
    return sha256(repr(seen).encode()).hexdigest()


def _read(file: CacheFile, path: Path, root: Path) -> tuple[spec.Document, spec.Resolved] | None:
    digest, _, content = file.read().partition(b"\n")
    if digest.decode() != sha256(content).hexdigest():
        return None
    head, _, body = content.partition(b"\n")
    said, now = json.loads(head), basis(path)
    if now is None or said["basis"] != now:
        return None
    inputs = spec.Inputs(*said["inputs"])
    # Nobody can write in advance what the main file's stamp will be: what came with a clone never holds.
    if path.name not in inputs.files or not inputs.hold(root):
        return None
    return _made_of(json.loads(body), path, root)


def _body(document: spec.Document, resolved: spec.Resolved) -> Json:
    desired = resolved.desired
    return {
        "project": document.project,
        "owner": document.owner,
        "environments": [astuple(environment) for environment in document.environments.values()],
        "files": [str(file) for file in document.files],
        "environment": astuple(desired.environment),
        "resources": [
            [a.kind, a.name, r.spec, r.revision, [_pair(need) for need in r.needs], _place(r.where)]
            for a, r in desired.resources.items()
        ],
        "moved": [[_pair(origin), _pair(to)] for origin, to in desired.moved],
        "warnings": [
            [d.summary, d.severity.value, _place(d.where), d.address and _pair(d.address), d.detail, d.hint]
            for d in resolved.warnings
        ],
        "secrets": [[_pair(owner), ref.env] for owner, ref in resolved.secrets],
    }


def _pair(address: Address) -> Json:
    return [address.kind, address.name]


def _place(where: SourceRange | None) -> Json:
    return where and [where.file, where.line, where.column, where.end_column, where.snippet]


def _made_of(body: Json, path: Path, root: Path) -> tuple[spec.Document, spec.Resolved]:
    document = spec.Document(
        project=body["project"],
        owner=body["owner"],
        environments={environment[0]: Environment(*environment) for environment in body["environments"]},
        path=path,
        root=root,
        files=tuple(map(Path, body["files"])),
        warnings=(),
        _parse=lambda: spec.load(path).parsed,
    )
    desired = Desired(
        project=body["project"],
        environment=Environment(*body["environment"]),
        resources={resource.address: resource for resource in _resources(body["resources"])},
        root=str(root),
        moved=tuple((Address(*origin), Address(*to)) for origin, to in body["moved"]),
    )
    warnings = tuple(
        Diagnostic(summary, Severity(severity), where and SourceRange(*where), address and Address(*address), *rest)
        for summary, severity, where, address, *rest in body["warnings"]
    )
    return document, spec.Resolved(
        desired, warnings, tuple((Address(*owner), SecretRef(env)) for owner, env in body["secrets"])
    )


def _resources(entries: list[Json]) -> Iterator[Resource]:
    for kind, name, fields, revision, needs, where in entries:
        place = SourceRange(*where) if where else None
        yield Resource(Address(kind, name), fields, revision, tuple(Address(*need) for need in needs), place)
