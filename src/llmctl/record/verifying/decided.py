"""What an entry says that people decided: approvals, break-glass, the proof of a promotion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from llmctl.core.decisions import Approval, BreakGlass, PromotionProof
from llmctl.core.digests import Json
from llmctl.record.approvals import email_of, is_approval
from llmctl.record.layout import StateFile
from llmctl.record.messages import serial_of, trailers_of, value, values
from llmctl.record.objects import Object, parse_commit
from llmctl.record.repository import Repository
from llmctl.record.signatures import Judged, judge, split
from llmctl.record.signers import Signers
from llmctl.record.verifying.chain import Link, Node

_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
PLANS = ("apply", "rollback", "destroy")  # actions whose entries say how many approvals they needed
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PROVEN = ("serial", "revision", "artifacts", "evidence")


@dataclass(frozen=True, slots=True)
class Decided:
    """One entry with its decisions, and the states before and after it (``None`` when unreadable or absent).

    ``needed`` is how many approvals the entries before left for this one.
    """

    link: Link
    serial: int
    decisions: Mapping[str, Json]
    before: StateFile | None
    after: StateFile | None
    needed: int = 0

    @property
    def entry(self) -> Node:
        return self.link.entry

    @property
    def opened(self) -> bool:
        """Whether a commit of the attempt says that it broke the glass: that is told before anything is done."""
        return any(value(node.trailers, "Break-Glass") for node in self.link.attempt)

    @property
    def begun(self) -> str:
        """When the attempt was seen first, ISO 8601 in UTC: an approval must have held then."""
        return min(node.commit.time for node in (*self.link.attempt, self.entry))


def wrong_decisions(repository: Repository, environment: str, found: Decided, signers: Signers) -> Iterator[str]:
    """Everything about the decisions of an entry that does not hold."""
    glass, complaints = _break_glass(found)
    yield from complaints
    yield from _kept_open(found, glass)
    yield from _Approvals(repository, environment, found, signers).wrong(glass)
    yield from _promotion(repository, environment, found)


def _break_glass(found: Decided) -> tuple[BreakGlass | None, list[str]]:
    reasons = values(found.entry.trailers, "Break-Glass")
    if found.decisions.get("break_glass") is None:
        opened = found.opened and value(found.entry.trailers, "Outcome") != "interrupted"
        return None, ["says that it broke the glass, and its decisions know nothing of it"] if reasons or opened else []
    try:
        glass = BreakGlass.from_json(found.decisions["break_glass"])
    except _DAMAGE:
        return None, ["its break-glass cannot be read"]
    if not reasons:
        return glass, ["broke the glass without a Llmctl-Break-Glass trailer"]
    same = glass.serial == found.serial and reasons == [" ".join(glass.reason.split())]
    return glass, [] if same else ["its Llmctl-Break-Glass trailer is not what its decisions say"]


def _kept_open(found: Decided, glass: BreakGlass | None) -> Iterator[str]:
    """Whether each open break-glass stays in the state until an entry says that it put it right."""
    said = found.decisions.get("reconciles", [])
    reconciled = set(said) if isinstance(said, list) and all(type(serial) is int for serial in said) else set()
    if {str(serial) for serial in reconciled} != set(values(found.entry.trailers, "Reconciles")):
        yield "its Llmctl-Reconciles trailers are not what its decisions say"
    if found.after is None:
        return
    before = {b.serial: b for b in found.before.break_glass} if found.before else {}
    after = {b.serial: b for b in found.after.break_glass}
    owed = {found.serial} if glass and glass.approvals and _went_through(found.entry) else set()
    own = {found.serial} if glass or found.opened else set()
    for serial in sorted((before.keys() | owed) - after.keys() - reconciled):
        yield f"drops the break-glass of serial {serial}, and nothing says that it was put right"
    for serial in sorted(after.keys() - before.keys() - own):
        yield f"has an open break-glass of serial {serial}, of which that entry does not tell"
    for serial in sorted(reconciled - before.keys()):
        yield f"says that it put serial {serial} right, where no break-glass was open"
    for serial in sorted(before.keys() & after.keys()):
        if _who(before[serial]) != _who(after[serial]):
            yield f"changes what is said of the break-glass of serial {serial}"


def _went_through(entry: Node) -> bool:
    """Whether what was not approved now serves; after a destroy nothing does."""
    return (
        value(entry.trailers, "Outcome") in ("applied", "rolled back") and value(entry.trailers, "Action") != "destroy"
    )


def _who(glass: BreakGlass) -> tuple[str, str, str]:
    return glass.reason, glass.actor, glass.at


class _Approvals:
    def __init__(self, repository: Repository, environment: str, found: Decided, signers: Signers) -> None:
        self._repository = repository
        self._environment = environment
        self._found = found
        self._signers = signers

    def wrong(self, glass: BreakGlass | None) -> Iterator[str]:
        """What does not hold of an entry's approvals."""
        named = values(self._found.entry.trailers, "Approval")
        section = self._found.decisions.get("approvals")
        if section is None:
            if named:
                yield "names approvals in trailers, and its decisions hold none"
            yield from self._too_few(0, 0)
            return
        try:
            required = int(section["required"])
            given = [Approval.from_json(data) for data in section["given"]]
        except _DAMAGE:
            yield "its approvals cannot be read"
            return
        if sorted(named) != sorted(f"{approval.signer} {approval.key}" for approval in given):
            yield "its Llmctl-Approval trailers are not the approvals that its decisions hold"
        counted: set[str] = set()
        for approval in given:
            judged, complaints = self._judge(approval)
            yield from (f"the approval of {approval.signer} {complaint}" for complaint in complaints)
            if not complaints:
                counted.add(judged.principal or judged.key)
        yield from self._too_few(required, len(counted) + (glass.approvals if glass else 0))

    def _too_few(self, required: int, counted: int) -> Iterator[str]:
        if counted < required:
            yield f"was applied with {counted} of {required} approvals"
        # What changed nothing needs none.
        if required < self._found.needed and self._found.link.attempt and is_plan(self._found.decisions):
            yield f"says that it needed {required} approvals, and by the entry before it needed {self._found.needed}"

    def _judge(self, approval: Approval) -> tuple[Judged, list[str]]:
        try:
            raw = approval.signed.encode()
        except UnicodeEncodeError:
            return Judged("bad"), ["cannot be read"]
        judged = judge(self._repository, raw, self._signers)
        return judged, [*self._signature(approval, judged), *self._content(approval, judged, raw)]

    def _signature(self, approval: Approval, judged: Judged) -> Iterator[str]:
        worth = {
            "unsigned": "is not signed",
            "bad": f"has a bad signature: {judged.detail}",
            "stranger": f"is signed by a stranger: {judged.detail}",
            "revoked": "is signed with a key that is revoked",
            "expired": "is signed with a key that did not count then",
        }
        if judged.status != "good":
            yield worth[judged.status]
        elif approval.key != judged.key or (judged.names and approval.signer not in judged.names):
            yield f"is not theirs: the key is {judged.key}" + (f" of {judged.principal}" if judged.principal else "")

    def _content(self, approval: Approval, judged: Judged, raw: bytes) -> Iterator[str]:
        """What was signed, held to what it is said to approve."""
        entry, state = self._found.entry, self._found.after
        head, _, message = split(raw, self._repository.algorithm)[0].decode(errors="replace").partition("\n\n")
        signed = trailers_of(message)
        if not is_approval(raw, self._repository.algorithm):
            yield "is no approval, but another commit that was signed"
        if value(signed, "Approves") != value(entry.trailers, "Plan") or not value(signed, "Approves"):
            yield "is for another plan"
        if value(signed, "Environment") != self._environment:
            yield "is for another environment"
        if state and value(signed, "Project") != state.project:
            yield "is for another project"
        if not _before(self._found.begun, value(signed, "Expires")):
            yield "had expired when the plan was applied"
        if (approval.plan, approval.expires) != (value(signed, "Approves"), value(signed, "Expires")):
            yield "says something else than what was signed"
        if self._by_actor(approval, judged, head):
            yield "is the actor's own"

    def _by_actor(self, approval: Approval, judged: Judged, head: str) -> bool:
        entry = self._found.entry
        if judged.key and judged.key == entry.signature.key:
            return True
        actor = email_of(value(entry.trailers, "Actor"))
        people = {email_of(name) for name in (approval.signer, *judged.names)}
        for line in head.split("\n"):
            role, _, rest = line.partition(" ")
            if role in ("author", "committer"):
                people.add(email_of(rest.rpartition(">")[0] + ">"))
        return bool(actor) and actor in people


def is_plan(decisions: Mapping[str, Json]) -> bool:
    """Whether the entry is of a plan, as those that say how many approvals they needed."""
    return decisions.get("action") in PLANS


def declared(decisions: Mapping[str, Json]) -> int:
    """How many approvals an entry leaves for the next one, 0 where that cannot be read."""
    section = decisions.get("approvals")
    number = section.get("declared", 0) if isinstance(section, Mapping) else 0
    return number if isinstance(number, int) else 0


def _before(moment: str, end: str) -> bool:
    try:
        until = datetime.fromisoformat(end)
        return until.tzinfo is not None and datetime.fromisoformat(moment) <= until
    except ValueError:
        return False


def _promotion(repository: Repository, environment: str, found: Decided) -> Iterator[str]:
    data = found.decisions.get("promotion")
    if data is None:
        return
    try:
        proof = PromotionProof.from_json(data)
        whole = _is_whole(proof) and proof.origin != environment
    except _DAMAGE:
        whole = False
    if not whole:
        yield "its promotion proof is malformed"
        return
    known = repository.objects.contents([proof.head])[0]  # only where the other record is in this clone, too
    if known and known[1] == "commit":
        told = serial_of(trailers_of(parse_commit(Object(*known)).message))
        if told != proof.serial:
            yield f"its promotion proof names {proof.head[:12]} as serial {proof.serial}, which it is not"


def _is_whole(proof: PromotionProof) -> bool:
    texts = (proof.origin, proof.head, proof.anchor)
    return (
        all(isinstance(text, str) and text for text in texts)
        and bool(_COMMIT.fullmatch(proof.head))
        and proof.serial > 0
        and bool(proof.routes)
        and all(isinstance(route, Mapping) and all(key in route for key in _PROVEN) for route in proof.routes.values())
    )
