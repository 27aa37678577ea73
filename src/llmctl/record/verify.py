"""Checking a record offline on a plain clone, without trusting the tool that wrote it.

The hash chain, serials, parents, trailers against trees, evidence against its digest, its gate's claim and its own
numbers, what people decided, values that look like secrets, and the signatures against signers whom the verifier
names. What only an anchor outside of the record can tell is told with it: see ``Finding.anchor``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.core.errors import RecordError
from llmctl.record.messages import serial_of
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository
from llmctl.record.signers import Signers
from llmctl.record.verifying.chain import History, read_history
from llmctl.record.verifying.entries import check_entries, numbered
from llmctl.record.verifying.files import Judge, check_files
from llmctl.record.verifying.report import Report
from llmctl.record.verifying.signing import UNANCHORED, Demand, anchors, check_signatures, counts

#: No demand on signatures, and nobody whose keys count.
UNDEMANDING = Demand(Signers())


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not hold. ``anchor`` says what vouches for the commit as it is: "signed by NAME", "below a
    commit signed by NAME", "expected head", or nothing ("unanchored": history that was rewritten consistently cannot
    be told)."""

    commit: str
    reason: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of ``verify``. ``anchor`` is that of the head; counts are of what was checked.

    ``signatures`` counts commits by what their signatures are worth; ``signers`` names the file of allowed signers,
    "" when nobody said whose keys count; ``key`` is the one that signed the head, "" for none.
    """

    head: str
    findings: tuple[Finding, ...]
    commits: int
    entries: int
    evidence: int
    anchor: str
    signatures: Mapping[str, int] = field(default_factory=dict)
    signers: str = ""
    key: str = ""

    @property
    def ok(self) -> bool:
        return not self.findings


def verify(
    repository: Repository,
    environment: str,
    *,
    expect_head: str | None,
    judge: Judge,
    demand: Demand = UNDEMANDING,
) -> Verification:
    """Check the whole record of an environment.

    ``judge`` derives a verdict again from the numbers of a piece of evidence and returns what is wrong with
    it. Raises ``RecordError`` only where nothing can be checked: a shallow clone that cut it, missing objects.
    """
    if _is_cut(repository, environment):
        raise RecordError(
            "this clone is shallow, and a record can only be verified whole", hint="Run `git fetch --unshallow`."
        )
    history = read_history(repository, environment, demand.signers)
    report = Report()
    _expected_head(environment, history, expect_head, report)
    evidence, signed = 0, counts(history)
    if history.head:
        files = check_files(repository, history, judge, report)
        evidence = len(files.evidence)
        check_entries(repository, environment, history, files, demand.signers, report)
        check_signatures(numbered(history), demand.of(signed), report)
    anchored = anchors(history, expect_head)
    head = history.links[-1].entry.signature if history.links else None
    return Verification(
        head=history.head,
        findings=tuple(Finding(commit, reason, anchored.get(commit, UNANCHORED)) for commit, reason in report.found),
        commits=sum(1 for _ in history.nodes()),
        entries=sum(1 for link in history.links if serial_of(link.entry.trailers)),
        evidence=evidence,
        anchor=anchored.get(history.head, UNANCHORED),
        signatures=signed,
        signers=demand.signers.source,
        key=head.key if head and head.status == "good" else "",
    )


def _expected_head(environment: str, history: History, expected: str | None, report: Report) -> None:
    head = history.head
    if expected is not None and expected != head:
        if any(link.entry.id == expected for link in history.links):
            report.say(head, f"the record goes on after the expected head: it ends at {head}, expected was {expected}")
        else:
            report.say(head, f"the record ends at {head or 'nothing'}, expected was {expected}")
    elif not head:
        report.say("", f"there is no record of {environment} in this clone")


def _is_cut(repository: Repository, environment: str) -> bool:
    """Whether a shallow clone lacks a part of the record; one that was made in that clone is whole."""
    shallow = repository.common_dir / "shallow"
    head = Reader(repository, environment).head()
    if not head or not shallow.exists():
        return False
    commits = repository.git.run("rev-list", head, "--").decode().split()
    return not set(shallow.read_text().split()).isdisjoint(commits)
