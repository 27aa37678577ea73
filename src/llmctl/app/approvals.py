"""Use cases: approve a saved plan, and count the approvals of a plan that is to be applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from llmctl.app.allowed_signers import trusted
from llmctl.app.planning import EVERYTHING, Scope, plan
from llmctl.app.workspace import Workspace
from llmctl.core.decisions import Approval
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import Denied, InvalidInput, RecordError, StalePlan
from llmctl.plan import Consent, Plan, SavedPlan, plan_digest
from llmctl.record import Repository
from llmctl.record.approvals import (
    SignedApproval,
    authors,
    before,
    email_of,
    holds,
    push_approval,
    read_approvals,
    signed_by,
    write_approval,
)
from llmctl.record.signatures import Judged, judge
from llmctl.record.signers import Signers

LASTS = timedelta(days=7)
_WORDS = {
    "unsigned": "it is not signed",
    "bad": "its signature is wrong",
    "stranger": "the signer is no allowed signer",
    "revoked": "the key is revoked",
    "expired": "the key did not count any more",
}


@dataclass(frozen=True, slots=True)
class Counted:
    """The approvals of one plan: how many it needs, which count, which do not and why (a line each).

    ``others`` are people who approved another plan of this environment; ``nobody`` says that no allowed signers are
    named anywhere, so that nothing can count.
    """

    required: int = 0
    declared: int = 0
    given: tuple[Approval, ...] = ()
    refused: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    nobody: bool = False
    applied_source: str = ""  # the commit up to which all that the file says is applied, and was approved

    @property
    def consent(self) -> Consent:
        return Consent(self.required, self.declared, tuple(a.signer for a in self.given), self.refused)


@dataclass(frozen=True, slots=True)
class Approved:
    """What was signed: by which key, until when (ISO 8601, UTC), and whether that key counts here."""

    ref: str
    key: str
    principal: str  # by which this clone's allowed signers name the key, "" when they do not
    plan: str
    expires: str
    pushed: bool
    notes: tuple[str, ...] = ()  # what may keep it from counting


def counted(workspace: Workspace, made: Plan, allowed: Path | None, now: datetime) -> Counted:
    """Count the approvals that are known here of exactly this plan. A plan that does nothing needs none; a destroy
    always does something, also where nothing is recorded any more.

    Raises ``InvalidInput`` for allowed signers that cannot be read, or that lie in the project itself.
    """
    repository, declared = workspace.repository, workspace.environment.approvals
    left = before(repository, made.recorded.head, made.recorded.serial)
    required = 0 if made.is_empty and made.action != "destroy" else max(declared, left.declared)
    if not required or made.offline:
        return Counted(required, declared, applied_source=left.applied_source)
    signers = trusted(repository, allowed)
    mine: list[SignedApproval] = []
    others: list[SignedApproval] = []
    for found in read_approvals(repository, workspace.environment.name):
        (mine if found.plan == plan_digest(made) else others).append(found)
    around = _Circumstances.of(workspace, made, signers, now, left.applied_source)
    given, refused = _judged(around, mine) if signers.known else ((), ())
    return Counted(
        required,
        declared,
        given,
        refused,
        tuple(_other(repository, signers, found) for found in others if not found.expired(now)),
        nobody=not signers.known,
        applied_source=left.applied_source,
    )


def shown_plan(
    workspace: Workspace, scope: Scope = EVERYTHING, *, offline: bool = False, allowed: Path | None = None
) -> Plan:
    """Plan what ``llmops.yaml`` asks for, with who approved it; ``allowed`` says whose approvals count.

    Raises ``InvalidInput`` as ``plan`` does, and as ``counted`` does.
    """
    made = plan(workspace, replace(scope, allowed_signers=allowed), offline=offline)
    return replace(made, approvals=counted(workspace, made, allowed, datetime.now(UTC)).consent)


def require_approvals(made: Plan, counted: Counted, plan_file: Path | None, option: str) -> None:
    """Raise ``Denied`` unless there are enough; it says who approved, who does not count and why, and what to run."""
    missing = counted.consent.missing
    if not missing:
        return
    verb = "is" if missing == 1 else "are"
    lines = [f"{a.signer} approved it ({a.key}, until {a.expires})" for a in counted.given]
    lines += [f"does not count: {text}" for text in counted.refused]
    if counted.declared < counted.required:
        lines.append(
            f"The file asks for {counted.declared}; {counted.required} were needed before, so that this apply still "
            "needs them."
        )
    lines += [f"for another plan of this environment: {text}" for text in counted.others]
    if counted.others:
        lines.append(f"This plan is {plan_digest(made)[:19]}…: what an approved one was made from has moved since.")
    raise Denied(
        f"{missing} {'approval' if missing == 1 else 'approvals'} of this plan {verb} missing: "
        f"it needs {counted.required} and has {len(counted.given)}",
        detail="\n".join(lines),
        hint=_how(made, counted, plan_file, option),
    )


def _how(made: Plan, counted: Counted, plan_file: Path | None, option: str) -> str:
    if counted.nobody:
        return (
            "Nobody said whose signatures count: name a file of allowed signers with --allowed-signers FILE, "
            "LLMCTL_ALLOWED_SIGNERS, or `git config gpg.ssh.allowedSignersFile FILE`."
        )
    if plan_file is not None:
        return f"Others run `llmctl approve {plan_file}{option}`; then run this again."
    back = f" --to {made.rollback_to}" if made.rollback_to else ""
    save = {"apply": "plan", "rollback": f"rollback{back}"}.get(made.action, made.action)
    again = "`llmctl apply plan.json`" if made.action == "apply" else "run this again"
    first = f"Save it: `llmctl {save} --out plan.json{option}`."
    return f"{first} Others run `llmctl approve plan.json{option}`; then {again}."


@dataclass(frozen=True, slots=True)
class _Circumstances:
    """What an approval is held against."""

    repository: Repository
    signers: Signers
    environment: str
    project: str
    actor: str  # email, in lower case
    authors: frozenset[str]
    now: datetime

    @classmethod
    def of(cls, workspace: Workspace, made: Plan, signers: Signers, now: datetime, since: str) -> _Circumstances:
        repository = workspace.repository
        return cls(
            repository,
            signers,
            made.desired.environment.name,
            made.desired.project,
            email_of(repository.actor()),
            _authors(workspace, since) if made.action == "apply" else frozenset(),
            now,
        )

    def against(self, found: SignedApproval, judged: Judged) -> str:
        """Why an approval does not count, "" when it does."""
        if judged.status != "good":
            return _WORDS[judged.status] + (f" ({judged.detail})" if judged.detail else "")
        moment = int(self.now.timestamp())
        if not any(line.for_git and line.covers(moment) for line in self.signers.allowed.get(judged.key, ())):
            return _WORDS["expired"]
        if (found.environment, found.project) != (self.environment, self.project):
            return f"it is for {found.project or 'no project'}, environment {found.environment or 'none'}"
        if found.expired(self.now):
            return f"it expired on {found.expires}" if found.expires else "it does not say when it expires"
        if any(sign in name for name in judged.names for sign in "*?"):
            return f"the allowed signers name nobody for that key, only {', '.join(judged.names)}"
        names = {email_of(name) for name in judged.names} | set(signed_by(found))
        if self.actor in names or holds(self.repository, judged.key, self.signers):
            return "it is by who applies"
        if mine := sorted(names & self.authors):
            return f"{mine[0]} is an author of the change"
        return ""


def _authors(workspace: Workspace, since: str) -> frozenset[str]:
    """Who wrote what is to be applied; a rollback and a destroy bring nothing new."""
    return authors(workspace.repository, since, (workspace.root, *workspace.document.files))


def _judged(around: _Circumstances, found: list[SignedApproval]) -> tuple[tuple[Approval, ...], tuple[str, ...]]:
    """Those that count, one a person, and why the others do not."""
    given: list[Approval] = []
    refused: list[str] = []
    known: set[str] = set()
    for each in found:
        judged = judge(around.repository, each.raw, around.signers)
        who = f"{judged.principal or next(iter(signed_by(each)), '')} ({judged.key or 'no key'})"
        reason = around.against(each, judged)
        text = _text(each.raw)
        names = {judged.key, *(email_of(name) for name in judged.names)}
        if not reason and not known.isdisjoint(names):
            reason = "the same person approved it already"
        if not reason and text is None:
            reason = "it is not written in UTF-8, so that it cannot be recorded"
        if reason or text is None:
            refused.append(f"{who}: {reason}")
            continue
        known |= names
        given.append(Approval(judged.principal, judged.key, each.plan, each.at, each.expires, text))
    return tuple(given), tuple(refused)


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _other(repository: Repository, signers: Signers, found: SignedApproval) -> str:
    judged = judge(repository, found.raw, signers)
    who = judged.principal or f"{next(iter(signed_by(found)), 'somebody')}, who is no allowed signer,"
    return f"{who} approved {found.plan[:19]}… on {found.at}"


def approvable(workspace: Workspace, file: Path, saved: SavedPlan) -> None:
    """Raise for a plan that nobody can approve: ``InvalidInput``, or ``StalePlan`` when the record has moved on."""
    project, environment = workspace.document.project, workspace.environment.name
    problem = hint = ""
    if saved.offline:
        problem, hint = "is an offline plan; it cannot be applied", "Plan again without --offline."
    elif (saved.project, saved.environment) != (project, environment):
        problem = (
            f"is a plan for {saved.project}, environment {saved.environment}, and this is {project}, {environment}"
        )
        hint = "Approve it where it is to be applied."
    elif saved.parts["empty"] and saved.action != "destroy":
        problem, hint = "does nothing, so that it needs no approval", "There is nothing to approve."
    if problem:
        raise InvalidInput([Diagnostic(f"{file} {problem}", hint=hint)])
    recorded = workspace.recorded()
    if recorded.serial > saved.inputs.serial:
        raise StalePlan(
            f"{file} is stale: what it was made from has moved",
            detail=f"the record: serial {saved.inputs.serial} when planned, {recorded.serial} now",
            hint="Plan again with `llmctl plan --out FILE`, and have the new plan approved.",
        )


def approve(workspace: Workspace, saved: SavedPlan, lasts: timedelta, now: datetime) -> Approved:
    """Sign a saved plan for so long; the remote that has the record gets the approval at once.

    Raises ``RecordError`` when nothing signs, or when the remote does not take it.
    """
    repository, environment = workspace.repository, workspace.environment.name
    repository.require_identity()
    found, judged = write_approval(
        repository,
        environment,
        project=saved.project,
        plan=saved.digest,
        seal=saved.seal,
        expires=now.astimezone(UTC) + lasts,
        source=repository.head_commit(),
    )
    if judged.status == "revoked":
        raise RecordError("the key that signed is revoked, so that its approval does not count", detail=judged.key)
    if repository.remote:
        try:
            push_approval(repository, environment, found)
        except RecordError as error:
            raise RecordError(
                f"the approval is signed, and {repository.remote} has not got it: {error.summary}",
                detail=error.detail,
                hint=f"{error.hint} Then run this again, or `git push {repository.remote} {found.ref}`.".lstrip(),
            ) from error
    notes = tuple(_doubts(workspace, saved, judged))
    return Approved(found.ref, judged.key, judged.principal, found.plan, found.expires, bool(repository.remote), notes)


def _doubts(workspace: Workspace, saved: SavedPlan, judged: Judged) -> Iterator[str]:
    """What who approves should know, as far as this clone can tell; it is decided where the plan is applied."""
    repository, name = workspace.repository, workspace.environment.name
    if not workspace.environment.approvals:
        yield f"{name} asks for no approvals"
    if judged.status != "good":
        yield f"by the allowed signers of this clone it would not count: {_WORDS[judged.status]}"
    recorded = workspace.recorded()
    since = before(repository, recorded.head, recorded.serial).applied_source
    mine = email_of(repository.actor())
    if saved.action == "apply" and mine in _authors(workspace, since):
        yield f"{mine} is an author of what is to be applied, as far as this clone knows: then it does not count"


def decided(counted: Counted, *, lowers: bool) -> dict[str, Json]:
    """What the decisions of an entry say of approvals. Only an apply that ``lowers`` what is needed from now on,
    because it had as many as were needed before, leaves fewer for the next one."""
    declared = counted.declared if lowers else max(counted.required, counted.declared)
    given = [approval.to_json() for approval in counted.given]
    return {"required": counted.required, "declared": declared, "given": given}
