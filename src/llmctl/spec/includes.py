"""``llmops.yaml`` and the files that it includes, as one tree in which every value knows its file."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from os.path import normpath
from typing import Protocol

from llmctl.core.diagnostics import Diagnostic, in_order
from llmctl.core.errors import InvalidInput
from llmctl.spec.files import FileRefused, refuse_outside
from llmctl.spec.messages import shown, unknown_key
from llmctl.spec.models import FileShape, HeaderShape
from llmctl.spec.nodes import Location, Mapping, Node, Scalar, Sequence, plain
from llmctl.spec.report import Report
from llmctl.spec.sections import kind_in
from llmctl.spec.source import Source
from llmctl.spec.yaml_reader import decode, read

_START = "Start with a section such as `prompts:`, or remove the file from `include`."


class Folder(Protocol):
    """The project's folder, on disk or as of a git revision. Paths are relative to it; all raise ``FileRefused``."""

    def read(self, source: str) -> bytes: ...

    def matching(self, pattern: str) -> list[str]: ...

    def shown(self, source: str) -> str: ...


@dataclass
class Tree:
    """What was read: the main file's tree with all that is included, and the files, the main one first.

    ``findings`` are errors that leave a tree to look at; nothing more should be said of ``refused`` nodes.
    """

    root: Mapping
    files: tuple[str, ...]
    findings: list[Diagnostic]
    refused: list[Node]


def read_tree(source: Source, name: str, folder: Folder, only: Collection[str] | None = None) -> Tree:
    """Read the main file (``name`` in the folder) and all that it includes, or of that only some sections.

    Raises ``InvalidInput`` with what is wrong with any of them when one cannot be read: half a project would
    bring errors that are none.
    """
    root, findings, refused = read(source)
    tree = Tree(root, (name,), findings, refused)
    report = Report(root)
    report.silence_nodes(refused)
    included: dict[str, Mapping] = {}
    broken: list[Diagnostic] = []
    for location, path in _paths(report, root, folder):
        if path == name or path in included:
            continue
        try:
            data = folder.read(path)
        except FileRefused as wrong:
            report.error(location, wrong.summary, hint=wrong.hint)
            continue
        try:
            inner, found, stand_ins = read(decode(data, folder.shown(path)), _START)
        except InvalidInput as error:
            broken += error.findings
            continue
        included[path] = inner
        tree.findings += found
        tree.refused += stand_ins
    if report.errors or broken:
        raise InvalidInput(in_order([*tree.findings, *report.errors, *broken]))
    tree.files = (name, *included)
    tree.root = _merged(root, included, tree.findings, only)
    return tree


def _paths(report: Report, root: Mapping, folder: Folder) -> Iterator[tuple[Location, str]]:
    """The files to include, each with the place that asks for it, in order; what is wrong is reported."""
    node = root.get("include")
    entries: list[tuple[Location, Node]] = [] if node is None else [(("include",), node)]
    if isinstance(node, Sequence):
        entries = [(("include", index), item) for index, item in enumerate(node.items)]
    for location, entry in entries:
        pattern = entry.value if isinstance(entry, Scalar) else None
        if not isinstance(pattern, str) or not pattern:
            summary = f"`include` takes a path or a list of paths, not {shown(plain(entry))}"
            report.error(location, summary, hint='For example `include: ["prompts/*.yaml"]`.')
            continue
        if "${" in pattern:
            summary = "a path under `include` is taken as it is written, without `${…}`"
            report.error(location, summary, hint="Write the path out, or use a glob.")
            continue
        try:
            refuse_outside(pattern)
            paths = [normpath(pattern)]
            if any(sign in pattern for sign in "*?["):
                paths = folder.matching(pattern)
                if not paths:
                    raise FileRefused(f"no file matches {pattern!r}", "Correct the glob, or remove it from `include`.")
        except FileRefused as wrong:
            report.error(location, wrong.summary, hint=wrong.hint)
            continue
        yield from ((location, path) for path in paths)


def _merged(
    root: Mapping, included: dict[str, Mapping], findings: list[Diagnostic], only: Collection[str] | None
) -> Mapping:
    """The main tree with the sections of the others put in. A name stands in one file only."""
    if not included:
        return root
    items = {key: (key_node, _copied(value)) for key, (key_node, value) in root.items.items()}
    for tree in included.values():
        report = Report(tree)
        for key, (key_node, value) in tree.items.items():
            if only is not None and key not in only:
                continue
            if _form(key) is None:
                _refuse_key(report, key)
            elif _is_nothing(value):
                continue
            elif key not in items or _is_nothing(items[key][1]):
                items[key] = (key_node, _copied(value))
            elif not _join(items[key][1], value, key, findings):
                # What has the wrong form stands for both, and is refused where forms are.
                wrong = items[key][1] if type(items[key][1]) is not _form(key) else value
                items[key] = (items[key][0] if wrong is not value else key_node, wrong)
        findings += report.findings
    return root.with_items(items)


def _form(key: str) -> type[Mapping] | type[Sequence] | None:
    """The form of what an included file may hold under that key; ``None`` for what it may not."""
    if key == "moved":
        return Sequence
    return Mapping if kind_in(key) else None


def _copied(node: Node) -> Node:
    """A section that others can be put into; what is in it stays as it is."""
    if isinstance(node, Mapping):
        return node.with_items(dict(node.items))
    if isinstance(node, Sequence):
        return Sequence(node.start, node.source, list(node.items), special=True)
    return node


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _join(into: Node, other: Node, key: str, findings: list[Diagnostic]) -> bool:
    """Put another file's part of a section in. False when one of the two has not the section's form."""
    if isinstance(into, Sequence) and isinstance(other, Sequence) and key == "moved":
        into.items += other.items
        return True
    if not isinstance(into, Mapping) or not isinstance(other, Mapping) or key == "moved":
        return False
    for name, (name_node, entry) in other.items.items():
        there = into.items.setdefault(name, (name_node, entry))[0]
        if there is not name_node:
            place = f"{there.source.file}:{there.line}:{there.column}"
            summary = f"{kind_in(key)} `{name}` is declared twice"
            findings.append(Diagnostic(summary, where=name_node.range, hint=f"It stands already at {place}; keep one."))
    return True


def _refuse_key(report: Report, key: str) -> None:
    if key in FileShape.known_keys():
        what = "cannot include others" if key == "include" else f"cannot hold `{key}`"
        hint = f"Put `{key}` into llmops.yaml; all paths start at its folder."
        if key in HeaderShape.known_keys() and key != "include":
            hint = f"Remove `{key}`; it stands in llmops.yaml."
        report.error((key,), f"an included file {what}", hint=hint, at_key=True)
    else:
        unknown_key(report, FileShape, (key,))
