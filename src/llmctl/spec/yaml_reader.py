"""YAML 1.2 text to a tree with places: libyaml's events, and a small constructor of our own.

Stricter than YAML where a file that people review needs it: no duplicate keys, tags, merge keys, keys that
are not text, second documents or alias bombs. The tree is built without recursion and its depth is capped,
so that what comes after may recurse.
"""

from __future__ import annotations

import math
import re
from typing import Any

from ruamel.yaml.cyaml import CParser  # type: ignore[attr-defined]
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.spec.nodes import Mapping, Node, Scalar, Sequence
from llmctl.spec.source import Source
from llmctl.spec.yaml_errors import syntax_error

MAX_DEPTH = 64
MAX_ALIAS_NODES = 10_000  # nodes that all aliases together may repeat

_CONSTANTS: dict[str, Json] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER_START = frozenset("0123456789+-.")
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z").match
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z").match
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z").match
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_STR_TAG = "tag:yaml.org,2002:str"
_BAD_KEY = Scalar(None, 0, 0, 0, 0)


def decode(data: bytes, file: str) -> Source:
    """Text from bytes; raises ``InvalidInput`` when they are not UTF-8 text."""
    try:
        source = Source(file, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        known = Source(file, data[: error.start].decode("utf-8-sig", "replace"))
        summary = f"this is not UTF-8 text (byte 0x{data[error.start]:02x})"
        hint = "Save the file as UTF-8; a binary file cannot be read here."
        raise InvalidInput(
            [Diagnostic(summary, where=known.range(line, len(known.lines[-1]) + 1), hint=hint)]
        ) from None
    if bad := _NOT_TEXT.search(source.text):
        before = Source(file, source.text[: bad.start()]).lines
        summary = f"the file holds a control character (U+{ord(bad[0]):04X})"
        hint = "Remove it, or write it as an escape in double quotes; a binary file cannot be read here."
        raise InvalidInput([Diagnostic(summary, where=source.range(len(before), len(before[-1]) + 1), hint=hint)])
    return source


def read(source: Source) -> tuple[Mapping, list[Diagnostic], list[Node]]:
    """The tree of the file's one document, what the constructor refused in it, and the nodes about which it was.

    Raises ``InvalidInput`` when there is no tree: syntax errors, an empty file, or a file that is not a map.
    """
    builder = _Builder(source)
    try:
        root = builder.build()
    except YAMLError as error:
        raise InvalidInput([*builder.findings, syntax_error(source, error)]) from None
    if builder.stopped:
        raise InvalidInput(builder.findings)
    if root is None:
        raise InvalidInput([_starter(source, "the file is empty")])
    if not isinstance(root, Mapping):
        raise InvalidInput([*builder.findings, _starter(source, "the file must be a map of keys")])
    return root, builder.findings, builder.refused


def _starter(source: Source, summary: str) -> Diagnostic:
    hint = "Start with `apiVersion: llmctl/v1`; `llmctl schema` tells an editor the rest."
    return Diagnostic(summary, where=source.range(1, 1), hint=hint)


class _Builder:
    """Builds the tree from events. ``stopped`` says that reading on would be unsafe."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[Diagnostic] = []
        self.refused: list[Node] = []  # their values are stand-ins, about which nothing else should be said
        self.stopped = False
        self._anchors: dict[str, Node | None] = {}  # None: not complete yet
        self._stack: list[tuple[Mapping | Sequence, str | None]] = []  # with their anchors
        self._keys: list[Scalar | None] = []  # the key that waits for its value, for each open container
        self._expanded = 0
        self._root: Node | None = None

    def build(self) -> Node | None:
        parser = CParser(self.source.text)
        documents = 0
        while not self.stopped:
            event = parser.get_event()
            kind = type(event)
            if kind is ScalarEvent:
                self._scalar(event)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                self._open(event, Mapping if kind is MappingStartEvent else Sequence)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._close()
            elif kind is AliasEvent:
                self._alias(event)
            elif kind is DocumentStartEvent:
                documents += 1
                self._document(event, documents)
            elif kind is StreamEndEvent:
                break
        return self._root

    def _refuse(self, event: Any, summary: str, hint: str) -> None:
        start, end = event.start_mark, event.end_mark
        where = self.source.range(start.line + 1, start.column + 1, end.line + 1, end.column + 1)
        self.findings.append(Diagnostic(summary, where=where, hint=hint))

    def _document(self, event: Any, count: int) -> None:
        if count > 1:
            self._refuse(event, "the file holds more than one document", "Keep one, and remove the line `---`.")
            self.stopped = True
        elif event.version is not None and tuple(event.version) != (1, 2):
            self._refuse(event, "only YAML 1.2 is read", "Remove the line `%YAML`.")

    def _check_tag(self, event: Any) -> None:
        # The tag is not repeated in the message: a password that starts with `!` reads as one.
        if event.tag is not None and event.tag not in ("!", _STR_TAG):
            self._refuse(event, "tags are not used in this file", "Remove the word that starts with `!`.")

    def _scalar(self, event: Any) -> None:
        before = len(self.findings)
        self._check_tag(event)
        start, end = event.start_mark, event.end_mark
        value = event.value
        if event.style in ("", None) and event.tag is None:
            value = self._resolve(event)
        node = Scalar(value, start.line + 1, start.column + 1, end.line + 1, end.column + 1)
        if len(self.findings) > before:
            self.refused.append(node)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node, event)

    def _resolve(self, event: Any) -> Json:
        """The value of a scalar without quotes, by the core schema of YAML 1.2."""
        text: str = event.value
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in _NUMBER_START:
            return text
        if _INT(text):
            # Longer ones do not survive JSON, and Python takes quadratic time to read them.
            number = int(text, 0) if text[:2] in ("0o", "0x") and len(text) < 30 else 2**64
            if text[:2] not in ("0o", "0x") and len(text) < 30:
                number = int(text)
            if abs(number) < 2**63:
                return number
            self._refuse(event, "this number is too large", "Put it in quotes if it is meant as text.")
            return 0
        if _NOT_FINITE(text) or (_FLOAT(text) and not math.isfinite(float(text))):
            self._refuse(event, "this number is not finite", "Write a number that has an end, or put it in quotes.")
            return 0
        return float(text) if _FLOAT(text) else text

    def _open(self, event: Any, make: type[Mapping] | type[Sequence]) -> None:
        before = len(self.findings)
        self._check_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            self._refuse(event, f"values are nested more than {MAX_DEPTH} deep", "Flatten the file.")
            self.stopped = True
            return
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        node = make(event.start_mark.line + 1, event.start_mark.column + 1)
        if len(self.findings) > before:
            self.refused.append(node)
        self._stack.append((node, event.anchor))
        self._keys.append(None)

    def _close(self) -> None:
        node, anchor = self._stack.pop()
        self._keys.pop()
        if isinstance(node, Mapping):
            node.size = 1 + sum(value.size for _, value in node.items.values())
        else:
            node.size = 1 + sum(item.size for item in node.items)
        if anchor is not None:
            self._anchors[anchor] = node
        self._add(node, None)

    def _alias(self, event: Any) -> None:
        node = self._anchors.get(event.anchor)
        if node is None:
            known = event.anchor in self._anchors
            summary = "this alias stands inside of what it repeats" if known else "this alias has no anchor before it"
            self._refuse(event, summary, "Text that starts with `*` must be in quotes.")
            node = Scalar("", event.start_mark.line + 1, event.start_mark.column + 1, 0, 0)
            self.refused.append(node)
        self._expanded += node.size
        if self._expanded > MAX_ALIAS_NODES:
            self._refuse(event, f"aliases repeat more than {MAX_ALIAS_NODES} values", "Write the values out.")
            self.stopped = True
            return
        self._add(node, event)

    def _add(self, node: Node, event: Any) -> None:
        if not self._stack:
            self._root = node
            return
        container = self._stack[-1][0]
        if isinstance(container, Sequence):
            container.items.append(node)
            return
        key = self._keys[-1]
        if key is None:
            self._keys[-1] = self._key(container, node, event)
            return
        if key is not _BAD_KEY:
            container.items[key.value] = (key, node)
        self._keys[-1] = None

    def _key(self, container: Mapping, node: Node, event: Any) -> Scalar:
        """The key to wait with; ``_BAD_KEY`` when it is refused and its value is to be dropped."""
        summary = hint = ""
        if not isinstance(node, Scalar):
            summary, hint = "a key must be text, not a list or a map", "Write `key: value`."
            if isinstance(node, Mapping) and len(node.items) <= 1:
                hint = "A value that starts with `{{` must be in quotes."
        elif not isinstance(node.value, str):
            summary, hint = "a key must be text", "Put the key in quotes."
        elif node.value == "<<" and getattr(event, "style", None) in ("", None):
            summary = "merge keys (`<<`) are not used in this file"
            hint = "Write the keys out, or repeat a whole value with an alias."
        elif node.value in container.items:
            first = container.items[node.value][0]
            summary, hint = f"duplicate key `{node.value}`", f"It stands already on line {first.line}; keep one."
        if not summary:
            assert isinstance(node, Scalar)
            return node
        end = (node.end_line, node.end_column) if isinstance(node, Scalar) else (0, 0)
        where = self.source.range(node.line, node.column, *end)
        self.findings.append(Diagnostic(summary, where=where, hint=hint))
        return _BAD_KEY
