"""The tree of YAML files with its places. Trees are never changed: interpolation and overrides make new ones."""

from __future__ import annotations

from typing import Protocol, Union

from llmctl.core.diagnostics import SourceRange
from llmctl.core.digests import Json
from llmctl.spec.source import Source


class Mark(Protocol):
    """A place in a text as the parser gives it; both count from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _Placed:
    """What stands somewhere: where it starts, and in which file. Lines and columns count from 1."""

    __slots__ = ("source", "start")

    source: Source
    start: Mark

    @property
    def line(self) -> int:
        return self.start.line + 1

    @property
    def column(self) -> int:
        return self.start.column + 1


class Scalar(_Placed):
    """One value; ``end_column`` is exclusive."""

    __slots__ = ("end", "value")

    def __init__(self, value: Json, start: Mark, end: Mark, source: Source) -> None:
        self.value = value
        self.start = start
        self.end = end
        self.source = source

    @property
    def end_line(self) -> int:
        return self.end.line + 1

    @property
    def end_column(self) -> int:
        return self.end.column + 1

    @property
    def written(self) -> Json:
        """What stands in the file; it differs from ``value`` where something was put in."""
        return self.value

    @property
    def special(self) -> bool:
        """Whether it holds a ``${`` or nothing."""
        return self.value is None or (isinstance(self.value, str) and "${" in self.value)

    @property
    def range(self) -> SourceRange:
        """The place with its snippet."""
        return self.source.range(self.line, self.column, self.end_line, self.end_column)

    def with_value(self, value: Json) -> Scalar:
        """The same place with another value put in."""
        return _Replaced(value, self)


class _Replaced(Scalar):
    """A value that was put in place of what is written."""

    __slots__ = ("_written",)

    def __init__(self, value: Json, old: Scalar) -> None:
        super().__init__(value, old.start, old.end, old.source)
        self._written = old.written

    @property
    def written(self) -> Json:
        return self._written


class Sequence(_Placed):
    """A list. Unless it is ``special`` no ``${`` and no ``null`` is in it, however deep: most of a file is not."""

    __slots__ = ("items", "special")

    def __init__(self, start: Mark, source: Source, items: list[Node] | None = None, *, special: bool = False) -> None:
        self.start = start
        self.source = source
        self.items: list[Node] = items if items is not None else []
        self.special = special


class Mapping(_Placed):
    """A map: each key as text with the key's own place and its value. ``special`` as of a list."""

    __slots__ = ("items", "special")

    def __init__(
        self, start: Mark, source: Source, items: dict[str, tuple[Scalar, Node]] | None = None, *, special: bool = False
    ) -> None:
        self.start = start
        self.source = source
        self.items: dict[str, tuple[Scalar, Node]] = items if items is not None else {}
        self.special = special

    def get(self, key: str) -> Node | None:
        """The value of a key, or ``None``."""
        pair = self.items.get(key)
        return pair[1] if pair else None

    def with_items(self, items: dict[str, tuple[Scalar, Node]]) -> Mapping:
        """The same place with other items."""
        return Mapping(self.start, self.source, items, special=True)


Node = Union[Scalar, Sequence, Mapping]
Location = tuple[Union[str, int], ...]


def plain(node: Node) -> Json:
    """The tree as Python values. Safe to recurse: the reader caps the depth."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, (_, value) in node.items.items()}


def find(tree: Node, location: Location) -> tuple[Scalar | None, Node, bool]:
    """Walk to a location as far as the tree goes.

    Returns the last key passed (``None`` at the root and below a list), the last node reached, and
    whether that is the whole way.
    """
    key: Scalar | None = None
    node = tree
    for part in location:
        if isinstance(node, Mapping) and part in node.items:
            key, node = node.items[str(part)]
        elif isinstance(node, Sequence) and isinstance(part, int) and part < len(node.items):
            node, key = node.items[part], None
        else:
            return key, node, False
    return key, node, True
