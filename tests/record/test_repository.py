from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmctl.core.errors import RecordError
from llmctl.record import Attempt, Lock, Reader, Repository, open_repository
from llmctl.record.git import RefEdit, RefMoved, explain
from tests.record.helpers import BRANCH, ENV, apply, begin, git, llmctl_refs, make_repository, put, recorded, users_view


def test_no_repository_says_git_init(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="not in a git repository") as caught:
        open_repository(tmp_path)
    assert "git init" in caught.value.hint


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="does not exist"):
        open_repository(tmp_path / "a" / "b")


def test_a_bare_repository_and_gits_own_folder_are_refused(tmp_path: Path, folder: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "bare.git")
    with pytest.raises(RecordError, match="bare"):
        open_repository(tmp_path / "bare.git")
    with pytest.raises(RecordError, match="git's own folder"):
        open_repository(folder / ".git")


def test_no_git_on_the_path(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from llmctl.record import open_repository\n"
    code += "from llmctl.core.errors import RecordError\n"
    code += "try: open_repository(Path(sys.argv[1]))\nexcept RecordError as e: print(e.summary, '|', e.hint)"
    env = {**os.environ, "PATH": "/nowhere", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=env, check=False
    )
    assert "git is not installed" in done.stdout, done.stderr
    assert "Install git 2.36" in done.stdout


def test_git_that_vanishes_after_the_import(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RecordError, match="git is not installed"):
        open_repository(folder)


def test_git_too_old(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho git version 2.17.1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RecordError, match=r"too old: 2\.17\.1") as caught:
        open_repository(folder)
    assert "2.36" in caught.value.hint


def test_identity_is_asked_for_only_where_something_is_written(folder: Path) -> None:
    git(folder, "config", "--unset", "user.email")
    repository = open_repository(folder)
    assert Reader(repository, ENV).state().serial == 0
    for write in (repository.require_identity, repository.actor, lambda: Lock(repository, ENV).acquire("apply")):
        with pytest.raises(RecordError, match="who you are") as caught:
            write()
        assert "user.name" in caught.value.hint
        assert "user.email" in caught.value.hint
    assert llmctl_refs(folder) == []


def test_actor_and_identity_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_repository(folder).actor() == "Ann Example <ann@example.org>"
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "CI Bot")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ci@example.org")
    repository = open_repository(folder)
    assert repository.actor() == "CI Bot <ci@example.org>"
    entry = apply(repository, put(recorded("prompt.answer")))
    assert git(folder, "log", "-1", "--format=%an <%ae> %cn <%ce>", entry) == " ".join(["CI Bot <ci@example.org>"] * 2)


def test_head_commit_and_dirty(repository: Repository, folder: Path) -> None:
    assert repository.head_commit() == git(folder, "rev-parse", "HEAD")
    file = folder / "llmops.yaml"
    assert not repository.is_dirty([file])
    file.write_text("project: other\n")
    (folder / "new.jsonl").write_text("{}\n")
    assert repository.is_dirty([file])
    assert repository.is_dirty([folder / "new.jsonl"])
    git(folder, "checkout", "-q", "llmops.yaml")
    assert not repository.is_dirty([file])
    assert repository.is_dirty([folder])
    assert not repository.is_dirty([])
    assert repository.is_dirty([folder.parent / "outside.jsonl"])


def test_paths_with_wildcards_are_taken_literally(repository: Repository, folder: Path) -> None:
    (folder / "data1.csv").write_text("x")
    assert not repository.is_dirty([folder / "data*.csv"])


def test_unborn_head(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "empty", commit=False)
    repository = open_repository(folder)
    assert repository.head_commit() == ""
    before = users_view(folder)
    apply(repository, put(recorded("prompt.answer")))
    assert users_view(folder) == before
    assert Reader(repository, ENV).state().serial == 1
    assert git(folder, "symbolic-ref", "HEAD") == "refs/heads/main"


def test_the_users_files_index_and_branch_are_never_touched(repository: Repository, folder: Path) -> None:
    (folder / "staged.txt").write_text("staged\n")
    git(folder, "add", "staged.txt")
    (folder / "llmops.yaml").write_text("project: changed\n")
    (folder / "untracked.txt").write_text("untracked\n")
    os.utime(folder / "staged.txt", (1, 1))  # a stale index entry, which `git status` would like to refresh
    before = users_view(folder)
    with Lock(repository, ENV).acquire("llmctl apply") as lock:
        apply(repository, put(recorded("prompt.answer")), fence=lock.fence)
    repository.is_dirty([folder])
    Reader(repository, ENV).entry(1)
    assert users_view(folder) == before
    assert git(folder, "fsck", "--strict", "--no-dangling") == ""


def test_linked_work_tree_and_detached_head(repository: Repository, folder: Path, tmp_path: Path) -> None:
    git(folder, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    linked = open_repository(tmp_path / "linked")
    before = users_view(tmp_path / "linked"), users_view(folder)
    apply(linked, put(recorded("prompt.answer")))
    assert (users_view(tmp_path / "linked"), users_view(folder)) == before
    assert Reader(repository, ENV).state().serial == 1
    assert linked.private_dir(ENV) == repository.private_dir(ENV) == folder / ".git" / "llmctl" / ENV


def test_spaces_unicode_and_subfolders_in_the_path(tmp_path: Path) -> None:
    folder = make_repository(tmp_path / "Ünï cödé 家" / "a b")
    (folder / "sub dir").mkdir()
    (folder / "sub dir" / "fïle.txt").write_text("x")
    repository = open_repository(folder / "sub dir")
    assert repository.work_tree == folder
    assert repository.is_dirty([folder / "sub dir" / "fïle.txt"])
    apply(repository, put(recorded("prompt.answer", "größer 家")))
    assert Reader(open_repository(folder / "llmops.yaml"), ENV).state().resources


def test_variables_of_a_hooks_git_do_not_reach_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repository(tmp_path / "other")
    before = users_view(other), users_view(folder)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other / ".git" / "objects"))
    monkeypatch.setenv("GIT_PREFIX", "x/")
    repository = open_repository(folder)
    apply(repository, put(recorded("prompt.answer")))
    assert repository.work_tree == folder
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"):
        monkeypatch.delenv(name)
    assert (users_view(other), users_view(folder)) == before
    assert llmctl_refs(other) == []
    assert llmctl_refs(folder) == [BRANCH]


def test_autocrlf_locale_and_encodings_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(folder, "config", "core.autocrlf", "true")
    git(folder, "config", "core.eol", "crlf")
    git(folder, "config", "i18n.commitEncoding", "ISO-8859-1")
    (folder / ".gitattributes").write_text("* text eol=crlf ident\n")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    repository = open_repository(folder)
    entry = apply(repository, put(recorded("prompt.answer", "Käse\n$Id$")), subject="Käse hinzugefügt")
    raw = subprocess.run(
        ["git", "cat-file", "blob", f"{entry}:resources/prompt/answer.json"],
        cwd=folder,
        capture_output=True,
        check=True,
    ).stdout
    assert b"\r" not in raw
    assert "Käse" in raw.decode()
    commit = git(folder, "cat-file", "commit", entry)
    assert "encoding" not in commit.split("\n\n")[0]
    assert Reader(repository, ENV).entry(1).entry.subject == "Käse hinzugefügt"
    with pytest.raises(RecordError, match="not in a git repository"):
        open_repository(folder.parent)


def test_sha256_repositories(tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    git(folder, "init", "-q", "--object-format=sha256", "-b", "main")
    make_repository(folder)
    repository = open_repository(folder)
    entry = apply(repository, put(recorded("prompt.answer")))
    assert len(entry) == 64
    assert Reader(repository, ENV).state().serial == 1


def test_hooks_never_run(folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "hook-ran"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in (
        "reference-transaction",
        "pre-commit",
        "commit-msg",
        "post-commit",
        "pre-auto-gc",
        "post-index-change",
    ):
        for place in (hooks, folder / ".git" / "hooks"):
            place.mkdir(exist_ok=True)
            (place / name).write_text(f"#!/bin/sh\ntouch '{marker}'\n")
            (place / name).chmod(0o755)
    for configured in (False, True):
        if configured:
            git(folder, "config", "core.hooksPath", str(hooks))
        repository = open_repository(folder)
        marker.unlink(missing_ok=True)
        with Lock(repository, ENV).acquire("apply"):
            apply(repository, put(recorded("prompt.answer")))
        repository.is_dirty([folder])
        assert not marker.exists()


def test_a_branch_in_the_way_is_explained(folder: Path) -> None:
    git(folder, "branch", "llmctl")
    repository = open_repository(folder)
    with pytest.raises(RecordError, match="a branch stands") as caught:
        begin(repository)
    assert "git branch -m llmctl" in caught.value.hint
    assert not repository.private_dir(ENV).exists()


def test_a_record_that_is_checked_out_is_not_written(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")))
    git(folder, "switch", "-q", f"llmctl/{ENV}")
    before = users_view(folder)
    with pytest.raises(RecordError, match="is checked out") as caught:
        begin(repository)
    assert "git switch" in caught.value.hint
    assert users_view(folder) == before


@pytest.mark.parametrize("name", ["a/b", "-x", "..", "", "Prod", "x.lock", "a b"])
def test_environment_names_that_are_no_refs(repository: Repository, name: str) -> None:
    with pytest.raises(RecordError, match="cannot name"):
        Reader(repository, name).head()
    with pytest.raises(RecordError, match="cannot name"):
        repository.private_dir(name)


@pytest.mark.parametrize(
    ("stderr", "summary"),
    [
        ("fatal: detected dubious ownership in repository at '/x'", "does not trust"),
        ("error: file write error: No space left on device", "disk .* full"),
        ("fatal: Unable to create '/x/.git/refs/a.lock': File exists.", "another git process"),
        ("error: unable to create temporary file: Permission denied", "cannot be written"),
        ("error: gpg failed to sign the data", "could not be signed"),
        ("fatal: loose object 12ab is corrupt", "damaged"),
        ("fatal: something else", "git x failed"),
        ("", "git x failed"),
    ],
)
def test_what_git_says_is_explained(stderr: str, summary: str) -> None:
    error = explain("x", 128, stderr)
    assert not isinstance(error, RefMoved)
    with pytest.raises(RecordError, match=summary):
        raise error
    assert error.hint
    assert stderr in error.detail


def test_a_damaged_repository_is_a_record_error(repository: Repository, folder: Path) -> None:
    apply(repository, put(recorded("prompt.answer")))
    blob = git(folder, "rev-parse", f"{BRANCH}:resources/prompt/answer.json")
    (folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(RecordError, match="missing"):
        Reader(repository, ENV).state()


def test_importing_the_room_does_not_import_git() -> None:
    code = "import sys, llmctl.record; print([m for m in ('git', 'psutil', 'aiohttp') if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"


def test_attempt_is_a_journal(repository: Repository) -> None:
    from llmctl.core.protocols import Journal

    attempt: Journal = begin(repository)
    assert isinstance(attempt, Attempt)
    attempt.abandon()


def test_a_folder_of_the_project_that_poses_as_a_repository_is_refused(folder: Path) -> None:
    """A pull request can bring one, and with it git settings that name programs and allowed signers."""
    inner = folder / "prod"
    for part in ("objects", "refs"):
        (inner / part).mkdir(parents=True)
    (inner / "HEAD").write_text("ref: refs/heads/main\n")
    (inner / "config").write_text("[core]\nrepositoryformatversion = 0\nbare = false\nworktree = .\n")
    with pytest.raises(RecordError, match="poses as a git repository") as refused:
        open_repository(inner)
    assert "remove them" in refused.value.hint
    (inner / "HEAD").unlink()
    assert open_repository(inner).work_tree == folder.resolve()


@pytest.mark.parametrize("does_it", [True, False])
def test_refs_that_were_moved_by_a_git_that_failed_afterwards_are_moved(
    repository: Repository, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does_it: bool
) -> None:
    """Killed after it had done it, for example: then what the refs are is what counts."""
    real = shutil.which("git")
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    before = f'"{real}" "$@"' if does_it else ":"
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *update-ref*) {before}; exit 9;; esac\nexec "{real}" "$@"\n')
    wrapper.chmod(0o755)
    wanted = git(folder, "rev-parse", "HEAD")
    edits = [RefEdit("refs/llmctl/dev/one", "", wanted), RefEdit("refs/heads/main", wanted, wanted)]
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=os.pathsep)
    if does_it:
        repository.git.edit_refs(edits)
        assert git(folder, "rev-parse", "refs/llmctl/dev/one") == wanted
    else:
        with pytest.raises(RecordError):
            repository.git.edit_refs(edits)
    with pytest.raises(RecordError):  # nothing says of a deletion by whom it was
        repository.git.edit_refs([RefEdit("refs/llmctl/dev/two", wanted, "")])
