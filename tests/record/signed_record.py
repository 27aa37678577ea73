"""A signed record with one of everything, who may sign it, and the edits that tamper with it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from llmctl.core.decisions import Approval, BreakGlass, PromotionProof
from llmctl.core.digests import Json
from llmctl.core.protocols import Change
from llmctl.record import Verification, open_repository, verify
from llmctl.record.layout import evidence_path
from llmctl.record.objects import utc
from llmctl.record.signers import Signers
from llmctl.record.verifying.signing import Demand
from tests.record.forging import Edit, Forged, signed, with_signature
from tests.record.helpers import BRANCH, ENV, begin, evidence, git, judge, make_repository, prove, put, recorded
from tests.record.signing_keys import Key, sign_with, ssh_key

ANN, BOB, DORA = "ann@example.org", "bob@example.org", "dora@example.org"
PLAN = "sha256:" + "a" * 64
PROVEN = evidence()
EVIDENCE = evidence_path(PROVEN)
FORGED = evidence(threshold=0.99)
TOKEN = "ghp_" + "0123456789abcdefghijABCDEFGHIJ012345"


@dataclass
class Case:
    """A project with a signed record, and everybody's keys. Ann applies, Bob approves, Dora's key is revoked."""

    folder: Path
    keys: dict[str, Key]
    allowed: Path
    revoked: Path

    def check(self, expect_head: str | None = None, *, since: int = 0, known: bool = True) -> Verification:
        repository = open_repository(self.folder)
        signers = Signers.load(repository, self.allowed, self.revoked) if known else Signers()
        demand = Demand(signers, unsigned=known, since=since)
        return verify(repository, ENV, expect_head=expect_head, judge=judge, demand=demand)

    def said(self, result: Verification) -> list[tuple[str, str, str]]:
        """Subject, reason and anchor of each finding."""
        subject = {"": ""}
        for finding in result.findings:
            if finding.commit not in subject:
                subject[finding.commit] = git(self.folder, "log", "-1", "--format=%s", finding.commit)
        return [(subject[f.commit], f.reason, f.anchor) for f in result.findings]

    @property
    def head(self) -> str:
        return git(self.folder, "rev-parse", BRANCH)


def approval(
    case: Case, who: str, key: str, plan: str = PLAN, *, environment: str = ENV, hours: float = 24, author: str = ""
) -> Approval:
    """What `llmctl approve` makes, by anybody's key and of anything."""
    now = datetime.now(UTC).replace(microsecond=0)
    expires = utc(now + timedelta(hours=hours))
    person = f"{author or who} <{author or who}> {int(now.timestamp())} +0000"
    tree = git(case.folder, "hash-object", "-t", "tree", "-w", "--stdin")
    trailers = {"Approves": plan, "Environment": environment, "Project": "acme", "Expires": expires}
    lines = [f"tree {tree}", f"author {person}", f"committer {person}", "", "Approve", ""]
    lines += [f"Llmctl-{name}: {text}" for name, text in trailers.items()]
    payload = ("\n".join(lines) + "\n").encode()
    made = with_signature(payload, signed(payload, case.keys[key]), open_repository(case.folder).algorithm)
    return Approval(who, fingerprint(case.keys[key]), plan, utc(now), expires, made.decode())


def fingerprint(key: Key) -> str:
    shown = subprocess.run(["ssh-keygen", "-l", "-f", f"{key.path}.pub"], capture_output=True, check=True)
    return shown.stdout.decode().split()[1]


PROOF = PromotionProof(
    "staging",
    "c" * 40,
    7,
    "unanchored",
    {"route.support": {"serial": 7, "revision": "1" * 16, "artifacts": [], "evidence": []}},
)


def make_record(case: Case) -> None:
    """Seven entries: two changes and evidence; approved; failed; break-glass; what puts it right; promoted; cleared."""
    repository = open_repository(case.folder)

    def entry(subject: str, *changes: Change, outcome: str = "applied", action: str = "apply", **more: Json) -> None:
        attempt = begin(repository, fence=1, action=action)  # type: ignore[arg-type]
        for change in changes:
            attempt.commit(change)
        decisions = {"action": action, **more.pop("decisions", {})}
        attempt.close(outcome, subject=subject, decisions=decisions, rejections=(), **more)  # type: ignore[arg-type]

    given = [approval(case, BOB, "bob")]
    glass = BreakGlass(4, "site is down", f"Ann Example <{ANN}>", "2026-10-01T00:00:00Z", (), 1)
    entry("One", put(recorded("prompt.answer")), prove(PROVEN), put(recorded("route.support")))
    entry(
        "Two",
        put(recorded("prompt.answer", "two", 2)),
        decisions={"approvals": {"required": 1, "declared": 1, "given": [a.to_json() for a in given]}},
        trailers=[("Approval", f"{a.signer} {a.key}") for a in given],
    )
    entry("Three", outcome="failed")
    entry(
        "Four",
        Change("break-glass: site is down", trailers=[("Break-Glass", "site is down")]),
        put(recorded("prompt.answer", "four", 3)),
        decisions={"approvals": {"required": 1, "declared": 1, "given": []}, "break_glass": glass.to_json()},
        trailers=[("Break-Glass", "site is down")],
        break_glass=(glass,),
    )
    more = approval(case, BOB, "bob")
    entry(
        "Five",
        put(recorded("model.m")),
        decisions={"approvals": {"required": 1, "declared": 0, "given": [more.to_json()]}, "reconciles": [4]},
        trailers=[("Approval", f"{more.signer} {more.key}"), ("Reconciles", "4")],
    )
    entry("Six", put(recorded("route.support", "six", 2)), decisions={"promotion": PROOF.to_json()})
    entry("Seven", Change("Clear away", removes=[EVIDENCE]), action="gc")


def make_case(folder: Path, algorithm: str = "sha1", *, sign: bool = True) -> Case:
    project = folder / "project"
    project.mkdir(parents=True)
    git(project, "init", "-q", f"--object-format={algorithm}", "-b", "main")
    make_repository(project)
    keys = {name: ssh_key(folder, name) for name in ("ann", "bob", "carl", "dora", "eve")}
    allowed, revoked = folder / "allowed", folder / "revoked"
    lines = [keys["ann"].allowed(ANN), keys["bob"].allowed(BOB), keys["dora"].allowed(DORA)]
    allowed.write_text("".join(lines) + keys["eve"].allowed("eve@example.org", 'valid-before="20200101"'))
    revoked.write_text(keys["dora"].line + "\n")
    case = Case(project, keys, allowed, revoked)
    if sign:
        sign_with(project, keys["ann"])
    make_record(case)
    return case


def since(path: str, change: Callable[[Forged], None]) -> Edit:
    def edit(old: Forged) -> None:
        if path in old.files:
            change(old)

    return edit


def text(old: str, new: str) -> Edit:
    def edit(forged: Forged) -> None:
        forged.message = forged.message.replace(old, new)

    return edit


def without(trailer: str) -> Callable[[Forged], None]:
    def edit(old: Forged) -> None:
        old.message = "\n".join(line for line in old.message.split("\n") if not line.startswith(f"Llmctl-{trailer}:"))

    return edit


def both(*edits: Edit) -> Edit:
    def edit(old: Forged) -> None:
        for each in edits:
            each(old)

    return edit


def edit_json(path: str, change: Callable[[Json], None]) -> Edit:
    return since(path, lambda old: old.edit(path, change))


def approved_by(*given: Approval, required: int = 1) -> Edit:
    """Entry two with other approvals, everything else fitting."""

    def edit(old: Forged) -> None:
        section = {"required": required, "declared": 1, "given": [a.to_json() for a in given]}
        if "decisions/2.json" in old.files:
            old.edit("decisions/2.json", lambda d: d.update(approvals=section))
        if old.subject == "Two":
            without("Approval")(old)
            old.message += "".join(f"Llmctl-Approval: {a.signer} {a.key}\n" for a in given)

    return edit
