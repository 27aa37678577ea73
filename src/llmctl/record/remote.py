"""The record on a git remote: fetched before it is read, and pushed by compare-and-swap.

The remote is the authority, and the branch ``llmctl/<env>`` here a copy of what it accepted. A clone that has more
than the remote, or something else, is told so: which of the two is right is for people to say.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from math import inf

from llmctl.core.errors import RecordError
from llmctl.record.git import Answer, OutOfTime, RefEdit, RefMoved
from llmctl.record.repository import Repository, branch, remote_branch, remote_side_ref, seen_branch, side_ref

FETCH_S = 120.0  # a first fetch brings the whole record: some megabytes after thousands of applies
PUSH_S = 60.0
LOOK_S = 30.0
PATIENCE = (0.5, 1.0, 2.0, 4.0)  # seconds between tries: a connection that breaks is mostly back by then
_TIMED_OUT = 124
_SAID_LINES = 12  # of what git and the remote's hooks said, as many as fit on a screen beside the rest

# What may be over when it is tried again. The last ones are two pushes that meet on the remote.
_PASSING = re.compile(
    r"resolve (host|proxy)|connect to|Connection (refused|timed out|reset|closed)|timed? ?out|Network is unreachable"
    r"|No route to host|hung up|early EOF|RPC failed|error: 5\d\d|HTTP 5\d\d|unexpected disconnect|SSL_|GnuTLS"
    r"|cannot lock ref|\.lock': File exists|failed to update ref|not our ref|temporarily",
    re.IGNORECASE,
)
_NO_ACCESS = re.compile(
    r"Authentication failed|could not read (Username|Password)|Permission (to .* )?denied|publickey|error: 40[13]"
    r"|access denied|not allowed|unable to create|insufficient permission|read-only",
    re.IGNORECASE,
)
_DECLINED = re.compile(r"hook declined|protected|declined|\[remote rejected\]|prohibited|denying", re.IGNORECASE)
_NOT_THERE = re.compile(r"does not appear to be a git repository|not found|does not exist", re.IGNORECASE)


class RemoteError(RecordError):
    """The remote could not be reached, or did not do what it was asked. ``passing``: trying again may help."""

    def __init__(self, summary: str, *, detail: str, hint: str, passing: bool) -> None:
        super().__init__(summary, detail=detail, hint=hint)
        self.passing = passing


class RemoteMoved(RefMoved):
    """Refs of the remote are not what was expected: ``found`` says what they are, "" for none."""

    def __init__(self, remote: str, found: Mapping[str, str]) -> None:
        super().__init__(f"somebody else changed the record on {remote} in the same moment", hint="Try again.")
        self.found = found


class Remote:
    """The record, the lock and the attempts of one environment on the remote that the repository names."""

    def __init__(self, repository: Repository, environment: str) -> None:
        self.name = repository.remote
        self._repository = repository
        self._environment = environment
        self._branch = branch(environment)
        self._tracking = remote_branch(environment, self.name)
        self._seen = seen_branch(environment, self.name)

    @property
    def head(self) -> str:
        """The record's head on the remote as it was fetched last, "" for none."""
        return self._repository.git.resolve(self._tracking)

    def sync(self) -> None:
        """Fetch, and bring the local branch to where the remote is.

        Raises ``RemoteError`` when the remote cannot be read, and ``RecordError`` with both heads when it and this
        clone have different records.
        """
        git = self._repository.git
        known = self.head
        if self.fetch():
            self._follow(self.head)
        elif known := known or git.resolve(self._seen):
            here = git.resolve(self._branch)
            raise RecordError(
                f"{self.name} has no record of {self._environment} any more",
                detail=f"It was at {known[:12]} when it was fetched last; this clone is at {here[:12] or 'nothing'}.",
                hint=f"Put it back from the clone that has most of it: `git push {self.name} {self._branch}`. When it "
                f"was deleted for good reason, forget it here: `git update-ref -d {self._tracking}` and "
                f"`git update-ref -d {self._seen}`.",
            )

    def fetch(self) -> bool:
        """Fetch record, lock and attempts without touching the local branch; returns whether there is a record."""
        beside = f"+{side_ref(self._environment, '*')}:{remote_side_ref(self._environment, self.name, '*')}"
        answer = self._fetch(f"+{self._branch}:{self._tracking}", f"+{self._branch}:{self._seen}", beside)
        missing = answer.code != 0 and f"find remote ref {self._branch}" in answer.said
        if missing:  # then git has fetched nothing at all
            answer = self._fetch(beside)
        if answer.code != 0:
            raise self._unreadable(answer)
        return not missing

    def values(self, refs: Iterable[str]) -> dict[str, str]:
        """What refs are on the remote at this moment, "" for one that is not there."""
        wanted = list(refs)
        answer = self._ask(LOOK_S, "ls-remote", "--refs", "--", self.name, *wanted)
        if answer.code != 0:
            raise self._unreadable(answer)
        lines = (line.split("\t") for line in answer.output.decode(errors="replace").splitlines())
        found = {name: value for value, name in lines}
        return {ref: found.get(ref, "") for ref in wanted}

    def push(self, edits: Sequence[RefEdit], patience: Sequence[float] = PATIENCE, until: float = inf) -> None:
        """Make all edits on the remote, or none; tried again after so many seconds each where that may help, but not
        after ``until``, in seconds of ``time.monotonic``.

        Raises ``RemoteMoved`` when a ref is not what was expected, and ``RemoteError`` when the remote refuses, or
        cannot be reached: then nobody knows whether it made the edits.
        """
        for pause in (*patience, None):
            try:
                self._push(edits)
            except RemoteError as error:
                if pause is None or not error.passing or time.monotonic() + pause >= until:
                    raise
                time.sleep(pause)
            else:
                return

    def _push(self, edits: Sequence[RefEdit]) -> None:
        leases = [f"--force-with-lease={edit.ref}:{edit.old}" for edit in edits]
        options = ("--porcelain", "--atomic", "--no-verify", "--no-signed", "--no-follow-tags")
        specs = [f"{edit.new}:{edit.ref}" for edit in edits]
        arguments = (*options, "--recurse-submodules=no", *leases, "--", self.name, *specs)
        answer = self._ask(PUSH_S, "push", *arguments)
        if answer.code == 0:
            return
        # The connection may have broken after the remote had done it, or at an earlier try: what counts is what it has.
        refused = self._unwritable(answer)
        try:
            found = self.values(edit.ref for edit in edits)
        except RemoteError:
            raise refused from None
        if all(found[edit.ref] == edit.new for edit in edits):
            return
        if any(found[edit.ref] != edit.old for edit in edits):
            raise RemoteMoved(self.name, found)
        raise refused

    def noted(self, values: Mapping[str, str]) -> None:
        """Keep what the remote took as if it had been fetched; "" for a ref that is gone there."""
        git = self._repository.git
        own = side_ref(self._environment, "")
        for ref, new in values.items():
            beside = [remote_side_ref(self._environment, self.name, ref.removeprefix(own))]
            for tracking in [self._tracking, self._seen] if ref == self._branch else beside:
                if git.resolve(tracking) != new:
                    git.edit_refs([RefEdit(tracking, None, new)])

    def _follow(self, there: str) -> None:
        git = self._repository.git
        here = git.resolve(self._branch)
        if here == there:
            return
        if here and git.ask("merge-base", "--is-ancestor", here, there).code != 0:
            raise self._apart(here, there)
        if here:
            self._repository.require_not_checked_out(self._environment)
        try:
            git.edit_refs([RefEdit(self._branch, here, there)])
        except RefMoved:  # by another command of this clone, which came from the remote too
            if git.resolve(self._branch) != there:
                raise

    def _apart(self, here: str, there: str) -> RecordError:
        git, name = self._repository.git, self.name
        where = f"It is at {there[:12]} on {name} and at {here[:12]} here."
        if git.ask("merge-base", "--is-ancestor", there, here).code == 0:
            return RecordError(
                f"the record of {self._environment} on {name} ends before the one of this clone",
                detail=where,
                hint=f"Entries were taken away there, or never pushed. Push them: `git push {name} {self._branch}`.",
            )
        return RecordError(
            f"the record of {self._environment} on {name} is not the one that this clone has: history was rewritten",
            detail=where,
            hint=f"Find out who did it: `git log --first-parent {there[:12]}`, `… {here[:12]}`. When {name} is right: "
            f"`git update-ref {self._branch} {there}`; when this clone is: "
            f"`git push --force-with-lease={self._branch}:{there} {name} {self._branch}`.",
        )

    def _fetch(self, *refspecs: str) -> Answer:
        """Only what is asked for: no tags, none of the user's refspecs, no FETCH_HEAD, no housekeeping."""
        options = ("--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules")
        arguments = ("--quiet", *options, "--prune", "--refmap=", "--", self.name, *refspecs)
        answer = self._ask(FETCH_S, "fetch", *arguments)
        for pause in PATIENCE[:2]:
            if answer.code == 0 or not _PASSING.search(answer.said):
                break
            time.sleep(pause)
            answer = self._ask(FETCH_S, "fetch", *arguments)
        return answer

    def _ask(self, limit_s: float, *arguments: str) -> Answer:
        try:
            return self._repository.limited(limit_s).git.ask(*arguments)
        except OutOfTime as error:
            return Answer(_TIMED_OUT, b"", f"timed out: {error.summary}")

    def _unreadable(self, answer: Answer) -> RemoteError:
        summary = f"the record of {self._environment} cannot be fetched from the git remote {self.name}"
        hint = "`llmctl plan --offline` and `llmctl audit` show what this clone knows."
        return self._error(summary, answer, hint)

    def _unwritable(self, answer: Answer) -> RemoteError:
        return self._error(f"the git remote {self.name} did not take what was pushed", answer, "")

    def _error(self, summary: str, answer: Answer, hint: str) -> RemoteError:
        said = f"{answer.said}\n{_rejections(answer.output)}".strip()
        reason = self._reason(said)
        detail = "\n".join(said.splitlines()[-_SAID_LINES:])
        return RemoteError(summary, detail=detail, hint=f"{reason} {hint}".strip(), passing=bool(_PASSING.search(said)))

    def _reason(self, said: str) -> str:
        if not self._repository.git.line("config", "--get", f"remote.{self.name}.url", accept=(0, 1)):
            return (
                f"There is no git remote {self.name}: `git remote add {self.name} ADDRESS`, or name another one in "
                f"llmops.yaml: `record: {{remote: NAME}}` of {self._environment}, `none` for this clone alone."
            )
        if _NO_ACCESS.search(said):
            return f"{self.name} does not let you: whoever applies needs to read and write {self._refs()} there."
        if _DECLINED.search(said):
            return f"A rule or a hook of {self.name} refuses it: allow whoever applies to push {self._refs()} there."
        if _NOT_THERE.search(said):
            return f"There is no repository where {self.name} points to: look at `git remote -v`."
        return f"Can {self.name} be reached? Try `git ls-remote {self.name}`."

    def _refs(self) -> str:
        return f"llmctl/{self._environment} and {side_ref(self._environment, '*')}"


class Hold:
    """What the remote has of ours while we hold its lock. Not safe to use from several threads."""

    def __init__(self, remote: Remote, lock: str, there: Mapping[str, str]) -> None:
        self.remote = remote
        self._lock = lock  # its ref
        self._there = dict(there)
        self._unsettled: Sequence[RefEdit] = ()

    def know(self, there: Mapping[str, str]) -> None:
        """Take note of what was fetched since the lock is ours."""
        self._there.update(there)

    def value(self, ref: str) -> str:
        """What a ref is on the remote, "" for none."""
        return self._there.get(ref, "")

    def push(self, wanted: Mapping[str, str], patience: Sequence[float], until: float) -> None:
        """Give refs of the remote these values, "" deletes, all or none; the lock must be among them.

        Raises what ``Remote.push`` does.
        """
        self._settle()
        edits = [RefEdit(ref, self.value(ref), new) for ref, new in wanted.items() if self.value(ref) != new]
        self._unsettled = edits  # until its answer is here, which Ctrl-C can keep from us too
        try:
            self.remote.push(edits, patience, until)
        except RefMoved:
            self._unsettled = ()
            raise
        self._unsettled = ()
        self._note(edits)

    def lost(self, moved: RemoteMoved) -> bool:
        """Whether it is the lock that is no longer as we left it."""
        return moved.found.get(self._lock, self.value(self._lock)) != self.value(self._lock)

    def _settle(self) -> None:
        """Find out whether the last push, whose answer was lost, was made: each value of the lock is unique."""
        if not self._unsettled:
            return
        found = self.remote.values(edit.ref for edit in self._unsettled)
        made = [edit for edit in self._unsettled if edit.ref == self._lock and found[edit.ref] == edit.new]
        if not made and found[self._lock] != self.value(self._lock):
            raise RemoteMoved(self.remote.name, found)
        edits, self._unsettled = self._unsettled, ()
        if made:
            self._note(edits)

    def _note(self, edits: Sequence[RefEdit]) -> None:
        self._there.update((edit.ref, edit.new) for edit in edits)


def _rejections(output: bytes) -> str:
    """Why refs were refused, from what ``git push --porcelain`` prints: ``!``, the refs, the reason."""
    lines = (line.split("\t") for line in output.decode(errors="replace").splitlines())
    return "\n".join(f"{parts[1].rpartition(':')[2]}: {parts[2]}" for parts in lines if parts[0] == "!")
