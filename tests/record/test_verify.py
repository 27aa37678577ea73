"""Every way to tamper with a record that can be told, and the ones that cannot be told without an anchor."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmctl.core.digests import Json, pretty_json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Verdict
from llmctl.record import Reader, Repository, Verification, open_repository, verify
from llmctl.record.layout import evidence_path
from llmctl.record.objects import list_files
from llmctl.record.signers import Signers
from llmctl.record.tree import Tree
from llmctl.record.verifying.signing import Demand
from llmctl.record.writing import Batch, add_commit, store
from tests.record.helpers import (
    BRANCH,
    ENV,
    apply,
    begin,
    evidence,
    git,
    judge,
    llmctl_refs,
    make_repository,
    prove,
    put,
    recorded,
)

PROVEN = evidence()
EVIDENCE = evidence_path(PROVEN)
ANSWER = "resources/prompt/answer.json"


@dataclass
class Old:
    """One commit while history is rewritten: files and text can be changed, or the commit left out."""

    subject: str
    message: str
    files: dict[str, bytes]
    dropped: bool = False
    before: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)  # commits to put in: text, files

    def edit(self, path: str, change: Callable[[Json], None]) -> None:
        value = json.loads(self.files[path])
        change(value)
        self.files[path] = pretty_json(value).encode()


def rewrite(repository: Repository, folder: Path, edit: Callable[[Old], None]) -> None:
    """Write the whole history again, consistently, with ``edit`` applied to each commit."""
    new: dict[str, str] = {}
    lines = git(folder, "rev-list", "--topo-order", "--reverse", "--parents", BRANCH).split("\n")
    for name, *parents in (line.split() for line in lines):
        message = git(folder, "log", "-1", "--format=%B", name) + "\n"
        files = {p: cat(folder, blob) for p, blob in list_files(repository, name).items()}
        old = Old(message.split("\n")[0], message, files)
        edit(old)
        mapped = [new[p] for p in parents]
        for text, extra in old.before:
            mapped = [write(repository, extra, mapped[:1], text), *mapped[1:]]
        new[name] = mapped[0] if old.dropped else write(repository, old.files, mapped, old.message)
    git(folder, "update-ref", BRANCH, new[git(folder, "rev-parse", BRANCH)])


def cat(folder: Path, blob: str) -> bytes:
    return subprocess.run(["git", "cat-file", "blob", blob], cwd=folder, capture_output=True, check=True).stdout


def write(repository: Repository, files: dict[str, bytes], parents: list[str], message: str) -> str:
    batch, tree = Batch(repository.algorithm), Tree()
    for path, data in files.items():
        tree.put(path, batch.add("blob", data))
    commit = add_commit(repository, batch, tree.write(batch), parents, message)
    store(repository, batch)
    return commit


@pytest.fixture
def record(repository: Repository) -> Repository:
    """Four entries: two changes and evidence; a change; a failed attempt without changes; a change."""
    apply(repository, put(recorded("prompt.answer")), prove(PROVEN), put(recorded("route.support")), subject="One")
    apply(repository, put(recorded("prompt.answer", "two", 2)), subject="Two", fence=2)
    begin(repository, fence=3).close("failed", subject="Three", decisions={}, rejections=())
    apply(repository, put(recorded("prompt.answer", "four", 3)), put(recorded("model.m")), subject="Four", fence=4)
    return repository


def check(repository: Repository, expect_head: str | None = None) -> Verification:
    return verify(repository, ENV, expect_head=expect_head, judge=judge)


def test_an_untouched_record_is_green(record: Repository, folder: Path) -> None:
    result = check(record)
    assert result.findings == ()
    assert result.ok
    assert (result.commits, result.entries, result.evidence) == (11, 4, 1)
    assert result.head == git(folder, "rev-parse", BRANCH)
    assert result.anchor == "unanchored"
    assert check(record, result.head).anchor == "expected head"


def test_rewriting_without_a_change_stays_green(record: Repository, folder: Path) -> None:
    head = git(folder, "rev-parse", BRANCH)
    rewrite(record, folder, lambda old: setattr(old, "dropped", False))
    assert check(record).ok
    rewrite(record, folder, lambda old: setattr(old, "message", old.message.replace("ci-42", "ci-43")))
    assert check(record).ok  # consistently rewritten unsigned history cannot be told …
    assert check(record).anchor == "unanchored"
    (finding,) = check(record, head).findings  # … except by its head
    assert f"expected was {head}" in finding.reason


@pytest.mark.usefixtures("record")
def test_a_plain_clone_can_be_verified(folder: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(folder), "clone")
    git(tmp_path / "clone", "remote", "set-url", "origin", "/nowhere")
    result = check(open_repository(tmp_path / "clone"), git(folder, "rev-parse", BRANCH))
    assert result.ok
    assert result.entries == 4


def evidence_byte(old: Old) -> None:
    if EVIDENCE in old.files:
        old.files[EVIDENCE] = old.files[EVIDENCE].replace(b'"lower": 0.97', b'"lower": 0.98')


def evidence_space(old: Old) -> None:
    if EVIDENCE in old.files:
        old.files[EVIDENCE] = old.files[EVIDENCE].replace(b'"lower": 0.97', b'"lower": 0.970')


def threshold(old: Old) -> None:
    if EVIDENCE in old.files:
        old.edit(EVIDENCE, lambda e: e["judgements"][0].update(threshold=0.5))


def evidence_unreadable(old: Old) -> None:
    if EVIDENCE in old.files:
        old.files[EVIDENCE] = b"{"


def evidence_later(old: Old) -> None:
    if old.subject == "Create model.m v1" or old.subject == "Four":
        old.edit(EVIDENCE, lambda e: e.update(samples=10_000))


def evidence_removed(old: Old) -> None:
    if old.subject in ("Create model.m v1", "Four"):
        del old.files[EVIDENCE]


def evidence_absent(old: Old) -> None:
    old.files.pop(EVIDENCE, None)


def gate_claimed(old: Old) -> None:
    if old.subject == "Two":
        old.message += f"Llmctl-Gate: tone PASS {PROVEN.digest}\n"


def gate_garbled(old: Old) -> None:
    if old.subject == "Two":
        old.message += "Llmctl-Gate: all good\n"


def gate_verdict(old: Old) -> None:
    old.message = old.message.replace("faq PASS", "faq FAIL")


def gate_not_repeated(old: Old) -> None:
    if old.subject == "One":
        old.message = "\n".join(line for line in old.message.split("\n") if "Llmctl-Gate" not in line)


def gate_trailer_taken_away(old: Old) -> None:
    old.message = "\n".join(line for line in old.message.split("\n") if "Llmctl-Gate" not in line)


def change_dropped(old: Old) -> None:
    old.dropped = old.subject == "Create prompt.answer v3"


def last_change_dropped(old: Old) -> None:
    old.dropped = old.subject == "Create model.m v1"


def entry_dropped(old: Old) -> None:
    old.dropped = old.subject == "Three"


def first_entry_dropped(old: Old) -> None:
    old.dropped = old.subject == "One"


def change_inserted(old: Old) -> None:
    if old.subject == "Create model.m v1":
        old.before.append(("Just a small fix\n", {**old.files, "resources/prompt/answer.json": b"{}"}))


def entry_inserted(old: Old) -> None:
    if old.subject == "Four":
        files = {p: d for p, d in old.files.items() if p != "resources/model/m.json"}
        old.before.append(("By hand\n", files))


def resource_without_trailer(old: Old) -> None:
    if old.subject == "Create model.m v1" or old.subject == "Four":
        old.edit("resources/route/support.json", lambda r: r["spec"].update(limit=0))


def resource_in_the_merge(old: Old) -> None:
    if old.subject == "Four":
        old.edit(ANSWER, lambda r: r["spec"].update(temperature=2))


def resource_not_pretty(old: Old) -> None:
    if ANSWER in old.files:
        old.files[ANSWER] = json.dumps(json.loads(old.files[ANSWER])).encode()


def resource_renamed(old: Old) -> None:
    if ANSWER in old.files:
        old.edit(ANSWER, lambda r: r.update(name="other"))


def foreign_file(old: Old) -> None:
    if old.subject in ("Create model.m v1", "Four"):
        old.files["README.md"] = b"hello"


def serial_gap(old: Old) -> None:
    old.message = old.message.replace("Llmctl-Serial: 4", "Llmctl-Serial: 5")


def state_serial(old: Old) -> None:
    if old.subject == "Four":
        old.edit("state.json", lambda s: s.update(serial=3))


def state_outcome(old: Old) -> None:
    if old.subject == "Three":
        old.edit("state.json", lambda s: s.update(outcome="applied"))


def state_source(old: Old) -> None:
    if old.subject == "Four":
        old.edit("state.json", lambda s: s.update(source_commit="0" * 40))


def state_fence(old: Old) -> None:
    if old.subject == "Four":
        old.edit("state.json", lambda s: s.update(fence=1))


def state_unreadable(old: Old) -> None:
    if old.subject == "Four":
        old.files["state.json"] = b"[]"


def state_of_a_newer_llmctl(old: Old) -> None:
    if old.subject == "Four":
        old.edit("state.json", lambda s: s.update(format=2))


def decisions_changed(old: Old) -> None:
    if old.subject in ("Two", "Three", "Four"):
        old.edit("decisions/1.json", lambda d: d.update(policies=["waived"]))


def decisions_absent(old: Old) -> None:
    if old.subject == "Four":
        del old.files["decisions/4.json"]


def beginning_cut_off(old: Old) -> None:
    if old.subject == "Begin the record of dev":
        old.message = "Fresh start\n"


TABLE: list[tuple[Callable[[Old], None], str, str]] = [
    # what is done to history, the subject of the commit that must be named, what must be said
    (evidence_byte, "Gate faq: PASS", "not what its name says"),
    (evidence_space, "Gate faq: PASS", "not what its name says"),
    (threshold, "Gate faq: PASS", "not what its name says"),
    (evidence_unreadable, "Gate faq: PASS", "cannot be read"),
    (evidence_later, "Create model.m v1", "changes evidence that was recorded before"),
    (evidence_removed, "Create model.m v1", "removes evidence that was recorded before"),
    (evidence_absent, "Gate faq: PASS", "claims gate faq PASS, but the evidence is absent"),
    (gate_claimed, "Two", "claims gate tone PASS, but the evidence is absent"),
    (gate_garbled, "Two", "trailer cannot be read"),
    (gate_verdict, "Gate faq: PASS", "claims gate faq FAIL, but the evidence says PASS"),
    (gate_not_repeated, "One", "does not repeat the gate result"),
    (gate_trailer_taken_away, "Gate faq: PASS", "without a Llmctl-Gate trailer"),
    (change_dropped, "Create model.m v1", "changes prompt.answer without a Llmctl-Resource trailer"),
    (last_change_dropped, "Four", "an entry may not change resources/model/m.json"),
    (entry_dropped, "Four", "has serial 4 after 2"),
    (first_entry_dropped, "Two", "has serial 2 after 0"),
    (change_inserted, "Just a small fix", "is no change of entry 4"),
    (entry_inserted, "By hand", "is no entry that llmctl made"),
    (resource_without_trailer, "Create model.m v1", "changes route.support without a Llmctl-Resource trailer"),
    (resource_in_the_merge, "Four", f"an entry may not change {ANSWER}"),
    (resource_not_pretty, "Create prompt.answer v1", "is not as llmctl writes it"),
    (resource_renamed, "Create prompt.answer v1", "holds another resource"),
    (foreign_file, "Create model.m v1", "changes README.md, which no change may touch"),
    (serial_gap, "Four", "has serial 5 after 3"),
    (state_serial, "Four", "state.json says serial 3"),
    (state_outcome, "Three", "state.json says outcome 'applied', the entry 'failed'"),
    (state_source, "Four", "state.json says source commit"),
    (state_fence, "Four", "fencing token 1 is lower than 3"),
    (state_unreadable, "Four", "state.json in the record cannot be read"),
    (state_of_a_newer_llmctl, "Four", "newer llmctl"),
    (decisions_changed, "Two", "an entry may not change decisions/1.json"),
    (decisions_absent, "Four", "does not bring decisions/4.json"),
    (beginning_cut_off, "Fresh start", "what came before was cut off"),
]


@pytest.mark.parametrize(("edit", "subject", "reason"), TABLE, ids=[edit.__name__ for edit, _, _ in TABLE])
def test_tampering_is_red_and_names_the_commit(
    record: Repository, folder: Path, edit: Callable[[Old], None], subject: str, reason: str
) -> None:
    rewrite(record, folder, edit)
    result = check(record)
    assert not result.ok
    said = [(git(folder, "log", "-1", "--format=%s", f.commit), f.reason) for f in result.findings]
    assert any(who == subject and reason in what for who, what in said), said
    assert all(f.anchor == "unanchored" for f in result.findings)


def test_a_threshold_edited_with_all_names_made_to_fit(record: Repository, folder: Path) -> None:
    forged = evidence(threshold=0.99)

    def forge(old: Old) -> None:
        if old.files.pop(EVIDENCE, None):
            old.files[evidence_path(forged)] = pretty_json(forged.to_json()).encode()
        old.message = old.message.replace(PROVEN.digest, forged.digest)

    rewrite(record, folder, forge)
    (finding,) = check(record).findings
    assert "exact_match: PASS is not what 0.97 against 0.99 gives" in finding.reason
    assert git(folder, "log", "-1", "--format=%s", finding.commit) == "Gate faq: PASS"


def test_a_truncated_record_against_the_expected_head(record: Repository, folder: Path) -> None:
    head = git(folder, "rev-parse", BRANCH)
    git(folder, "update-ref", BRANCH, f"{BRANCH}~1")
    assert check(record).ok  # nothing tells, without an anchor
    (finding,) = check(record, head).findings
    assert head in finding.reason
    git(folder, "update-ref", "-d", BRANCH)
    (finding,) = check(record, head).findings
    assert "ends at nothing" in finding.reason
    (finding,) = check(record).findings
    assert "no record of dev" in finding.reason


def test_an_object_replaced_in_place_breaks_the_hash_chain(record: Repository, folder: Path) -> None:
    blob = git(folder, "rev-parse", f"{BRANCH}:{ANSWER}")
    data = cat(folder, blob).replace(b"four", b"five")
    path = folder / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.write_bytes(zlib.compress(b"blob %d\0" % len(data) + data))
    (finding,) = check(record).findings
    assert f"object {blob} is not what its id says" in finding.reason
    assert git(folder, "log", "-1", "--format=%s", finding.commit) == "Create prompt.answer v3"


def test_replace_refs_do_not_fool_it(record: Repository, folder: Path) -> None:
    old = git(folder, "rev-parse", BRANCH)
    rewrite(record, folder, serial_gap)
    forged = git(folder, "rev-parse", BRANCH)
    git(folder, "replace", forged, old)
    assert not check(record).ok


def test_an_attempt_that_starts_elsewhere(record: Repository, folder: Path) -> None:
    attempt = git(folder, "rev-parse", f"{BRANCH}^2")
    root = write(record, {}, [], "root\n")
    tip = root
    for commit in git(folder, "rev-list", "--reverse", attempt, f"^{BRANCH}^1").split():
        tree, message = git(folder, "rev-parse", f"{commit}^{{tree}}"), git(folder, "log", "-1", "--format=%B", commit)
        tip = git(folder, "commit-tree", tree, "-p", tip, "-F", "-", stdin=message.encode())
    message = git(folder, "log", "-1", "--format=%B", BRANCH)
    arguments = ("-p", f"{BRANCH}^1", "-p", tip, "-F", "-")
    entry = git(folder, "commit-tree", f"{BRANCH}^{{tree}}", *arguments, stdin=message.encode())
    git(folder, "update-ref", BRANCH, entry)
    assert any("does not start at the entry before" in f.reason for f in check(record).findings)


def test_a_third_parent_and_commits_of_no_entry(record: Repository, folder: Path) -> None:
    stray = write(record, {"x": b"y"}, [], "stray\n")
    message = git(folder, "log", "-1", "--format=%B", BRANCH)
    arguments = ("-p", f"{BRANCH}^1", "-p", f"{BRANCH}^2", "-p", stray, "-F", "-")
    entry = git(folder, "commit-tree", f"{BRANCH}^{{tree}}", *arguments, stdin=message.encode())
    git(folder, "update-ref", BRANCH, entry)
    found = {(f.commit, f.reason) for f in check(record).findings}
    assert (entry, "merges more than one attempt") in found
    assert (stray, "belongs to no entry: it was put in by other means") in found


def test_a_verdict_that_its_numbers_do_not_give(repository: Repository) -> None:
    apply(repository, prove(evidence(lower=0.5, verdict=Verdict.PASS)))
    (finding,) = check(repository).findings
    assert "is not what 0.5 against 0.95 gives" in finding.reason


@pytest.mark.usefixtures("record")
def test_a_shallow_clone_is_refused(folder: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth=2", "--no-single-branch", f"file://{folder}", "clone")
    with pytest.raises(RecordError, match="shallow") as caught:
        check(open_repository(tmp_path / "clone"))
    assert "--unshallow" in caught.value.hint
    assert Reader(open_repository(tmp_path / "clone"), ENV).state().serial == 4


def test_a_missing_object_is_an_error(record: Repository, folder: Path) -> None:
    blob = git(folder, "rev-parse", f"{BRANCH}~2:{ANSWER}")
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(RecordError, match=r"damaged|missing"):
        check(record)


def sign_with_ssh(folder: Path, key: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann", "-f", str(key)], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (key.parent / "allowed").write_text(f'ann@example.org namespaces="git" {public}\n')
    for name, value in (
        ("commit.gpgsign", "true"),
        ("gpg.format", "ssh"),
        ("user.signingkey", str(key)),
        ("gpg.ssh.allowedSignersFile", str(key.parent / "allowed")),
    ):
        git(folder, "config", name, value)


def test_every_commit_is_signed_with_the_users_ssh_key(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "signed")
    sign_with_ssh(folder, tmp_path / "key")
    repository = open_repository(folder)
    apply(repository, put(recorded("prompt.answer")), prove(PROVEN))
    begin(repository).close("failed", subject="x", decisions={}, rejections=())
    assert set(git(folder, "log", "--format=%G?", BRANCH).split()) == {"G"}
    result = check(repository)
    assert result.ok
    assert result.anchor == "unanchored"  # nobody said whose keys count
    assert result.signatures == {"good": result.commits}
    demand = Demand(Signers.load(repository, None, None), unsigned=True)
    result = verify(repository, ENV, expect_head=None, judge=judge, demand=demand)
    assert (result.findings, result.anchor) == ((), "signed by ann@example.org")
    rewrite(repository, folder, evidence_byte)  # by someone with the same key
    result = verify(repository, ENV, expect_head=None, judge=judge, demand=demand)
    assert {f.anchor for f in result.findings} == {"signed by ann@example.org"}


def test_a_key_that_cannot_sign_loses_nothing(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "signed")
    sign_with_ssh(folder, tmp_path / "key")
    repository = open_repository(folder)
    attempt = begin(repository)
    attempt.commit(put(recorded("prompt.a")))
    (tmp_path / "key").rename(tmp_path / "away")
    (tmp_path / "key.pub").rename(tmp_path / "away.pub")
    attempt.commit(put(recorded("prompt.b")))
    with pytest.raises(RecordError, match="could not be signed") as caught:
        attempt.close("applied", subject="x", decisions={}, rejections=())
    assert "signingkey" in caught.value.hint
    (tmp_path / "away").rename(tmp_path / "key")
    attempt.close("applied", subject="x", decisions={}, rejections=())
    assert len(Reader(repository, ENV).entry(1).changes) == 2
    assert check(repository).ok


def test_a_key_that_was_never_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "signed")
    sign_with_ssh(folder, tmp_path / "key")
    (tmp_path / "key").unlink()
    (tmp_path / "key.pub").unlink()
    repository = open_repository(folder)
    with pytest.raises(RecordError, match="could not be signed"):
        begin(repository)
    assert not repository.private_dir(ENV).exists()
    assert llmctl_refs(folder) == []
    git(folder, "config", "gpg.format", "openpgp")
    git(folder, "config", "user.signingkey", "0xDEADBEEF")
    with pytest.raises(RecordError, match="could not be signed"):
        begin(repository)
