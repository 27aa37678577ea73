"""``moved:`` says that a resource has a new name: what it may say, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmctl.core.address import Address
from llmctl.core.kinds import BY_NAME, kind_of
from llmctl.core.plugins import are_left_out, installed
from llmctl.spec.messages import LEFT_OUT
from llmctl.spec.models import MovedShape
from llmctl.spec.nodes import Location
from llmctl.spec.report import Report
from llmctl.spec.suggestions import suggestion

Moves = tuple[tuple[Address, Address], ...]


def check_moves(report: Report, moved: Sequence[MovedShape], names: Mapping[str, frozenset[str]]) -> Moves:
    """The renames that are well-formed, as the file lists them; everything else is reported.

    ``names`` has what any environment declares, by section; of a section that is not in it nothing is known.
    """
    moves: list[tuple[int, Address, Address]] = []
    for index, entry in enumerate(moved):
        ends = [
            _address(report, ("moved", index, key), text) for key, text in (("from", entry.origin), ("to", entry.to))
        ]
        if ends[0] is not None and ends[1] is not None and _fits(report, index, moves, ends[0], ends[1]):
            moves.append((index, ends[0], ends[1]))
    origins = {origin for _, origin, _ in moves}
    for index, origin, target in moves:
        if _declared(names, origin):
            hint = f"Remove the entry, or rename {origin} where it is declared."
            report.error(("moved", index, "from"), f"{origin} is still declared", hint=hint)
        if target not in origins and _declared(names, target) is False:
            section = kind_of(target.kind).section
            hint = suggestion(target.name, names[section], section)
            report.error(("moved", index, "to"), f"{target} is not declared", hint=hint)
    if _cycles(report, moves):
        return ()
    return tuple((origin, target) for _, origin, target in moves)


def _address(report: Report, location: Location, text: str) -> Address | None:
    try:
        address = Address.parse(text)
    except ValueError:
        hint = "Write kind.name, for example route.support."
        report.error(location, f"{report.written(location)!r} is not an address", hint=hint)
        return None
    if address.kind in BY_NAME or address.kind in installed():
        return address
    if are_left_out():
        report.warn(location, f"the rename is passed over: {LEFT_OUT}")
        return None
    hint = suggestion(address.kind, (*BY_NAME, *installed()), "kinds")
    report.error(location, f"there is no kind `{address.kind}`", hint=hint)
    return None


def _fits(report: Report, index: int, before: list[tuple[int, Address, Address]], origin: Address, to: Address) -> bool:
    """Whether an entry makes sense beside those before it: every name is left once and taken once."""
    summary = ""
    key = "to"
    if origin.kind != to.kind:
        summary, hint = f"a {origin.kind} cannot become a {to.kind}", "A rename keeps the kind."
    elif origin == to:
        summary, hint = f"{origin} is moved to itself", "Remove the entry."
    elif origin in (known for _, known, _ in before):
        key, summary = "from", f"{origin} is moved already"
        hint = "Keep one entry; for a second rename list its `to` as the next `from`."
    elif to in (known for _, _, known in before):
        summary, hint = f"something else is moved to {to} already", "Two resources cannot become one; keep one entry."
    if summary:
        report.error(("moved", index, key), summary, hint=hint)
    return not summary


def _declared(names: Mapping[str, frozenset[str]], address: Address) -> bool | None:
    known = names.get(kind_of(address.kind).section)
    return None if known is None else address.name in known


def _cycles(report: Report, moves: list[tuple[int, Address, Address]]) -> bool:
    """Report cycles. Names are left and taken once, so a walk from any of them ends or comes back to its start."""
    follows = {origin: to for _, origin, to in moves}
    told: set[Address] = set()
    for index, origin, to in moves:
        path = [origin]
        while to in follows and to != origin:
            path.append(to)
            to = follows[to]
        if to == origin and origin not in told:
            told.update(path)
            shape = " → ".join(str(address) for address in [*path, origin])
            report.error(("moved", index, "from"), f"a cycle of renames: {shape}", hint="Remove one of the entries.")
    return bool(told)


def effective(moves: Moves, names: Mapping[str, frozenset[str]]) -> Moves:
    """The renames that end at a resource which this environment declares."""
    follows = dict(moves)

    def end(address: Address) -> Address:
        while address in follows:
            address = follows[address]
        return address

    return tuple((origin, to) for origin, to in moves if _declared(names, end(to)))


def aliases_of_routes(moves: Moves) -> dict[str, list[str]]:
    """By route, the names that it had before, sorted."""
    before = {to: origin for origin, to in moves if to.kind == "route"}
    found: dict[str, list[str]] = {}
    for route in before:
        names, address = [], route
        while address in before:
            address = before[address]
            names.append(address.name)
        found[route.name] = sorted(names)
    return found
