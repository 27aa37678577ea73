"""Collects findings by location in the tree, and gives each its place, snippet and address."""

from __future__ import annotations

from collections.abc import Iterable

from llmctl.core.address import NAME, Address
from llmctl.core.diagnostics import Diagnostic, Severity, SourceRange, in_order
from llmctl.core.errors import InvalidInput
from llmctl.spec.nodes import Location, Mapping, Node, Scalar, find
from llmctl.spec.sections import kind_in


class Report:
    """The findings about one tree. Locations are paths in it: ``("routes", "support", "fallback", 0)``."""

    def __init__(self, tree: Node) -> None:
        self.tree = tree
        self._found: dict[tuple[SourceRange | None, str], Diagnostic] = {}
        self._silent: set[int] = set()  # ids of nodes about which all has been said
        self._excused: set[Address] = set()

    @property
    def findings(self) -> list[Diagnostic]:
        return in_order(self._found.values())

    @property
    def errors(self) -> list[Diagnostic]:
        return [d for d in self.findings if d.is_error]

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        return tuple(d for d in self.findings if not d.is_error)

    def raise_errors(self) -> None:
        """Raise ``InvalidInput`` with every finding when one of them is an error."""
        if self.errors:
            raise InvalidInput(self.findings)

    @property
    def count(self) -> int:
        """How many findings there are."""
        return len(self._found)

    def add(self, finding: Diagnostic) -> None:
        """Add a finding; the same one again is dropped."""
        self._found.setdefault((finding.where, finding.summary), finding)

    def silence(self, location: Location) -> None:
        """Drop all later findings about exactly this value."""
        self.silence_nodes([find(self.tree, location)[1]])

    def excuse(self, addresses: Iterable[Address]) -> None:
        """Drop all later errors of these resources, but those that may not be excused."""
        self._excused.update(addresses)

    def silence_nodes(self, nodes: Iterable[Node]) -> None:
        """The same for nodes. They must be kept alive as long as the report."""
        self._silent.update(id(node) for node in nodes)

    def where(self, location: Location, *, at_key: bool = False) -> SourceRange:
        """The place of a value, or of its key; of the nearest key above it for what is not written."""
        key, node, whole = find(self.tree, location)
        if (at_key or not whole) and key is not None:
            node = key
        if isinstance(node, Scalar):
            return node.range
        if isinstance(node, Mapping) and key is not None:
            return key.range
        return node.source.range(node.line, node.column)

    def written(self, location: Location) -> str:
        """The text that stands in the file; a variable's value is not shown: it may be what must not be seen."""
        node = find(self.tree, location)[1]
        return str(node.written) if isinstance(node, Scalar) else ""

    def error(
        self,
        location: Location,
        summary: str,
        *,
        hint: str = "",
        detail: str = "",
        at_key: bool = False,
        where: SourceRange | None = None,
        excusable: bool = True,
    ) -> None:
        """An error at a location, or at ``where`` when that is more precise."""
        if id(find(self.tree, location)[1]) in self._silent or (excusable and address_at(location) in self._excused):
            return
        place = where or self.where(location, at_key=at_key)
        self.add(Diagnostic(summary, where=place, address=address_at(location), detail=detail, hint=hint))

    def warn(self, location: Location, summary: str, *, hint: str = "", detail: str = "") -> None:
        """A warning at a location."""
        place, address = self.where(location), address_at(location)
        self.add(Diagnostic(summary, Severity.WARNING, place, address, detail, hint))


def address_at(location: Location) -> Address | None:
    """The resource that a location lies in, if it lies in one with a proper name."""
    if len(location) < 2 or not isinstance(location[1], str) or not NAME.match(location[1]):
        return None
    kind = kind_in(str(location[0]))
    return Address(kind, location[1]) if kind else None
