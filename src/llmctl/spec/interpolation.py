"""``${env:NAME}`` and ``${file:PATH}`` in text: the only interpolation. ``$${`` is a plain ``${``."""

from __future__ import annotations

import re
from collections.abc import Mapping as Environ
from dataclasses import dataclass, field
from typing import Protocol

from llmctl.core.address import Address
from llmctl.spec.files import FileRefused, ReadText
from llmctl.spec.nodes import Location, Node, Scalar, Sequence
from llmctl.spec.report import Report, address_at

_PART = re.compile(r"\$\$\{|\$\{(?:([^{}\n]*)\})?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}\Z")


_UNSET = "the environment variable"
_SEALED = "no variable is read under --untrusted"


@dataclass(frozen=True)
class Values:
    """Where values come from: variables by name, and files of the project by path. ``asked`` are the variables that
    were looked for; ``sealed`` ones are not, and references to them stay as they are written."""

    environ: Environ[str, str]
    read_text: ReadText
    asked: set[str] = field(default_factory=set)
    sealed: bool = False


class Tell(Protocol):
    """Takes what is wrong at a location."""

    def __call__(self, location: Location, summary: str, hint: str) -> None: ...


def is_secret(location: Location) -> bool:
    """Whether a field takes a secret: its reference is kept and read only where it is used."""
    return len(location) == 3 and location[0] == "models" and location[2] == "api_key"


def interpolated(node: Node, values: Values, tell: Tell, location: Location = ()) -> Node:
    """The tree with every reference replaced by the value that it stands for.

    What cannot be replaced stays as it is written and is told. Overrides are left alone: they are
    interpolated where they are applied.
    """
    if not node.special:
        return node
    if isinstance(node, Scalar):
        if node.value is None or is_secret(location):
            return node
        text = _replaced(node.value, values, tell, location)
        return node if text is None else node.with_value(text)
    if isinstance(node, Sequence):
        items = [interpolated(item, values, tell, (*location, i)) for i, item in enumerate(node.items)]
        if all(new is old for new, old in zip(items, node.items, strict=True)):
            return node
        return Sequence(node.start, node.source, items)
    if len(location) == 3 and location[0] == "environments" and location[2] == "overrides":
        return node
    pairs = {k: (key, interpolated(value, values, tell, (*location, k))) for k, (key, value) in node.items.items()}
    if all(pairs[k][1] is value for k, (_, value) in node.items.items()):
        return node
    return node.with_items(pairs)


def _replaced(text: str, values: Values, tell: Tell, location: Location) -> str | None:
    wrong = False

    def replace(match: re.Match[str]) -> str:
        nonlocal wrong
        if match[0] == "$${":
            return "${"
        value, summary, hint = _value(match[1], values)
        if summary.endswith(_SEALED):
            tell(location, summary, hint)
            return match[0]
        if summary:
            wrong = True
            tell(location, summary, hint)
        return value

    result = _PART.sub(replace, text)
    return None if wrong else result


def _value(inside: str | None, values: Values) -> tuple[str, str, str]:
    """The value of one reference, or ("", what is wrong, what to do)."""
    escape = "write `$${` for the text `${` itself"
    if inside is None:
        return "", "a reference `${` is not closed", f"Write `${{env:NAME}}` or `${{file:PATH}}`, or {escape}."
    scheme, _, name = inside.partition(":")
    if scheme == "file" and name:
        try:
            return values.read_text(name).removesuffix("\n").removesuffix("\r"), "", ""
        except FileRefused as refused:
            return "", refused.summary, refused.hint
    if scheme != "env" or not _VARIABLE.match(name):
        summary = f"`${{{inside}}}` is not a reference"
        return "", summary, f"Write `${{env:NAME}}` or `${{file:PATH}}`, or {escape}."
    if values.sealed:
        return "", f"`${{env:{name}}}` stays as it is written: {_SEALED}", ""
    values.asked.add(name)
    value = values.environ.get(name)
    if value is None:
        return "", f"{_UNSET} {name} is not set", f"Set it first: export {name}=…"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "", f"{_UNSET} {name} is not UTF-8 text", f"Set it anew: export {name}=…"
    return value, "", ""


def resolve_tree(report: Report, values: Values, *, strict: bool) -> None:
    """Interpolate a report's tree. Without ``strict`` a variable that is not set is only passed over.

    A resource that reads a sealed variable is excused: what is wrong with it may be right with the value.
    """
    waiting: list[Location] = []
    excused: list[Address] = []

    def tell(location: Location, summary: str, hint: str) -> None:
        if summary.endswith(_SEALED):
            if strict:
                report.warn(location, summary, hint=hint)
            if address := address_at(location):
                excused.append(address)
                waiting.append(location)
            return
        if strict or not summary.startswith(_UNSET):
            report.error(location, summary, hint=hint)
        waiting.append(location)

    report.tree = interpolated(report.tree, values, tell)
    for location in waiting:
        report.silence(location)
    report.excuse(excused)
