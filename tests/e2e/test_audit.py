"""The record as an auditor checks it: green as it is, red after one byte of evidence is another."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.project import MODEL, ONE_SENTENCE, SYSTEM, WORSE_MODEL, Project

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def recorded() -> Iterator[Project]:
    """A record with a good apply, a refused one and another good one; nothing runs any more."""
    project = Project.make()
    try:
        project.apply()
        project.edit(MODEL, WORSE_MODEL)
        assert project.llmctl("apply", "--yes").code == 4
        project.edit(WORSE_MODEL, MODEL)
        project.edit(SYSTEM, ONE_SENTENCE)
        project.apply()
        project.ok("local", "stop")
        yield project
    finally:
        project.end()


@pytest.fixture
def audited(recorded: Project) -> Iterator[Project]:
    """That record, put back afterwards."""
    head = recorded.git("rev-parse", "llmctl/dev").strip()
    yield recorded
    recorded.git("update-ref", "refs/heads/llmctl/dev", head)


def _rewrite(project: Project, path: str, old: str, new: str) -> dict[str, str]:
    """Make the record's commits anew with ``old`` as ``new`` in one file, names, trailers and dates kept.

    Returns the new commits by the old ones.
    """
    made: dict[str, str] = {}
    for commit in project.git("rev-list", "--topo-order", "--reverse", "llmctl/dev").split():
        header, _, message = project.git("cat-file", "commit", commit).partition("\n\n")
        project.git("read-tree", "--index-output=.git/forged", commit)
        index = {"GIT_INDEX_FILE": ".git/forged"}
        project.variables |= index
        if path in project.git("ls-files").split():
            text = project.git("show", f"{commit}:{path}")
            assert text.count(old) >= 1
            blob = project.git("hash-object", "-w", "--stdin", stdin=text.replace(old, new, 1)).strip()
            project.git("update-index", "--cacheinfo", f"100644,{blob},{path}")
        tree = project.git("write-tree").strip()
        del project.variables["GIT_INDEX_FILE"]
        lines = [re.sub(r"^tree .*", f"tree {tree}", line) for line in header.splitlines()]
        lines = [f"parent {made[line.split()[1]]}" if line.startswith("parent ") else line for line in lines]
        raw = "\n".join(lines) + "\n\n" + message
        made[commit] = project.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=raw).strip()
    project.git("update-ref", "refs/heads/llmctl/dev", made[project.git("rev-parse", "llmctl/dev").strip()])
    return made


def test_a_rewritten_evidence_byte_is_found_and_its_commit_named(audited: Project) -> None:
    project = audited
    green = project.ok("audit", "verify")
    assert "the record holds" in green.out
    head = project.git("rev-parse", "llmctl/dev").strip()
    assert project.ok("audit", "verify", "--expect-head", head).code == 0

    files = project.git("ls-tree", "-r", "--name-only", "llmctl/dev", "evidence/").split()
    refused = next(f for f in files if '"verdict": "FAIL"' in project.git("show", f"llmctl/dev:{f}"))
    bringer = project.git("log", "--format=%H", "--diff-filter=A", "llmctl/dev", "--", refused).split()[-1]
    made = _rewrite(project, refused, '"samples": 210', '"samples": 211')

    red = project.llmctl("audit", "verify")
    assert red.code == 1
    assert made[bringer][:12] in red.out
    assert refused in red.out
    findings = project.llmctl("audit", "verify", "--json").json()["findings"]
    assert {f["commit"] for f in findings} == {made[bringer]}
    truncated = project.llmctl("audit", "verify", "--expect-head", head)
    assert truncated.code == 1
    assert f"expected was {head}" in truncated.out


def test_a_verdict_that_was_turned_is_found(audited: Project) -> None:
    files = audited.git("ls-tree", "-r", "--name-only", "llmctl/dev", "evidence/").split()
    refused = next(f for f in files if '"verdict": "FAIL"' in audited.git("show", f"llmctl/dev:{f}"))
    _rewrite(audited, refused, '"FAIL"', '"PASS"')
    assert audited.llmctl("audit", "verify").code == 1


def test_an_auditor_needs_only_the_repository(audited: Project) -> None:
    clone = audited.base / "clone"
    audited.git("clone", "-q", "--bare", ".", str(clone))
    work = audited.base / "auditor"
    audited.git("clone", "-q", str(clone), str(work))
    audited.git("-C", str(work), "rm", "-q", "--cached", "llmops.yaml")
    (work / "llmops.yaml").unlink()
    there = ["-f", str(work / "llmops.yaml")]
    assert "the record holds" in audited.ok("audit", "verify", *there).out
    log = audited.ok("audit", "log", *there).out
    assert log.count("gate faq") == 3
    assert "gate faq FAIL" in log


def test_signers_are_named_by_who_verifies(audited: Project) -> None:
    """An unsigned record against allowed signers, and one entry on top that is signed."""
    key, allowed = audited.base / "auditors_key", audited.base / "allowed_signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    allowed.write_text(f'ann@example.org namespaces="git" {key.with_suffix(".pub").read_text()}')
    named = ("--allowed-signers", str(allowed))

    red = audited.llmctl("audit", "verify", *named)
    assert red.code == 1
    assert "is not signed  [unanchored]" in red.out
    assert "not anchored: unsigned" in red.out
    wrong = audited.llmctl("audit", "verify", "--allowed-signers", str(audited.base / "absent"))
    assert (wrong.code, "Traceback" in wrong.err) == (1, False)
    assert "cannot be read" in wrong.err
    assert "--signed-from needs to know" in audited.llmctl("audit", "verify", "--signed-from", "4").err

    options = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}")
    header = audited.git("cat-file", "commit", "llmctl/dev")
    parents = [part for line in header.splitlines() if line.startswith("parent ") for part in ("-p", line.split()[1])]
    message = header.partition("\n\n")[2]
    signed = audited.git(*options, "commit-tree", "-S", *parents, "-F", "-", "llmctl/dev^{tree}", stdin=message).strip()
    audited.git("update-ref", "refs/heads/llmctl/dev", signed)
    serial = re.search(r"Llmctl-Serial: (\d+)", message)
    assert serial
    green = audited.llmctl("audit", "verify", *named, "--signed-from", serial[1])
    assert green.code == 1  # the changes of that entry are not signed
    assert "below a commit signed by ann@example.org" in green.out
    green = audited.ok("audit", "verify", *named, "--signed-from", str(int(serial[1]) + 1), "--expect-head", signed)
    assert "anchored: signed by ann@example.org with SHA256:" in green.out
    assert "; expected head; allowed signers: " in green.out
    shown = audited.llmctl("audit", "verify", *named, "--json").json()
    assert shown["signatures"]["good"] == 1
    assert shown["signers"] == str(allowed)
    assert "nobody said whose keys count" in audited.ok("audit", "verify").out
