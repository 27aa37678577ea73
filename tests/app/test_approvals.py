"""Whose approvals count: real keys, real git, no engine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from llmctl.app.approvals import (
    counted,
    require_approvals,
)
from llmctl.app.planning import plan
from llmctl.core.errors import Denied, InvalidInput, RecordError
from llmctl.plan import plan_digest
from llmctl.record import open_repository
from llmctl.record.approvals import read_approvals
from tests.app.approving import NOW, World
from tests.people import Person, allowed, new_key
from tests.record.helpers import git
from tests.record.signing_keys import Keyring


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
