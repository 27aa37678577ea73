"""Who signed the record, and what anchors each of its commits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from llmctl.record.signers import Signers
from llmctl.record.verifying.chain import History, Link, Node
from llmctl.record.verifying.report import Report

UNANCHORED, EXPECTED = "unanchored", "expected head"


@dataclass(frozen=True, slots=True)
class Demand:
    """What signatures are held to. With ``unsigned`` none may be missing, in the entries from serial ``since`` on:
    ``True`` in any case, ``None`` where any commit of the record is signed."""

    signers: Signers
    unsigned: bool | None = False
    since: int = 0

    def of(self, worth: Mapping[str, int]) -> Demand:
        """The demand on a record whose signatures are worth that."""
        signed = any(count for status, count in worth.items() if status != "unsigned")
        return replace(self, unsigned=signed) if self.unsigned is None else self


def check_signatures(numbered: list[tuple[int, Link]], demand: Demand, report: Report) -> None:
    """Say of each commit what is wrong with its signature. Entries before ``since`` are vouched for by later ones, so
    that only a signature of something else is said of them."""
    for serial, link in numbered:
        for node in (*link.attempt, link.entry):
            if reason := _wrong(node, demand, serial >= demand.since):
                report.say(node.id, reason)


def _wrong(node: Node, demand: Demand, held: bool) -> str:
    found = node.signature
    by = f"the key {found.key}" if found.key else "a key that cannot be told"
    name = f" of {', '.join(found.names)}" if found.names else ""
    if found.status == "bad":
        return f"its signature is bad: {found.detail}"
    if not held:
        return ""
    if found.status == "revoked":
        return f"is signed with {by}{name}, which is revoked"
    if found.status == "unsigned" and demand.unsigned:
        return "is not signed"
    if found.status == "stranger" and demand.signers.known:
        return f"is signed by a stranger, with {by}: {found.detail}"
    if found.status == "expired" and demand.signers.known:
        return f"is signed with {by}{name} at a time at which it did not count"
    return ""


def anchors(history: History, expected: str | None) -> Mapping[str, str]:
    """What vouches for each commit that something vouches for: whoever signed it, or a later one that holds its id;
    and the expected head, for it and all before it."""
    found: dict[str, str] = {}
    by, pinned = "", False
    for node in reversed(list(_in_order(history))):
        pinned = pinned or node.id == expected
        signature = node.signature
        signed = signature.principal if signature.status == "good" else ""
        by = signed or by
        said = [f"signed by {signed}"] if signed else [f"below a commit signed by {by}"] if by else []
        said += [EXPECTED] if pinned else []
        if said:
            found[node.id] = ", ".join(said)
    return found


def _in_order(history: History) -> Iterator[Node]:
    for link in history.links:
        yield from link.attempt
        yield link.entry


def counts(history: History) -> Mapping[str, int]:
    """How many commits have a signature of each worth."""
    return dict(Counter(node.signature.status for node in history.nodes()))
