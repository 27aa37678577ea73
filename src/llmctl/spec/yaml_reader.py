"""YAML 1.2 text to a tree with places: libyaml's events, and a small constructor of our own.

Stricter than YAML where a file that people review needs it: no duplicate keys, tags, merge keys, keys that
are not text, second documents or alias bombs. The tree is built without recursion and its depth is capped,
so that what comes after may recurse.
"""

from __future__ import annotations

import math
import re
from typing import Any, Union

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
from llmctl.spec.interpolation import REFERENCE
from llmctl.spec.nodes import Mapping, Node, Scalar, Sequence
from llmctl.spec.source import Source, is_secret_name
from llmctl.spec.yaml_errors import syntax_error

MAX_DEPTH = 64
MAX_ALIAS_NODES = 10_000  # nodes that all aliases together may repeat

_CONSTANTS: dict[str, Json] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_ASCII_TEXT = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_NUMBER_START = frozenset("0123456789+-.")
_INT = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z").match
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z").match
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z").match
_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_START = "Start with `apiVersion: llmctl/v1`; `llmctl schema` tells an editor the rest."
_STR_TAG = "tag:yaml.org,2002:str"
_Container = Union[Mapping, Sequence, None]


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
            [Diagnostic(summary, where=known.range(line, len(known.line(known.line_count)) + 1), hint=hint)]
        ) from None
    is_text = source.text.isascii() and not data.translate(None, _ASCII_TEXT)  # quicker than the pattern
    if not is_text and (bad := _NOT_TEXT.search(source.text)):
        before = Source(file, source.text[: bad.start()])
        summary = f"the file holds a control character (U+{ord(bad[0]):04X})"
        hint = "Remove it, or write it as an escape in double quotes; a binary file cannot be read here."
        raise InvalidInput(
            [
                Diagnostic(
                    summary, where=source.range(before.line_count, len(before.line(before.line_count)) + 1), hint=hint
                )
            ]
        )
    return source


def read(source: Source, start_with: str = _START) -> tuple[Mapping, list[Diagnostic], list[Node]]:
    """The tree of the file's one document, what the constructor refused in it, and the nodes about which it was.

    ``start_with`` is the hint for a file that is empty or no map. Raises ``InvalidInput`` when there is no tree:
    syntax errors, an empty file, or a file that is not a map.
    """
    builder = _Builder(source)
    try:
        root = builder.build()
    except YAMLError as error:
        raise InvalidInput([*builder.findings, syntax_error(source, error)]) from None
    if builder.stopped:
        raise InvalidInput(builder.findings)
    if root is None:
        raise InvalidInput([Diagnostic("the file is empty", where=source.range(1, 1), hint=start_with)])
    if not isinstance(root, Mapping):
        where = source.range(1, 1)
        raise InvalidInput(
            [*builder.findings, Diagnostic("the file must be a map of keys", where=where, hint=start_with)]
        )
    for mapping, name in builder.secrets:
        if name in mapping.items:
            _mask(*mapping.items[name])
    return root, builder.findings, builder.refused


def _mask(key: Scalar, node: Node) -> None:
    """Tell the source which lines hold nothing but (a part of) the secret below that key."""
    if isinstance(node, Scalar):
        if not REFERENCE.match(str(node.value)):
            first = node.line if node.line > key.line else node.line + 1
            node.source.secret_lines.update(range(first, node.end_line + 1))
        return
    for item in node.items if isinstance(node, Sequence) else [value for _, value in node.items.values()]:
        _mask(key, item)


class _Builder:
    """Builds the tree from events. ``stopped`` says that reading on would be unsafe."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.findings: list[Diagnostic] = []
        self.refused: list[Node] = []  # their values are stand-ins, about which nothing else should be said
        self.secrets: list[tuple[Mapping, str]] = []  # maps, with their keys that name a secret
        self.stopped = False
        self._anchors: dict[str, Node | None] = {}  # None: not complete yet
        #: For every open container but the innermost: it, its key that waits for a value, the anchor of what is in it.
        self._outer: list[tuple[_Container, Scalar | None, str | None]] = []
        self._expanded = 0

    def build(self) -> Node | None:
        """The root, or ``None`` for an empty file. One loop on purpose: it runs for every word of every file."""
        next_event = CParser(self.source.text).get_event
        source = self.source
        root: Node | None = None
        top: _Container = None  # the innermost open container
        key: Scalar | None = None  # its key that waits for a value
        node: Node
        while not self.stopped:
            event = next_event()
            kind = type(event)
            if kind is ScalarEvent:
                value = event.value
                if event.ctag is None and event.anchor is None and (event.style or _is_text(value)):
                    node = Scalar(value, event.start_mark, event.end_mark, source)
                else:
                    node = self._scalar(event)
                if "${" in value or node.value is None:
                    self._mark_special(top)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                assert top is not None
                node = top
                top, key, anchor = self._outer.pop()
                if anchor is not None:
                    self._anchors[anchor] = node
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                inner = self._container(event, Mapping if kind is MappingStartEvent else Sequence)
                self._outer.append((top, key, event.anchor))
                top, key = inner, None
                continue
            elif kind is AliasEvent:
                node = self._alias(event, top)
            elif kind is StreamEndEvent:
                break
            else:
                if kind is DocumentStartEvent:
                    self._document(event, root)
                continue
            if type(top) is Mapping:
                if key is None:
                    key = self._key(top, node, event)
                else:
                    if key is not _DROPPED:
                        top.items[key.value] = (key, node)
                    key = None
            elif type(top) is Sequence:
                top.items.append(node)
            else:
                root = node
        return root

    def _refuse(self, event: Any, summary: str, hint: str) -> None:
        start, end = event.start_mark, event.end_mark
        where = self.source.range(start.line + 1, start.column + 1, end.line + 1, end.column + 1)
        self.findings.append(Diagnostic(summary, where=where, hint=hint))

    def _document(self, event: Any, root: Node | None) -> None:
        if root is not None:
            self._refuse(event, "the file holds more than one document", "Keep one, and remove the line `---`.")
            self.stopped = True
        elif event.version is not None and tuple(event.version) != (1, 2):
            self._refuse(event, "only YAML 1.2 is read", "Remove the line `%YAML`.")

    def _check_tag(self, event: Any) -> None:
        # The tag is not repeated in the message: a password that starts with `!` reads as one.
        if event.tag is not None and event.tag not in ("!", _STR_TAG):
            self._refuse(event, "tags are not used in this file", "Remove the word that starts with `!`.")

    def _scalar(self, event: Any) -> Scalar:
        """A scalar that is not plainly text."""
        before = len(self.findings)
        self._check_tag(event)
        value = event.value
        if not event.style and event.ctag is None:
            value = self._resolve(event)
        node = Scalar(value, event.start_mark, event.end_mark, self.source)
        if len(self.findings) > before:
            self.refused.append(node)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _resolve(self, event: Any) -> Json:
        """The value of a scalar without quotes, by the core schema of YAML 1.2."""
        text: str = event.value
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _is_text(text):
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

    def _container(self, event: Any, make: type[Mapping] | type[Sequence]) -> Mapping | Sequence:
        before = len(self.findings)
        if event.ctag is not None:
            self._check_tag(event)
        node = make(event.start_mark, self.source)
        if len(self.findings) > before:
            self.refused.append(node)
        if len(self._outer) >= MAX_DEPTH:
            self._refuse(event, f"values are nested more than {MAX_DEPTH} deep", "Flatten the file.")
            self.stopped = True
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        return node

    def _alias(self, event: Any, top: _Container) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            known = event.anchor in self._anchors
            summary = "this alias stands inside of what it repeats" if known else "this alias has no anchor before it"
            self._refuse(event, summary, "Text that starts with `*` must be in quotes.")
            node = Scalar("", event.start_mark, event.start_mark, self.source)
            self.refused.append(node)
        self._expanded += _size(node)
        if self._expanded > MAX_ALIAS_NODES:
            self._refuse(event, f"aliases repeat more than {MAX_ALIAS_NODES} values", "Write the values out.")
            self.stopped = True
        if node.special:
            self._mark_special(top)
        return node

    def _mark_special(self, top: _Container) -> None:
        for container in (top, *(outer for outer, _, _ in self._outer)):
            if container is not None:
                container.special = True

    def _key(self, container: Mapping, node: Node, event: Any) -> Scalar:
        """The key that waits for its value; ``_DROPPED`` when it is refused and its value is to be dropped."""
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
            if is_secret_name(node.value):
                self.secrets.append((container, node.value))
            return node
        where = node.range if isinstance(node, Scalar) else self.source.range(node.line, node.column)
        self.findings.append(Diagnostic(summary, where=where, hint=hint))
        return _DROPPED


def _is_text(plain: str) -> bool:
    """Whether a scalar without quotes can only be text."""
    return plain not in _CONSTANTS and plain[0] not in _NUMBER_START


def _size(node: Node) -> int:
    """The nodes of a tree; those behind aliases count as often as they are used."""
    if isinstance(node, Scalar):
        return 1
    below = node.items if isinstance(node, Sequence) else (value for _, value in node.items.values())
    return 1 + sum(_size(item) for item in below)


class _Nowhere:
    line = column = 0


_DROPPED = Scalar(None, _Nowhere(), _Nowhere(), Source("", ""))  # stands for a key that was refused with its value
