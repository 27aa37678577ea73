"""Commits signed in this process or by git, with real keys, held to what git itself says of them."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmctl.app.checks import Check, Level, Surroundings
from llmctl.app.signing import signing
from llmctl.core.errors import RecordError
from llmctl.record import Attempt, Reader, Repository, open_repository
from llmctl.record.signing import signer_of
from llmctl.record.writing import Batch, signed_commit, store
from tests.record.helpers import BRANCH, ENV, begin, git, llmctl_refs, make_repository, put, recorded
from tests.record.signing_keys import Key, Keyring, raw, sign_with, ssh_key, trust

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
KINDS = (("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "384"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048"))
PASSPHRASE = "a passphrase of a test"


@pytest.fixture(autouse=True)
def _nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent of the machine, and no prompt on the terminal of who runs the tests."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setenv("SSH_ASKPASS", "false")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")


def many(repository: Repository, count: int = 3, *, lag_s: float = 3600.0) -> str:
    """An apply of so many changes, which git is told all at once."""
    attempt = begin(repository, lag_s=lag_s)
    for number in range(count):
        attempt.commit(put(recorded(f"prompt.p{number}")))
    return attempt.close("applied", subject="Many", decisions={}, rejections=())


def signed_with(folder: Path, key: Key, **more: str) -> Repository:
    """The repository, of which commits are signed with a key that is trusted; ``more`` settings have _ for a dot."""
    sign_with(folder, key)
    trust(folder, key.allowed("ann@example.org"))
    for name, value in more.items():
        git(folder, "config", name.replace("_", "."), value)
    return open_repository(folder)


def assert_all_signed(folder: Path, commits: int) -> None:
    names = git(folder, "rev-list", BRANCH).split()
    assert len(names) == commits
    assert set(git(folder, "log", "--format=%G?", BRANCH).split()) == {"G"}
    for name in names:
        git(folder, "verify-commit", name)
    git(folder, "fsck", "--strict", "--no-dangling")


def again_by_git(folder: Path, commit: str) -> str:
    """The same commit, made and signed by git; the same id, where a key signs the same thing in one way only."""
    data = raw(folder, commit)
    lines = data.partition(b"\n\n")[0].decode().split("\n")
    fields = [line.split(" ", 1) for line in lines if not line.startswith(" ")]
    parents = [part for name, value in fields if name == "parent" for part in ("-p", value)]
    moment = next(value.rsplit(" ", 2)[1] for name, value in fields if name == "committer")
    done = subprocess.run(
        ["git", "commit-tree", "-S", *parents, "-F", "-", next(v for n, v in fields if n == "tree")],
        cwd=folder,
        input=data.partition(b"\n\n")[2],
        env={**os.environ, "GIT_AUTHOR_DATE": f"{moment} +0000", "GIT_COMMITTER_DATE": f"{moment} +0000"},
        check=True,
        capture_output=True,
    )
    return done.stdout.decode().strip()


# -- keys in files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_git_finds_every_commit_of_a_bulk_apply_well_signed(
    folder: Path, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    repository = signed_with(folder, ssh_key(tmp_path, "key", *kind))
    assert signer_of(repository) is not None
    entry = many(repository, 40)
    assert_all_signed(folder, 42)
    if kind[0] != "ecdsa":
        for commit in (entry, f"{entry}^2", f"{entry}^1"):
            name = git(folder, "rev-parse", commit)
            assert again_by_git(folder, name) == name


def test_in_a_repository_of_sha256(tmp_path: Path) -> None:
    folder = tmp_path / "sha256"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", "--object-format=sha256")
    repository = signed_with(make_repository(folder), ssh_key(tmp_path, "key"))
    entry = many(repository)
    assert len(entry) == 64
    assert b"\ngpgsig-sha256 -----BEGIN SSH SIGNATURE-----\n " in raw(folder, entry)
    assert again_by_git(folder, entry) == entry
    assert_all_signed(folder, 5)


@pytest.mark.parametrize("named", ["{path}.pub", "~/key", "~/key.pub", "../key"])
def test_a_key_is_named_as_git_takes_it(folder: Path, tmp_path: Path, named: str) -> None:
    key = ssh_key(tmp_path, "key")
    repository = signed_with(folder, key, user_signingkey=named.format(path=key.path))
    assert signer_of(repository) is not None
    entry = many(repository)
    assert again_by_git(folder, entry) == entry


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=st.binary(max_size=3000))
def test_a_signature_is_the_one_of_ssh_keygen(folder: Path, tmp_path: Path, payload: bytes) -> None:
    found = []
    for kind in KINDS[:3]:
        path = tmp_path / kind[-1]
        key = Key(path, "") if path.exists() else ssh_key(tmp_path, kind[-1], *kind)
        sign_with(folder, key)
        signer = signer_of(open_repository(folder))
        assert signer
        found.append(signer.signature(payload))
        (tmp_path / "signature").write_bytes(found[-1])
        command = ["ssh-keygen", "-Y", "check-novalidate", "-n", "git", "-s", str(tmp_path / "signature")]
        done = subprocess.run(command, input=payload, capture_output=True, check=False)
        assert done.stdout.startswith(b'Good "git" signature')
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(tmp_path / "ed25519")]
    assert subprocess.run(command, input=payload, capture_output=True, check=True).stdout == found[0]


# -- keys in an agent ---------------------------------------------------------------------------------------


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """An ssh-agent of the test's own; gives what adds a key to it."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    # Sockets have short paths, and those of pytest are long.
    address = Path(f"/tmp/llmctl-{os.getpid()}-{threading.get_ident() & 0xFFFF:x}.agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()  # it is there
    monkeypatch.setenv("SSH_AUTH_SOCK", str(address))

    def add(key: Key, *options: str) -> None:
        subprocess.run(["ssh-add", "-q", *options, str(key.path)], check=True, capture_output=True)

    yield add
    process.terminate()
    process.wait()
    process.stdout.close()
    address.unlink(missing_ok=True)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_an_agent_signs_with_a_key_of_which_only_the_public_half_is_here(
    folder: Path, tmp_path: Path, agent: Callable[..., None], kind: tuple[str, ...]
) -> None:
    key = ssh_key(tmp_path, "key", *kind)
    agent(ssh_key(tmp_path, "another"))
    agent(key)
    key.path.unlink()
    repository = signed_with(folder, key, user_signingkey=f"{key.path}.pub")
    assert signer_of(repository) is not None
    entry = many(repository, 5)
    assert_all_signed(folder, 7)
    if kind[0] != "ecdsa":
        assert again_by_git(folder, entry) == entry


@pytest.mark.parametrize("how", ["key::", "literal", "command"])
def test_an_agent_signs_with_a_key_that_the_settings_hold(
    folder: Path, tmp_path: Path, agent: Callable[..., None], how: str
) -> None:
    key = ssh_key(tmp_path, "key")
    agent(key)
    key.path.unlink()
    named = {"key::": f"key::{key.line} ann", "literal": key.line, "command": ""}[how]
    repository = signed_with(folder, key, user_signingkey=named)
    if how == "command":
        git(folder, "config", "gpg.ssh.defaultKeyCommand", "ssh-add -L")
        git(folder, "config", "--unset", "user.signingkey")
        repository = open_repository(folder)
    assert signer_of(repository) is not None
    assert again_by_git(folder, many(repository)) == git(folder, "rev-parse", BRANCH)
    assert_all_signed(folder, 5)


def test_an_agent_signs_with_a_key_that_is_encrypted_on_disk(
    folder: Path, tmp_path: Path, agent: Callable[..., None]
) -> None:
    key = ssh_key(tmp_path, "key")
    agent(key)
    encrypt(key)
    repository = signed_with(folder, key)
    assert signer_of(repository) is not None
    many(repository)
    assert_all_signed(folder, 5)


def test_an_agent_that_refuses_is_told_before_anything_is_done(
    folder: Path, tmp_path: Path, agent: Callable[..., None]
) -> None:
    key = ssh_key(tmp_path, "key")
    agent(key, "-c")  # the agent asks whether it may, and `false` says no
    key.path.unlink()
    refused = assert_refused(signed_with(folder, key, user_signingkey=f"{key.path}.pub"))
    assert "it refused" in refused.detail
    assert "ssh-add -l" in refused.hint


@contextmanager
def false_agent(address: Path, *answers: bytes) -> Iterator[None]:
    """Something that listens where an agent should, and says these things, one to each who asks."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
            thread.join()
        finally:
            address.unlink()


def message(kind: int, data: bytes) -> bytes:
    return struct.pack(">IB", len(data) + 1, kind) + data


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"\0\0",
        struct.pack(">I", 0),
        struct.pack(">I", 0xFFFFFFFF) + b"x" * 100,
        message(5, b""),
        message(12, b""),
        message(12, struct.pack(">I", 3)),
        message(12, struct.pack(">II", 1, 9999) + b"short"),
    ],
)
def test_an_agent_that_talks_nonsense_has_no_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    key = ssh_key(tmp_path, "key")
    repository = signed_with(folder, key, user_signingkey=f"key::{key.line}")
    address = Path(f"/tmp/llmctl-{os.getpid()}-false.agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
    with false_agent(address, nonsense):
        assert signer_of(repository) is None


def test_an_agent_that_forgets_its_key_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: Callable[..., None]
) -> None:
    key = ssh_key(tmp_path, "key")
    agent(key)
    repository = signed_with(folder, key, user_signingkey=f"key::{key.line}")
    signer = signer_of(repository)
    assert signer
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    with pytest.raises(RecordError, match="could not be signed"):
        signer.signature(b"text")
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(RecordError, match="could not be signed") as caught:
        signer.signature(b"text")
    assert "SSH_AUTH_SOCK" in caught.value.detail
    assert signer_of(repository) is None


# -- what is left to git ------------------------------------------------------------------------------------


def encrypt(key: Key) -> None:
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", PASSPHRASE, "-f", str(key.path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def assert_refused(repository: Repository) -> RecordError:
    """An attempt cannot begin, and nothing of it is left."""
    with pytest.raises(RecordError, match="could not be signed") as caught:
        begin(repository)
    assert not repository.private_dir(ENV).exists()
    assert llmctl_refs(repository.work_tree) == []
    assert PASSPHRASE not in f"{caught.value} {caught.value.detail} {caught.value.hint}"
    return caught.value


def test_git_asks_for_the_passphrase_of_an_encrypted_key(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = ssh_key(tmp_path, "key")
    encrypt(key)
    repository = signed_with(folder, key)
    assert signer_of(repository) is None
    assert_refused(repository)
    asking = tmp_path / "asking"
    asking.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
    asking.chmod(0o700)
    monkeypatch.setenv("SSH_ASKPASS", str(asking))
    many(repository)
    assert_all_signed(folder, 5)


def test_a_key_that_others_can_read_is_refused_as_git_refuses_it(folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    repository = signed_with(folder, key)
    key.path.chmod(0o644)
    assert signer_of(repository) is None
    assert "0644" in assert_refused(repository).detail
    key.path.chmod(0o600)
    many(repository)
    assert_all_signed(folder, 5)


@pytest.mark.parametrize("damage", ["empty", "cut", "no key", "a folder", "another's .pub"])
def test_a_key_that_is_none_is_refused_and_not_quoted(folder: Path, tmp_path: Path, damage: str) -> None:
    key = ssh_key(tmp_path, "key")
    repository = signed_with(
        folder, key, user_signingkey=str(key.path) + (".pub" if damage == "another's .pub" else "")
    )
    text = key.path.read_text()
    body = text.split("\n")[1:-2]
    if damage == "a folder":
        key.path.unlink()
        key.path.mkdir()
    elif damage == "another's .pub":
        key.path.with_suffix(".pub").write_text(ssh_key(tmp_path, "another").line)
    else:
        key.path.write_text({"empty": "", "cut": text[: len(text) // 2], "no key": f"{body[2]}\n"}[damage])
    assert signer_of(repository) is None
    if damage == "cut":
        key.path.with_suffix(".pub").unlink()
    refused = assert_refused(repository)
    said = f"{refused} {refused.detail} {refused.hint}"
    assert not [line for line in body if line in said]


@pytest.mark.parametrize(
    "key",
    [
        "/no/such/key",
        "~nobody-of-this-name/key",
        "key::ssh-ed25519 AAAA",
        "ssh-dss AAAA x",
        "key::sk-ssh-ed25519@openssh.com AAAA",
    ],
)
def test_a_key_that_is_not_there(folder: Path, key: str) -> None:
    git(folder, "config", "gpg.format", "ssh")
    git(folder, "config", "user.signingkey", key)
    git(folder, "config", "commit.gpgsign", "true")
    repository = open_repository(folder)
    assert signer_of(repository) is None
    assert "signingkey" in assert_refused(repository).hint


def test_a_command_for_the_key_that_fails(folder: Path) -> None:
    for command in ("false", "no-such-command", "echo nothing", 'unclosed "'):
        git(folder, "config", "gpg.ssh.defaultKeyCommand", command)
        git(folder, "config", "gpg.format", "ssh")
        git(folder, "config", "commit.gpgsign", "true")
        repository = open_repository(folder)
        assert signer_of(repository) is None
        assert_refused(repository)


def test_a_program_of_the_users_own_signs(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/called\nexec ssh-keygen "$@"\n')
    program.chmod(0o700)
    repository = signed_with(folder, ssh_key(tmp_path, "key"), gpg_ssh_program=str(program))
    assert signer_of(repository) is None
    many(repository)
    assert (tmp_path / "called").read_text().count("sign") >= 5
    assert_all_signed(folder, 5)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_openpgp_signs_a_bulk_apply(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keyring(tmp_path / "g")
    monkeypatch.setenv("GNUPGHOME", str(keys.home))
    try:
        keys.make("Ann Example <ann@example.org>")
        repository = open_repository(folder, must_sign=True)
        assert signer_of(repository) is None
        many(repository, 10)
        assert_all_signed(folder, 12)
    finally:
        keys.end()


def test_doctor_says_what_keeps_git_from_signing(folder: Path, tmp_path: Path, agent: Callable[..., None]) -> None:
    key = ssh_key(tmp_path, "key")
    around = Surroundings(folder, Check("file", Level.OK, ""))
    assert "not signed" in signing(around).found
    signed_with(folder, key)
    assert signing(around) == Check("signing", Level.OK, f"ssh with {key.path}")
    key.path.chmod(0o640)
    found = signing(around)
    assert (found.level, found.remedy) == (Level.FAILED, f"chmod 600 {key.path}")
    assert "others can read" in found.found
    key.path.chmod(0o600)
    agent(key)
    encrypt(key)
    assert signing(around).level is Level.OK  # the agent has it
    subprocess.run(["ssh-add", "-q", "-D"], check=True, capture_output=True)
    found = signing(around)
    assert (found.level, found.remedy) == (Level.WARNING, f"`ssh-add {key.path}` asks once.")
    key.path.unlink()
    found = signing(around)
    assert (found.level, found.found) == (Level.FAILED, f"commit.gpgsign is on, and there is no key {key.path}")
    git(folder, "config", "user.signingkey", "~nobody-of-this-name/key")
    assert signing(around).level is Level.FAILED


# -- an environment that takes signed records only ------------------------------------------------------------


def test_a_record_that_must_be_signed_is_signed_whatever_the_user_does(folder: Path, tmp_path: Path) -> None:
    signed_with(folder, ssh_key(tmp_path, "key"), commit_gpgsign="false")
    many(open_repository(folder, must_sign=True))
    assert_all_signed(folder, 5)


@pytest.mark.parametrize("form", ["ssh", "openpgp"])
def test_a_record_that_must_be_signed_and_cannot(folder: Path, form: str) -> None:
    git(folder, "config", "gpg.format", form)
    refused = assert_refused(open_repository(folder, must_sign=True))
    assert "sign: required" in refused.detail
    assert "git config user.signingkey" in refused.hint
    many(open_repository(folder))


def test_a_commit_of_its_own_is_signed_also_where_others_are_not(folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    repository = signed_with(folder, key, commit_gpgsign="false")
    batch = Batch(repository.algorithm)
    tree = batch.add("tree", b"")
    store(repository, batch)
    head = repository.head_commit()
    made = signed_commit(repository, tree, [head], "Approve\n\nLlmctl-Plan: sha256:aa\n")
    git(folder, "verify-commit", made)
    assert git(folder, "rev-parse", f"{made}^") == head
    assert again_by_git(folder, made) == made
    key.path.unlink()
    key.path.with_suffix(".pub").unlink()
    with pytest.raises(RecordError, match="could not be signed"):
        signed_commit(repository, tree, [], "Approve\n")


def test_nothing_of_a_key_is_written_anywhere(folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    attempt: Attempt = begin(signed_with(folder, key), lag_s=3600.0)
    attempt.commit(put(recorded("prompt.a")))
    journal = attempt._journal.path.read_bytes()
    attempt.close("applied", subject="x", decisions={}, rejections=())
    kept = [journal, *(path.read_bytes() for path in (folder / ".git").rglob("*") if path.is_file())]
    for line in key.path.read_bytes().split(b"\n")[2:-2]:  # its first line is public
        assert not [data for data in kept if line in data]
    assert Reader(open_repository(folder), ENV).state().serial == 1
