"""Who may approve a plan, and which approvals count: real keys, real git, no engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmctl.app.approvals import (
    LASTS,
    Approved,
    Counted,
    approvable,
    approve,
    counted,
    require_approvals,
)
from llmctl.app.planning import nothing_desired, plan, plan_for
from llmctl.app.saved_plan import refuse_if_stale, with_base
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core.address import Address
from llmctl.core.errors import Denied, InvalidInput, RecordError, StalePlan
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import RecordState
from llmctl.plan import Plan, SavedPlan, Weakening, plan_digest, plan_json, read_plan, sealed
from llmctl.record import Attempt, open_repository
from llmctl.record.approvals import read_approvals, remove_approvals
from tests.people import Person, allowed, new_key
from tests.record.helpers import git
from tests.record.signing_keys import Keyring

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FILE = """\
apiVersion: llmctl/v1
project: acme
environments:
  dev: {{target: local, approvals: {approvals}{record}}}
prompts:
  hello:
    messages: [{{role: user, content: "{text} {{{{ question }}}}"}}]
    variables: {{question: string}}
"""


class World:
    """A project that dora wrote, people who may approve, and a bot that applies."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.root = folder / "project"
        self.people = {name: Person.make(folder / "people", name) for name in ("ann", "bob", "dora", "bot")}
        self.signers = allowed(folder / "signers", *((p.email, p.key) for p in self.people.values() if p.key))
        self.root.mkdir()
        git(self.root, "init", "-q", "-b", "main")
        self.write()
        self.commit("dora")

    def write(self, approvals: int = 2, text: str = "Hello", record: str = "") -> None:
        (self.root / "llmops.yaml").write_text(FILE.format(approvals=approvals, text=text, record=record))

    def commit(self, name: str, message: str = "change") -> str:
        with self.acting(name):
            git(self.root, "add", "-A")
            git(self.root, "commit", "-q", "--allow-empty", "-m", message)
        return git(self.root, "rev-parse", "HEAD")

    @contextmanager
    def acting(self, name: str) -> Iterator[None]:
        with self._monkeypatch.context() as patch:
            for variable, value in self.people[name].variables().items():
                patch.setenv(variable, value)
            yield

    def workspace(self) -> Workspace:
        return open_workspace(str(self.root / "llmops.yaml"), None)

    def made(self, name: str = "bot") -> Plan:
        with self.acting(name):
            return plan(self.workspace())

    def saved(self, made: Plan | None = None) -> SavedPlan:
        path = self.folder / "plan.json"
        path.write_text(json.dumps(sealed(plan_json(made or self.made()))))
        return read_plan(path)

    def approve(self, name: str, made: Plan | None = None, lasts: timedelta = LASTS, now: datetime = NOW) -> Approved:
        with self.acting(name):
            return approve(self.workspace(), self.saved(made), lasts, now)

    def count(self, name: str = "bot", now: datetime = NOW, made: Plan | None = None) -> Counted:
        with self.acting(name):
            workspace = self.workspace()
            return counted(workspace, made or plan(workspace), self.signers, now)

    def given(self, name: str = "bot", now: datetime = NOW) -> list[str]:
        return [approval.signer for approval in self.count(name, now).given]

    def refusal(self, name: str = "bot", now: datetime = NOW) -> str:
        found = self.count(name, now)
        assert found.given == ()
        assert len(found.refused) == 1, found
        return found.refused[0]

    def trust(self, *more: tuple[str, Path]) -> None:
        known = [(p.email, p.key) for p in self.people.values() if p.key]
        allowed(self.signers, *known, *more)

    def record(self, action: str, **decided: object) -> None:
        """An entry of that action, as if it had been applied."""
        with self.acting("bot"):
            workspace = self.workspace()
            repository = workspace.repository
            attempt = Attempt.begin(
                repository,
                "dev",
                workspace.recorded(),
                fence=workspace.recorded().serial + 1,
                action=action,  # type: ignore[arg-type]
                plan_digest="",
                source_commit=repository.head_commit(),
                project="acme",
                actor=repository.actor(),
            )
            attempt.close("applied", subject=action, decisions={"action": action, **decided}, rejections=())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LLMCTL_ENV", "LLMCTL_FILE", "LLMCTL_ALLOWED_SIGNERS", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    return World(tmp_path, monkeypatch)


def test_others_approve_and_the_record_can_prove_it(world: World) -> None:
    assert world.count().consent.missing == 2
    first, second = world.approve("ann"), world.approve("bob")
    found = world.count()
    assert {a.signer: (a.key, a.plan, a.expires) for a in found.given} == {
        "ann@example.org": (first.key, plan_digest(world.made()), "2026-11-28T12:00:00Z"),
        "bob@example.org": (second.key, plan_digest(world.made()), "2026-11-28T12:00:00Z"),
    }
    assert found.consent.missing == 0
    raw = git(world.root, "cat-file", "commit", first.ref) + "\n"
    assert found.given[0].signed in (raw, git(world.root, "cat-file", "commit", second.ref) + "\n")
    assert "Llmctl-Seal: sha256:" in raw
    require_approvals(world.made(), found, None, "")


def test_who_applies_does_not_approve(world: World) -> None:
    world.approve("bot")
    assert "it is by who applies" in world.refusal()
    world.approve("ann")
    assert world.given("ann") == ["bot@example.org"], "the same two, when ann applies"


def test_who_applies_does_not_approve_with_another_key_of_theirs(world: World) -> None:
    bot = world.people["bot"]
    other = new_key(bot.home, "other")
    world.trust((bot.email, other))
    bot.use(other)
    world.approve("bot")
    assert bot.key
    bot.use(bot.key)
    assert "it is by who applies" in world.refusal()


def test_who_applies_does_not_approve_under_another_name(world: World) -> None:
    """The key is the same, and the allowed signers name it twice."""
    bot = world.people["bot"]
    assert bot.key
    allowed(world.signers, ("robot@example.org", bot.key))
    robot = Person.make(world.folder / "people", "robot", signs=False)
    robot.use(bot.key)
    world.people["robot"] = robot
    world.approve("robot")
    assert "it is by who applies" in world.refusal()
    assert world.given("ann") == ["robot@example.org"]


def test_an_author_or_co_author_of_the_change_does_not_approve(world: World) -> None:
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD"))
    world.write(text="Good day")
    world.commit("ann", "greet\n\nCo-authored-by: Bob <BOB@example.org>")
    for name in ("ann", "bob", "dora"):
        world.approve(name)
    found = world.count()
    assert [a.signer for a in found.given] == ["dora@example.org"]
    assert {text.rpartition(": ")[2] for text in found.refused} == {
        f"{name}@example.org is an author of the change" for name in ("ann", "bob")
    }


def test_who_merges_is_no_author(world: World) -> None:
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD"))
    git(world.root, "switch", "-q", "-c", "feature")
    world.write(text="Good day")
    world.commit("dora")
    git(world.root, "switch", "-q", "main")
    with world.acting("ann"):
        git(world.root, "merge", "-q", "--no-ff", "-m", "merge", "feature")
    world.approve("ann")
    world.approve("dora")
    assert world.given() == ["ann@example.org"]


def test_an_entry_without_a_plan_does_not_make_an_author_a_stranger_to_the_change(world: World) -> None:
    """`llmctl unreject` needs no approval, and records the commit that it was run on."""
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD"))
    world.write(text="Good day")
    world.commit("ann")
    world.record("unreject")
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD~1"))  # it failed, or left things out
    world.approve("ann")
    assert "is an author of the change" in world.refusal()


def test_a_stranger_does_not_count(world: World) -> None:
    world.people["eve"] = Person.make(world.folder / "people", "eve")
    world.approve("eve")
    assert "eve@example.org" in world.refusal()
    assert "the signer is no allowed signer" in world.refusal()


def test_the_name_of_another_in_a_commit_proves_nothing(world: World) -> None:
    """Eve says that she is Ann, and puts her approval where Ann's would be."""
    world.approve("ann")
    before = read_approvals(open_repository(world.root), "dev")[0]
    eve = Person.make(world.folder / "people", "eve")
    world.people["eve"] = eve
    for setting, value in (("user.name", "Ann"), ("user.email", "ann@example.org")):
        eve.configure(setting, value)
    forged = world.approve("eve")
    git(world.root, "update-ref", before.ref, forged.ref)
    git(world.root, "update-ref", "-d", forged.ref)
    assert "the signer is no allowed signer" in world.refusal()


@pytest.mark.parametrize("change", ["unsigned", "edited"])
def test_what_is_not_signed_so_does_not_count(world: World, change: str) -> None:
    found = world.approve("ann")
    if change == "unsigned":
        message = git(world.root, "log", "-1", "--format=%B", found.ref)
        tree = git(world.root, "rev-parse", f"{found.ref}^{{tree}}")
        with world.acting("ann"):
            forged = git(world.root, "commit-tree", "-F", "-", tree, stdin=message.encode())
    else:
        raw = git(world.root, "cat-file", "commit", found.ref).replace("2026-11-28", "2036-11-28") + "\n"
        forged = git(world.root, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=raw.encode())
    git(world.root, "update-ref", found.ref, forged)
    assert {"unsigned": "it is not signed", "edited": "its signature is wrong"}[change] in world.refusal()


def test_an_approval_expires(world: World) -> None:
    world.approve("ann", lasts=timedelta(hours=1))
    assert world.given(now=NOW + timedelta(minutes=59)) == ["ann@example.org"]
    assert "it expired on 2026-11-21T13:00:00Z" in world.refusal(now=NOW + timedelta(hours=1))
    world.approve("ann", lasts=timedelta(days=2))
    assert world.given(now=NOW + timedelta(hours=1)) == ["ann@example.org"], "approved again"
    assert len(read_approvals(open_repository(world.root), "dev")) == 1


def test_a_key_that_does_not_count_any_more_does_not_help_by_an_old_date(world: World) -> None:
    """The commit of an approval may name any time; whose key ended cannot approve as if it were earlier."""
    ann = world.people["ann"]
    assert ann.key
    line = ann.key.with_suffix(".pub").read_text()
    world.signers.write_text(f'ann@example.org valid-before="20500101",namespaces="git" {line}')
    world.approve("ann")
    assert world.given() == ["ann@example.org"]
    assert "did not count any more" in world.refusal(now=NOW + timedelta(days=9999))


def test_a_revoked_key_does_not_count(world: World) -> None:
    ann = world.people["ann"]
    assert ann.key
    world.approve("ann")
    gone = world.folder / "revoked"
    gone.write_text(ann.key.with_suffix(".pub").read_text())
    git(world.root, "config", "gpg.ssh.revocationFile", str(gone))
    assert "the key is revoked" in world.refusal()


def test_one_person_counts_once(world: World) -> None:
    ann = world.people["ann"]
    world.approve("ann")
    second = new_key(ann.home, "second")
    world.trust((ann.email, second))
    ann.use(second)
    world.approve("ann")
    found = world.count()
    assert [a.signer for a in found.given] == ["ann@example.org"]
    assert "the same person approved it already" in found.refused[0]


def test_a_pattern_names_nobody(world: World) -> None:
    ann = world.people["ann"]
    assert ann.key
    allowed(world.signers, ("*@example.org", ann.key))
    world.approve("ann")
    assert "name nobody for that key" in world.refusal()


@pytest.mark.parametrize(("field", "said"), [("Environment", "environment prod"), ("Project", "it is for other")])
def test_an_approval_is_for_one_place(world: World, field: str, said: str) -> None:
    found = world.approve("ann")
    message = git(world.root, "log", "-1", "--format=%B", found.ref)
    value = {"Environment": "dev", "Project": "acme"}[field]
    message = message.replace(
        f"Llmctl-{field}: {value}", f"Llmctl-{field}: {'prod' if field == 'Environment' else 'other'}"
    )
    tree = git(world.root, "rev-parse", f"{found.ref}^{{tree}}")
    with world.acting("ann"):
        signed = git(world.root, "commit-tree", "-S", "-F", "-", tree, stdin=message.encode())
    git(world.root, "update-ref", found.ref, signed)
    assert said in world.refusal()


def test_a_changed_plan_withdraws_its_approvals(world: World) -> None:
    world.approve("ann")
    world.approve("bob")
    world.write(text="Good day")
    found = world.count()
    assert (found.given, found.refused, len(found.others)) == ((), (), 2)
    with pytest.raises(Denied) as denied:
        require_approvals(world.made(), found, None, " -e dev")
    assert denied.value.exit_code == 3
    assert denied.value.summary == "2 approvals of this plan are missing: it needs 2 and has 0"
    assert "for another plan of this environment: ann@example.org approved sha256:" in denied.value.detail
    assert "llmctl plan --out plan.json -e dev" in denied.value.hint


def test_what_rules_of_another_revision_said_is_approved_with_the_plan(world: World) -> None:
    """Who applies has not got the revision of --base: the file alone knows what stood against the plan."""
    made = world.made()
    result = PolicyResult("open", "deny", Address("prompt", "hello"), False, "no", basis="base")
    weaker = Weakening(Address("gate", "faq"), ("min 0.9 → 0.5",), "main")
    saved = world.saved(replace(made, policies=(result,), weakened=(weaker,)))
    again = with_base(made, saved)
    assert (again.policies, again.weakened) == ((result,), (weaker,))
    refuse_if_stale(Path("plan.json"), saved, again)
    with world.acting("ann"):
        approve(world.workspace(), saved, LASTS, NOW)
    assert [a.signer for a in world.count(made=again).given] == ["ann@example.org"]
    edited = with_base(made, world.saved(made))  # the refusal was cut out of the file, and its digests were made anew
    found = world.count(made=edited)
    assert (found.given, len(found.others)) == ((), 1)


def test_a_plan_of_other_rules_is_stale_and_says_why(world: World) -> None:
    made = world.made()
    saved = world.saved(replace(made, impact=("nothing happens",)))
    with pytest.raises(StalePlan) as stale:
        refuse_if_stale(Path("plan.json"), saved, made)
    assert stale.value.detail == "its impact: not as it was planned"


def test_where_nobody_says_whose_keys_count_none_does(world: World) -> None:
    world.approve("ann")
    with world.acting("bot"):
        workspace = world.workspace()
        found = counted(workspace, plan(workspace), None, NOW)
    assert (found.given, found.nobody) == ((), True)
    with pytest.raises(Denied) as denied:
        require_approvals(world.made(), found, None, "")
    assert "gpg.ssh.allowedSignersFile" in denied.value.hint


def test_the_settings_of_who_applies_name_the_signers(world: World) -> None:
    world.approve("ann")
    world.people["bot"].configure("gpg.ssh.allowedSignersFile", str(world.signers))
    with world.acting("bot"):
        workspace = world.workspace()
        assert [a.signer for a in counted(workspace, plan(workspace), None, NOW).given] == ["ann@example.org"]


def test_the_project_does_not_say_whose_keys_count(world: World) -> None:
    inside = world.root / "signers"
    inside.write_text(world.signers.read_text())
    for named in (inside, None):
        git(world.root, "config", "gpg.ssh.allowedSignersFile", "signers")
        with world.acting("bot"), pytest.raises(InvalidInput, match="lie in the work tree"):
            counted(world.workspace(), world.made(), named, NOW)


def test_to_lower_the_number_needs_as_many_as_before_once_more(world: World) -> None:
    world.record("apply", approvals={"required": 2, "declared": 2, "given": []}, applied_source="")
    world.write(approvals=0, text="Good day")
    world.commit("dora")
    found = world.count()
    assert (found.required, found.declared) == (2, 0)
    with pytest.raises(Denied, match="it needs 2 and has 0") as denied:
        require_approvals(world.made(), found, None, "")
    assert "The file asks for 0; 2 were needed before" in denied.value.detail


def test_an_empty_plan_needs_none(world: World) -> None:
    made = world.made()
    empty = replace(made, steps=(), changes=())
    assert world.count(made=empty).consent.missing == 0
    with world.acting("ann"), pytest.raises(InvalidInput, match="does nothing"):
        approvable(world.workspace(), Path("plan.json"), world.saved(empty))


def test_a_plan_for_elsewhere_an_offline_one_and_an_old_one_are_not_approved(world: World) -> None:
    made, file = world.made(), Path("plan.json")
    with world.acting("ann"):
        workspace = world.workspace()
        with pytest.raises(InvalidInput, match="is an offline plan"):
            approvable(workspace, file, world.saved(replace(made, offline=True)))
        other = replace(made, desired=replace(made.desired, project="other"))
        with pytest.raises(InvalidInput, match="is a plan for other, environment dev"):
            approvable(workspace, file, world.saved(other))
    saved = world.saved(made)
    world.record("apply")
    with world.acting("ann"), pytest.raises(StalePlan, match=r"plan\.json is stale"):
        approvable(world.workspace(), file, saved)


def test_without_a_key_nothing_is_approved(world: World) -> None:
    world.people["carl"] = Person.make(world.folder / "people", "carl", signs=False)
    world.people["carl"].configure("gpg.format", "ssh")
    with pytest.raises(RecordError, match="could not be signed"):
        world.approve("carl")
    assert read_approvals(open_repository(world.root), "dev") == []


def test_openpgp_keys_approve_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = Keyring(world.folder / "g")
    try:
        key = ring.make("Gil <gil@example.org>")
        gil = Person.make(world.folder / "people", "gil", signs=False)
        gil.configure("gpg.format", "openpgp")
        gil.configure("user.signingkey", key)
        world.people["gil"] = gil
        world.signers.write_text(world.signers.read_text() + f"# openpgp: gil@example.org {key}\n")
        monkeypatch.setenv("GNUPGHOME", str(ring.home))
        found = world.approve("gil")
        assert found.ref.endswith(f"/openpgp-{key.lower()}")
        public = ring.run("--armor", "--export", key).encode()
        assert "it is by who applies" in world.refusal(), "whose keyring has the secret key"
        others = Keyring(world.folder / "h")
        try:
            others.run("--import", stdin=public)
            monkeypatch.setenv("GNUPGHOME", str(others.home))
            assert world.given() == ["gil@example.org"]
        finally:
            others.end()
    finally:
        ring.end()


def test_an_approval_travels_by_the_remote_and_goes_when_its_plan_is_closed(world: World) -> None:
    bare = world.folder / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    git(world.root, "remote", "add", "origin", str(bare))
    world.write(record=", record: {remote: origin}")
    world.commit("dora")
    git(world.root, "push", "-q", "origin", "main")
    clone = world.folder / "clone"
    git(world.folder, "clone", "-q", str(bare), str(clone))
    made, here = world.made(), world.root
    world.root = clone
    assert plan_digest(world.made("ann")) == plan_digest(made), "the same plan in another clone"
    found = world.approve("ann", made)
    assert found.pushed
    world.approve("ann", made, lasts=timedelta(days=8))  # again: in place of the first
    assert git(bare, "for-each-ref", "--format=%(refname)", "refs/llmctl") == found.ref
    world.root = here
    assert world.given() == ["ann@example.org"]
    assert read_approvals(open_repository(here), "dev") == [], "it is known by what was fetched alone"
    with world.acting("bot"):
        remove_approvals(world.workspace().repository, "dev")
    assert git(bare, "for-each-ref", "refs/llmctl") == ""


def test_a_remote_that_is_away_is_told_and_the_approval_stays(world: World) -> None:
    bare = world.folder / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    git(world.root, "remote", "add", "origin", str(bare))
    world.write(record=", record: {remote: origin}")
    made = world.made()
    bare.rename(world.folder / "away.git")
    with pytest.raises(RecordError, match="the approval is signed, and origin has not got it") as error:
        world.approve("ann", made)
    assert "git push origin refs/llmctl/dev/approvals/" in error.value.hint
    assert [a.plan for a in read_approvals(open_repository(world.root), "dev")] == [plan_digest(made)]


def test_all_are_cleared_away_once_an_entry_is_made(world: World) -> None:
    world.approve("ann")
    world.write(text="Good day")
    world.approve("bob")
    repository = open_repository(world.root)
    assert len(read_approvals(repository, "dev")) == 2
    remove_approvals(repository, "dev")
    assert read_approvals(repository, "dev") == []


def test_refs_that_are_no_approvals_are_left_aside(world: World) -> None:
    blob = git(world.root, "hash-object", "-w", "--stdin", stdin=b"nonsense")
    for name, there in (("a/b", blob), ("c/d", git(world.root, "rev-parse", "HEAD"))):
        git(world.root, "update-ref", f"refs/llmctl/dev/approvals/{name}", there)
    assert read_approvals(open_repository(world.root), "dev") == []
    assert world.count().refused == ()


def test_a_record_that_is_not_there_asks_for_what_the_file_asks(world: World) -> None:
    assert world.made().recorded == RecordState("dev")
    assert world.count().required == 2


def test_a_commit_that_somebody_signed_for_another_end_is_no_approval(world: World) -> None:
    """Ann picks a commit of a stranger, whose text says that it approves the plan."""
    world.people["eve"] = Person.make(world.folder / "people", "eve", signs=False)
    world.write(text="Good day")
    world.commit("dora")
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD"))
    message = git(world.root, "log", "-1", "--format=%B", world.approve("bob").ref)
    git(world.root, "switch", "-q", "-c", "side")
    world.commit("eve", message)
    git(world.root, "switch", "-q", "-c", "picked", "main")
    with world.acting("ann"):
        git(world.root, "cherry-pick", "--allow-empty", "-S", "side")
    git(world.root, "switch", "-q", "main")
    git(world.root, "update-ref", "refs/llmctl/dev/approvals/a/b", "picked")
    assert world.given() == ["bob@example.org"]


def test_who_writes_in_a_merge_is_an_author(world: World) -> None:
    world.record("apply", applied_source=git(world.root, "rev-parse", "HEAD"))
    git(world.root, "switch", "-q", "-c", "feature")
    world.write(text="Good day")
    world.commit("dora")
    git(world.root, "switch", "-q", "main")
    with world.acting("ann"):
        git(world.root, "merge", "-q", "--no-ff", "--no-commit", "feature")
        world.write(text="Go away")
        git(world.root, "commit", "-q", "-a", "-m", "merge")
    world.approve("ann")
    assert "ann@example.org is an author of the change" in world.refusal()


@pytest.mark.parametrize("way", ["file", "link", "folder", "link to a link"])
def test_a_change_cannot_lead_the_allowed_signers_elsewhere(world: World, way: str) -> None:
    """What lies outside of the work tree is reached over a link in it, which a change can turn."""
    world.approve("ann")
    inner = world.root / "signers"
    named = inner
    if way == "file":
        inner.write_text(world.signers.read_text())
    elif way == "folder":
        inner.symlink_to(world.folder)
        named = inner / world.signers.name
    else:
        inner.symlink_to(Path("..") / world.signers.name)
    if way == "link to a link":
        named = world.folder / "outside"
        named.symlink_to(inner)
    assert world.given() == ["ann@example.org"]
    world.signers = named
    with pytest.raises(InvalidInput, match="lie in the work tree"):
        world.count()


def test_a_destroy_needs_approvals_also_where_nothing_is_recorded(world: World) -> None:
    """`llmctl state rm` forgets what runs, and asks for no approval; what runs then is destroyed all the same."""
    with world.acting("bot"):
        workspace = world.workspace()
        made = plan_for(workspace, nothing_desired(workspace), action="destroy")
    assert made.is_empty
    assert world.count(made=made).required == 2
    world.approve("ann", made)
    assert [a.signer for a in world.count(made=made).given] == ["ann@example.org"]
    approvable(world.workspace(), world.folder / "plan.json", world.saved(made))
