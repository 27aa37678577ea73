"""Kinds that other packages add, found by the entry point ``llmctl.kinds``.

    [project.entry-points."llmctl.kinds"]
    fts = "llmctl_fts:KIND"

Packages are asked only when a file or a record names a kind or a section that is not built in, because the
look-up takes longer than a small plan. One that fails to load stops the run: without it nobody can tell what
its resources are. How to write one is in ``docs/extending.md``; ``llmctl.testing`` holds its provider to the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, Union, runtime_checkable

from llmctl.core.address import NAME, Address
from llmctl.core.errors import LlmctlError
from llmctl.core.kinds import KINDS, Kind, Role, kind_of
from llmctl.core.protocols import ArtifactStore, Provider
from llmctl.core.resources import Key, Resource, Spec

GROUP = "llmctl.kinds"

#: The type of a field of a spec, for policies: ``"string"``, ``"number"``, ``"boolean"`` or ``"map"`` (with keys of
#: the user's own), an object by its fields, a list by the type of its items: ``["string"]``.
FieldType = Union[str, dict[str, "FieldType"], list["FieldType"]]

#: The path of a field in an entry: ``("columns", 0)``.
FieldPath = tuple[Union[str, int], ...]

#: What stands for something else in the file, in addresses or in policies.
_TAKEN = ("apiVersion", "project", "owner", "include", "moved", "environments", "environment", "plan", "gateway")
_ADDED = ("name", "kind", "revision", "protect")  # fields that every kind has


class FieldError(ValueError):
    """What is wrong with a field of an entry; ``key`` is its path in the entry."""

    def __init__(self, key: FieldPath, summary: str, hint: str = "") -> None:
        super().__init__(summary)
        self.key = key
        self.summary = summary
        self.hint = hint


class Context(Protocol):
    """What an entry may refer to while the file is resolved. ``key`` is the field that does so."""

    def resource(self, address: Address, key: FieldPath) -> Resource:
        """A built-in resource of this environment; raises ``FieldError`` when the file declares none such."""
        ...

    def file(self, source: str, key: FieldPath) -> tuple[Path, str]:
        """Real path and digest (``sha256:…``) of a file in the project; raises ``FieldError`` with the reason."""
        ...


@dataclass(frozen=True, slots=True)
class Declared:
    """An entry, resolved: its spec (JSON, no secrets) and the resources that must be there before it.

    The spec has exactly the fields that the kind declares; llmctl adds ``protect``.
    """

    spec: Spec
    needs: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kind's resources live: one environment of one project."""

    project: str
    environment: str
    target: str
    root: Path  # the folder of llmops.yaml
    folder: Path  # the kind's own, for state; not made yet, and taken away by `destroy`
    artifacts: ArtifactStore


@runtime_checkable
class Imports(Protocol):
    """Capability of a provider: `llmctl import` may take in what is live and was never recorded."""

    def read_spec(self, key: Key) -> Declared:
        """The spec from which exactly what is there would be made, and what it needs.

        Its revision is the one that is read back. Raises ``ProviderError`` when it cannot be told.
        """
        ...


class KindPlugin(Protocol):
    """One kind: its name and serving fields, the shape of its entries, and its provider on each target.

    ``kind`` has the role ``Role.RESOURCE``: one live thing a name, under ``Key(name)``, made and changed in
    place. ``entry`` is a subclass of ``llmctl.spec.ResourceShape``; an entry that does not fit it is refused with
    its place in the file. ``fields`` says of every field of the spec what it is, for policies to read.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def entry(self) -> type[Any]: ...

    @property
    def fields(self) -> Mapping[str, FieldType]: ...

    def resolve(self, name: str, entry: Any, context: Context) -> Declared:
        """What an entry says, resolved; raises ``FieldError``."""
        ...

    def provider(self, place: Place) -> Provider[Spec]:
        """The provider for a place; raises ``ProviderError`` for a target that it does not serve."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """One kind of an installed package; ``problem`` says why it cannot be used, "" when it can."""

    kind: str
    package: str
    version: str
    problem: str

    @property
    def remedy(self) -> str:
        return f"Repair or upgrade it, or `pip uninstall {self.package}` when nothing of that kind is left."


def look() -> tuple[tuple[Found, ...], Mapping[str, KindPlugin]]:
    """All kinds that installed packages add, and those of them that can be used by name; sorted."""
    from importlib.metadata import entry_points  # 76 ms

    found, usable = [], dict[str, KindPlugin]()
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            plugin: KindPlugin = point.load()
            problem = _problem(point.name, plugin, usable)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a package of somebody else may fail in any way
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            usable[point.name] = plugin
        package, version = (point.dist.name, point.dist.version) if point.dist else ("an unnamed package", "")
        found.append(Found(point.name, package, version, problem))
    return tuple(found), usable


_left_out = False


def leave_out() -> None:
    """Load no package's kinds in this process from now on: what is read is a stranger's."""
    global _left_out
    _left_out = True
    installed.cache_clear()


def are_left_out() -> bool:
    """Whether the kinds of other packages are not looked for."""
    return _left_out


@lru_cache(maxsize=1)
def installed() -> Mapping[str, KindPlugin]:
    """All kinds that installed packages add, by name. Raises ``LlmctlError`` for one that cannot be used."""
    if _left_out:
        return {}
    found, usable = look()
    for each in found:
        if each.problem:
            raise LlmctlError(
                f"the kind {each.kind!r} of the package {each.package} cannot be used",
                detail=each.problem,
                hint=each.remedy,
            )
    return usable


def were_looked_for() -> bool:
    """Whether this process has asked for the kinds of other packages, and so may depend on what they are."""
    return installed.cache_info().currsize > 0


def plugin_of(kind: str) -> KindPlugin:
    """The plug-in of a kind; raises ``LlmctlError`` when no installed package has it."""
    kind_of(kind)
    return installed()[kind]


def plugin_in(section: str) -> KindPlugin | None:
    """The plug-in whose entries stand in that section of the file."""
    return next((plugin for plugin in installed().values() if plugin.kind.section == section), None)


def _problem(name: str, plugin: KindPlugin, others: Mapping[str, KindPlugin]) -> str:
    kind: object = plugin.kind
    if not isinstance(kind, Kind):
        return "its `kind` is no llmctl Kind"
    if kind.name != name or not NAME.match(name):
        return f"its entry point is named {name!r}, its kind {kind.name!r}"
    if kind.role is not Role.RESOURCE:
        return "its role is not Role.RESOURCE, the one that other packages can add"
    known = (*KINDS, *(other.kind for other in others.values()))
    taken = next((k for k in known if kind.name == k.name or kind.section == k.section), None)
    if taken:
        return f"there is a kind {taken.name} with the section {taken.section} already"
    word = next((word for word in (kind.name, kind.section) if word in _TAKEN), "")
    if word:
        return f"`{word}` means something else in llmctl"
    added = next((field for field in plugin.fields if field in _ADDED), "")
    if added:
        return f"it declares the field `{added}`, which llmctl adds to every kind"
    missing = next((field for field in kind.serving if field not in plugin.fields), "")
    if missing:
        return f"its serving field `{missing}` is not among its fields"
    odd = next((field for field, what in plugin.fields.items() if not _is_type(what)), "")
    return f"its field `{odd}` has a type that policies do not know" if odd else ""


def _is_type(what: object) -> bool:
    if isinstance(what, dict):
        return all(isinstance(name, str) and _is_type(inner) for name, inner in what.items())
    if isinstance(what, list):
        return len(what) == 1 and _is_type(what[0])
    return what in ("string", "number", "boolean", "map")
