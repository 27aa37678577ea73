"""Our verdict on a commit's signature against git's own, with real keys and real signatures."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.errors import RecordError
from llmctl.record import Repository, open_repository
from llmctl.record.signatures import Judged, judge, split
from llmctl.record.signers import Signers
from tests.record.helpers import git, make_repository
from tests.record.signing_keys import Keyring, commit_signed, gits_verdict, put_commit, raw, ssh_key, trust

ANN = "ann@example.org"
AT = 1_790_000_000  # 2026-09-21


def verdict(repository: Repository, folder: Path, commit: str) -> Judged:
    return judge(repository, raw(folder, commit), Signers.load(repository, None, None))


@pytest.mark.parametrize(
    ("kind", "options"), [("ed25519", ()), ("rsa", ("-b", "2048")), ("ecdsa", ("-b", "256")), ("ecdsa", ("-b", "521"))]
)
def test_a_good_signature_of_each_kind_of_ssh_key(
    repository: Repository, folder: Path, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    key = ssh_key(tmp_path, "key", kind, *options)
    trust(folder, key.allowed(ANN))
    commit = commit_signed(folder, str(key.path))
    found = verdict(repository, folder, commit)
    assert (found.status, found.principal, gits_verdict(folder, commit)) == ("good", ANN, "G")
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key.path], capture_output=True, check=True).stdout.decode()
    assert found.key == shown.split()[1]


def test_in_a_repository_with_sha256_ids(tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    git(folder, "init", "-q", "--object-format=sha256", "-b", "main")
    make_repository(folder)
    key = ssh_key(tmp_path, "key")
    trust(folder, key.allowed(ANN))
    commit = commit_signed(folder, str(key.path))
    assert b"gpgsig-sha256 " in raw(folder, commit)
    assert (verdict(open_repository(folder), folder, commit).status, gits_verdict(folder, commit)) == ("good", "G")
    other = put_commit(folder, raw(folder, commit).replace(b"gpgsig-sha256 ", b"gpgsig "))
    assert (verdict(open_repository(folder), folder, other).status, gits_verdict(folder, other)) == ("unsigned", "N")


def test_good_unsigned_bad_stranger_and_unknown_signers(repository: Repository, folder: Path, tmp_path: Path) -> None:
    key, other = ssh_key(tmp_path, "key"), ssh_key(tmp_path, "other")
    good = commit_signed(folder, str(key.path))
    found = verdict(repository, folder, good)
    assert (found.status, found.principal) == ("good", "")  # nobody said whose keys count: right, and no more
    trust(folder, key.allowed(ANN))
    edited = put_commit(folder, raw(folder, good).replace(b"Signed", b"Forged"))
    table = {
        good: ("good", "G"),
        commit_signed(folder, None): ("unsigned", "N"),
        edited: ("bad", "B"),
        commit_signed(folder, str(other.path)): ("stranger", "U"),
    }
    for commit, expected in table.items():
        assert (verdict(repository, folder, commit).status, gits_verdict(folder, commit)) == expected


@pytest.mark.parametrize("krl", [False, True], ids=["text", "krl"])
def test_a_revoked_key_never_counts(repository: Repository, folder: Path, tmp_path: Path, krl: bool) -> None:
    key, other, revoked = ssh_key(tmp_path, "key"), ssh_key(tmp_path, "other"), tmp_path / "revoked"
    if krl:
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", revoked, f"{key.path}.pub"], check=True)
    else:
        revoked.write_text(f"# gone\n\n{key.line} a comment\n")
    trust(folder, key.allowed(ANN) + other.allowed("bob@example.org"), revoked)
    mine, others = (commit_signed(folder, str(k.path)) for k in (key, other))
    found = verdict(repository, folder, mine)
    assert (found.status, found.names, gits_verdict(folder, mine)) == ("revoked", (ANN,), "B")
    assert (verdict(repository, folder, others).status, gits_verdict(folder, others)) == ("good", "G")


def test_a_binary_list_is_asked_once_for_a_key(repository: Repository, folder: Path, tmp_path: Path) -> None:
    key, revoked, counted = ssh_key(tmp_path, "key"), tmp_path / "revoked", tmp_path / "counted"
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", revoked, f"{key.path}.pub"], check=True)
    program = tmp_path / "counting"
    program.write_text(f'#!/bin/sh\necho x >> {counted}\nexec ssh-keygen "$@"\n')
    program.chmod(0o755)
    trust(folder, key.allowed(ANN), revoked)
    commits = [commit_signed(folder, str(key.path), at=AT + n) for n in range(3)]
    git(folder, "config", "gpg.ssh.program", str(program))
    signers = Signers.load(repository, None, None)
    assert {judge(repository, raw(folder, c), signers).status for c in commits} == {"revoked"}
    assert counted.read_text() == "x\n"
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(RecordError, match="cannot be read") as caught:
        judge(repository, raw(folder, commits[0]), Signers.load(repository, None, None))
    assert "as text" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ('valid-before="20260901Z"', ("expired", "U")),
        ('valid-after="20261001Z"', ("expired", "U")),
        ('valid-after="20260901",valid-before="20261001"', ("good", "G")),
        ('valid-before="202609211413Z"', ("expired", "U")),
        ('valid-before="20260921141320Z"', ("good", "G")),  # the second of the commit itself
        ('valid-after="20260921141320Z"', ("good", "G")),
    ],
)
def test_validity_is_judged_at_the_time_of_the_commit(
    repository: Repository, folder: Path, tmp_path: Path, options: str, expected: tuple[str, str]
) -> None:
    key = ssh_key(tmp_path, "key")
    trust(folder, key.allowed(ANN, options))
    commit = commit_signed(folder, str(key.path), at=AT)
    assert (verdict(repository, folder, commit).status, gits_verdict(folder, commit)) == expected


def test_a_renewed_key_has_a_line_for_each_period(repository: Repository, folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    lines = [key.allowed("old@x", 'valid-before="20260101"'), key.allowed("new@x,newer@x", 'valid-after="20260601"')]
    trust(folder, "".join(lines))
    found = verdict(repository, folder, commit_signed(folder, str(key.path), at=AT))
    assert (found.status, found.principal, found.names) == ("good", "new@x", ("old@x", "new@x", "newer@x"))


def test_a_key_for_something_else_than_git_is_a_stranger(repository: Repository, folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    trust(folder, key.allowed(ANN, 'namespaces="file,email*"'))
    commit = commit_signed(folder, str(key.path))
    found = verdict(repository, folder, commit)
    assert (found.status, gits_verdict(folder, commit)) == ("stranger", "B")
    assert "for git" in found.detail
    trust(folder, key.allowed(ANN, 'namespaces="g?t"'))
    assert (verdict(repository, folder, commit).status, gits_verdict(folder, commit)) == ("good", "G")


def test_a_signature_that_was_made_for_something_else(repository: Repository, folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    trust(folder, key.allowed(ANN, ""))
    payload, _ = split(raw(folder, commit_signed(folder, str(key.path))), "sha1")
    command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(key.path)]
    made = subprocess.run(command, input=payload, capture_output=True, check=True).stdout
    commit = put_commit(folder, _with(payload, made))
    assert (verdict(repository, folder, commit).status, gits_verdict(folder, commit)) == ("bad", "B")


def _with(payload: bytes, signature: bytes) -> bytes:
    head, _, message = payload.partition(b"\n\n")
    return head + b"\ngpgsig " + signature.rstrip(b"\n").replace(b"\n", b"\n ") + b"\n\n" + message


def nonsense(good: bytes) -> dict[str, bytes]:
    payload, signature = split(good, "sha1")
    begin, end = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
    return {
        "nothing": b"",
        "no commit": b"\x00\xff" * 99,
        "of no kind": _with(payload, b"-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----"),
        "empty": _with(payload, begin + b"\n" + end),
        "no base64": _with(payload, begin + b"A\n" + end),
        "cut short": _with(payload, begin + signature.split(b"\n")[1][:40] + b"\n" + end),
        "endless field": _with(payload, begin + b"U1NIU0lHAAAAAf////8AAAAA\n" + end),
        "version 2": _with(payload, begin + b"U1NIU0lHAAAAAgAAAAAAAAAA\n" + end),
        "no end": _with(payload, signature.replace(end, b"")),
        "twice": _with(_with(payload, signature), signature),
        "no pgp": _with(payload, b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----"),
        "x509": _with(payload, b"-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----"),
    }


def test_nonsense_is_never_good_and_never_an_exception(repository: Repository, folder: Path, tmp_path: Path) -> None:
    key = ssh_key(tmp_path, "key")
    trust(folder, key.allowed(ANN))
    good = raw(folder, commit_signed(folder, str(key.path)))
    signers = Signers.load(repository, None, None)
    said = {name: judge(repository, data, signers).status for name, data in nonsense(good).items()}
    assert {name for name, status in said.items() if status == "unsigned"} == {"nothing", "no commit"}
    assert said.pop("x509") == "stranger"
    assert {status for name, status in said.items() if name not in ("nothing", "no commit")} == {"bad"}
    payload, signature = split(good, "sha1")
    lines = signature.split(b"\n")
    for at in range(1, len(lines) - 2):  # one letter of the signature turned, in each line
        turned = lines[at][:20] + (b"A" if lines[at][20:21] != b"A" else b"B") + lines[at][21:]
        data = _with(payload, b"\n".join([*lines[:at], turned, *lines[at + 1 :]]))
        assert judge(repository, data, signers).status in ("bad", "stranger")


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    with tempfile.TemporaryDirectory(prefix="llmctl-gpg-") as short:  # an agent's socket has a short path
        ring = Keyring(Path(short) / "home")
        monkeypatch.setenv("GNUPGHOME", str(ring.home))
        yield ring
        ring.end()


def test_openpgp_signatures(repository: Repository, folder: Path, keyring: Keyring, tmp_path: Path) -> None:
    ann, bob = keyring.make("ann@example.org"), keyring.make("bob@example.org")
    commit = commit_signed(folder, ann, form="openpgp")
    assert verdict(repository, folder, commit) == Judged("good", ann)  # nobody said whose keys count
    trust(folder, f"# a comment\n# openpgp: {ANN} {ann.lower()}\n")
    found = verdict(repository, folder, commit)
    assert (found.status, found.principal, gits_verdict(folder, commit)) == ("good", ANN, "G")
    edited = put_commit(folder, raw(folder, commit).replace(b"Signed", b"Forged"))
    assert (verdict(repository, folder, edited).status, gits_verdict(folder, edited)) == ("bad", "B")
    others = commit_signed(folder, bob, form="openpgp")
    assert verdict(repository, folder, others).status == "stranger"
    gone = tmp_path / "gone"
    gone.write_text(f"# openpgp: {ann}\n")
    assert judge(repository, raw(folder, commit), Signers.load(repository, None, gone)).status == "revoked"
    keyring.run("--delete-secret-and-public-key", bob)
    unknown = verdict(repository, folder, others)
    assert (unknown.status, gits_verdict(folder, others)) == ("stranger", "E")
    assert "gpg --import" in unknown.detail


def test_an_openpgp_key_that_its_owner_revoked(repository: Repository, folder: Path, keyring: Keyring) -> None:
    ann = keyring.make("ann@example.org")
    trust(folder, f"# openpgp: {ANN} {ann}\n")
    commit = commit_signed(folder, ann, form="openpgp")
    text = (keyring.home / "openpgp-revocs.d" / f"{ann}.rev").read_text().replace(":-----BEGIN", "-----BEGIN")
    keyring.run("--import", stdin=text.encode())
    assert (verdict(repository, folder, commit).status, gits_verdict(folder, commit)) == ("revoked", "R")


def test_an_openpgp_key_that_expired_since_counts_for_what_it_signed_before(
    repository: Repository, folder: Path, keyring: Keyring, tmp_path: Path
) -> None:
    ann = keyring.make("ann@example.org", "2020-02-01", at="20200101T000000")
    trust(folder, f"# openpgp: {ANN} {ann}\n")
    then = tmp_path / "then"
    then.write_text('#!/bin/sh\nexec gpg --faked-system-time 20200115T000000 "$@"\n')
    then.chmod(0o755)
    git(folder, "config", "gpg.program", str(then))
    early = commit_signed(folder, ann, form="openpgp", at=1_579_000_000)  # January 2020
    late = commit_signed(folder, ann, form="openpgp", at=1_583_000_000)  # the end of February
    git(folder, "config", "--unset", "gpg.program")
    assert (verdict(repository, folder, early).status, gits_verdict(folder, early)) == (
        "good",
        "Y",
    )  # git knows no when
    assert (verdict(repository, folder, late).status, gits_verdict(folder, late)) == ("expired", "Y")


def test_without_gpg_an_openpgp_signature_is_nobodys(repository: Repository, folder: Path, keyring: Keyring) -> None:
    ann = keyring.make("ann@example.org")
    trust(folder, f"# openpgp: {ANN} {ann}\n")
    commit = commit_signed(folder, ann, form="openpgp")
    git(folder, "config", "gpg.program", "/nowhere/gpg")
    found = verdict(repository, folder, commit)
    assert (found.status, found.detail) == ("stranger", "/nowhere/gpg, which checks it, is not installed")


def _field(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@pytest.mark.parametrize("flags", [b"\1", b"\0"], ids=["touched", "not touched"])
def test_a_signature_by_a_security_key(repository: Repository, folder: Path, flags: bytes) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    kind, application, counter = b"sk-ssh-ed25519@openssh.com", b"ssh:", b"\0\0\0\7"
    private = Ed25519PrivateKey.generate()
    blob = _field(kind, private.public_key().public_bytes_raw(), application)
    trust(folder, f'{ANN} namespaces="git" {kind.decode()} {b64encode(blob).decode()}\n')
    payload = raw(folder, commit_signed(folder, None))
    signed = b"SSHSIG" + _field(b"git", b"", b"sha512", hashlib.sha512(payload).digest())
    told = hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(signed).digest()
    proof = _field(kind, private.sign(told)) + flags + counter
    text = b64encode(b"SSHSIG\0\0\0\1" + _field(blob, b"git", b"", b"sha512", proof))
    lines = b"\n".join(text[at : at + 70] for at in range(0, len(text), 70))
    armor = b"-----BEGIN SSH SIGNATURE-----\n" + lines + b"\n-----END SSH SIGNATURE-----\n"
    good = put_commit(folder, _with(payload, armor))
    assert (verdict(repository, folder, good).status, gits_verdict(folder, good)) == ("good", "G")
    edited = put_commit(folder, _with(payload, armor).replace(b"Signed", b"Forged"))
    assert (verdict(repository, folder, edited).status, gits_verdict(folder, edited)) == ("bad", "B")
