"""The tree of a YAML file with its places. Trees are never changed: interpolation and overrides make new ones."""

from __future__ import annotations

from typing import Union

from llmctl.core.digests import Json


class Scalar:
    """One value. Lines and columns count from 1; ``end_column`` is exclusive.

    ``written`` is what stands in the file; it differs from ``value`` where a variable was put in.
    """

    __slots__ = ("column", "end_column", "end_line", "line", "value", "written")

    def __init__(
        self, value: Json, line: int, column: int, end_line: int, end_column: int, written: Json = None
    ) -> None:
        self.value = value
        self.written = value if written is None else written
        self.line = line
        self.column = column
        self.end_line = end_line
        self.end_column = end_column

    size = 1

    def with_value(self, value: Json) -> Scalar:
        """The same place with a variable's value put in."""
        return Scalar(value, self.line, self.column, self.end_line, self.end_column, self.written)


class Sequence:
    """A list. ``size`` counts all nodes below it, those behind aliases as often as they are used."""

    __slots__ = ("column", "items", "line", "size")

    def __init__(self, line: int, column: int, items: list[Node] | None = None) -> None:
        self.line = line
        self.column = column
        self.items: list[Node] = items if items is not None else []
        self.size = 0


class Mapping:
    """A map: each key as text with the key's own place and its value."""

    __slots__ = ("column", "items", "line", "size")

    def __init__(self, line: int, column: int, items: dict[str, tuple[Scalar, Node]] | None = None) -> None:
        self.line = line
        self.column = column
        self.items: dict[str, tuple[Scalar, Node]] = items if items is not None else {}
        self.size = 0

    def get(self, key: str) -> Node | None:
        """The value of a key, or ``None``."""
        pair = self.items.get(key)
        return pair[1] if pair else None


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
