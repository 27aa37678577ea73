"""Sections and entries of the kinds that installed packages add. They are asked only for what is not built in."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.digests import canonical_json
from llmctl.core.errors import LlmctlError
from llmctl.core.kinds import BY_NAME
from llmctl.core.plugins import Declared, FieldError, FieldPath, KindPlugin
from llmctl.core.resources import Resource
from llmctl.spec.build import Build
from llmctl.spec.files import FileRefused
from llmctl.spec.messages import shown
from llmctl.spec.models import ResourceShape
from llmctl.spec.suggestions import suggestion


def resolve_entries(build: Build, plugin: KindPlugin, entries: Mapping[str, ResourceShape]) -> None:
    """Let the plug-in resolve its entries, and add them. What it finds wrong is reported at its place."""
    kind = plugin.kind
    for name, entry in entries.items():
        address = Address(kind.name, name)
        try:
            declared = plugin.resolve(name, entry, _Context(build))
        except _Told:
            continue
        except FieldError as wrong:
            build.report.error((kind.section, name, *wrong.key), wrong.summary, hint=wrong.hint)
            continue
        except LlmctlError:
            raise
        except Exception as error:  # noqa: BLE001 - a package of somebody else may fail in any way
            frame = traceback.extract_tb(error.__traceback__)[-1]
            detail = f"Raised in {frame.name}, {frame.filename}:{frame.lineno}."
            raise _defect(address, f"raised {type(error).__name__}", detail) from None
        _refuse_nonsense(build, plugin, address, declared)
        build.add(kind.name, name, entry, declared.spec, declared.needs)


def _refuse_nonsense(build: Build, plugin: KindPlugin, address: Address, declared: object) -> None:
    if not isinstance(declared, Declared) or not isinstance(declared.spec, dict):
        raise _defect(address, f"gave a {type(declared).__name__}, not a Declared with a spec")
    if declared.spec.keys() != plugin.fields.keys():
        odd = ", ".join(sorted(declared.spec.keys() ^ plugin.fields.keys()))
        raise _defect(address, "gave a spec with other fields than it declares", f"Only in one of them: {odd}.")
    try:
        same = json.loads(canonical_json(declared.spec)) == declared.spec
    except (TypeError, ValueError):
        same = False
    if not same:
        raise _defect(address, "gave a spec that is not JSON")
    unknown = [str(need) for need in declared.needs if need not in build.resources]
    if unknown:
        raise _defect(address, f"says that it needs {', '.join(unknown)}, which it did not ask for")


def _defect(address: Address, what: str, detail: str = "") -> LlmctlError:
    hint = "This is a defect of the package that provides the kind, and not of what you wrote; please report it."
    return LlmctlError(f"the kind {address.kind!r} {what} when it resolved {address}", detail=detail, hint=hint)


class _Told(FieldError):
    """Refers to something about which all has been said already."""


@dataclass(frozen=True)
class _Context:
    """``core.plugins.Context`` over what was resolved so far: all that is built in."""

    build: Build

    def resource(self, address: Address, key: FieldPath) -> Resource:
        found = self.build.resources.get(address)
        if found is not None:
            return found
        kind = BY_NAME.get(address.kind)
        names = self.build.view.names.get(kind.section) if kind else frozenset[str]()
        if kind is None or (names is not None and address.name not in names):
            hint = (
                suggestion(address.name, names or (), kind.section) if kind else "Only built-in kinds are known here."
            )
            raise FieldError(key, f"there is no {address.kind} {shown(address.name)}", hint)
        raise _Told(key, f"{address} cannot be used")

    def file(self, source: str, key: FieldPath) -> tuple[Path, str]:
        try:
            facts = self.build.files.facts(source)
        except FileRefused as refused:
            raise FieldError(key, refused.summary, refused.hint) from None
        return facts.path, facts.digest
