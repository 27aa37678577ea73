"""The files of allowed and revoked signers: what they say, where they are looked for, which lines are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.errors import InvalidInput
from llmctl.record import Repository
from llmctl.record.signers import Allowed, Signers
from tests.record.helpers import git
from tests.record.signing_keys import Key, commit_signed, gits_verdict, ssh_key, trust

FINGERPRINT = "0123456789abcdef0123456789ABCDEF01234567"


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return ssh_key(tmp_path, "key")


def load(repository: Repository, path: Path, text: str) -> dict[str, tuple[Allowed, ...]]:
    path.write_text(text)
    return dict(Signers.load(repository, path, None).allowed)


def test_nobody_is_known_where_no_file_is_named(repository: Repository, folder: Path) -> None:
    (folder / "allowed_signers").write_text("nonsense\n")  # the repository does not vouch for itself
    (folder / ".ssh").mkdir()
    (folder / ".ssh" / "allowed_signers").write_text("nonsense\n")
    assert Signers.load(repository, None, None) == Signers(programs={"openpgp": "gpg", "ssh": "ssh-keygen"})
    assert not Signers.load(repository, None, None).known


def test_an_empty_file_says_that_nobody_counts(repository: Repository, tmp_path: Path) -> None:
    path = tmp_path / "nobody"
    path.write_text("\n# nobody yet\n")
    signers = Signers.load(repository, path, None)
    assert (signers.known, signers.allowed, signers.source) == (True, {}, str(path))


def test_the_named_file_comes_before_gits_setting(
    repository: Repository, folder: Path, tmp_path: Path, key: Key
) -> None:
    trust(folder, key.allowed("git@x"))
    named = tmp_path / "named"
    named.write_text(key.allowed("named@x"))
    (by_git,) = Signers.load(repository, None, None).allowed.values()
    (by_name,) = Signers.load(repository, named, None).allowed.values()
    assert (by_git[0].principals, by_name[0].principals) == (("git@x",), ("named@x",))
    git(folder, "config", "gpg.ssh.allowedSignersFile", "deep/allowed")  # relative: from the top of the work tree
    (folder / "deep").mkdir()
    (folder / "deep" / "allowed").write_text(key.allowed("deep@x"))
    (deep,) = Signers.load(repository, None, None).allowed.values()
    assert deep[0].principals == ("deep@x",)


def test_the_programs_of_gits_settings(repository: Repository, folder: Path) -> None:
    git(folder, "config", "gpg.program", "~/bin/gpg2")
    git(folder, "config", "gpg.ssh.program", "/opt/ssh-keygen")
    signers = Signers.load(repository, None, None)
    assert (signers.program("openpgp"), signers.program("ssh")) == (str(Path.home() / "bin/gpg2"), "/opt/ssh-keygen")
    git(folder, "config", "gpg.openpgp.program", "/opt/gpg")
    assert Signers.load(repository, None, None).program("openpgp") == "/opt/gpg"


def test_lines_in_every_form(repository: Repository, tmp_path: Path, key: Key) -> None:
    other = ssh_key(tmp_path, "other", "ecdsa")
    text = "\n".join(
        [
            "# a comment",
            f"  ann@x,!bob@x,*@y   {key.line} her laptop ",
            f'"carl@x" Namespaces="git,file",VALID-AFTER="20260101Z",valid-before="202601020304Z" {other.line}',
            f"# openpgp: dora@x {FINGERPRINT}",
            "#openpgp is what we used before",
        ]
    )
    ann, carl, dora = load(repository, tmp_path / "allowed", text).values()
    assert ann == (Allowed(("ann@x", "*@y")),)
    assert carl == (Allowed(("carl@x",), 1767225600, 1767323040, ("git", "file")),)
    assert dora == (Allowed(("dora@x",)),)
    assert FINGERPRINT.upper() in load(repository, tmp_path / "allowed", text)
    assert load(repository, tmp_path / "allowed", text.replace("\n", "\r\n")).values()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ann@x", "no line of allowed signers"),
        ("ann@x ssh-ed25519", "no line of allowed signers"),
        ("KEY", "no line of allowed signers"),
        ("ann@x ssh-ed25519 AAAA", "the public key of this line is damaged"),
        ("ann@x ssh-rsa BLOB", "the public key of this line is damaged"),
        ("ann@x ssh-ed25519 not*base64", "no line of allowed signers"),
        ('"ann@x KEY', "no line of allowed signers"),
        ("!ann@x KEY", "names no principal"),
        ("*@x cert-authority KEY", "cert-authority is not supported"),
        ('*@x cert-authority,namespaces="git" KEY', "cert-authority is not supported"),
        ('ann@x from="10.0.0.1" KEY', "an option of this line is not known"),
        ("ann@x namespaces=git KEY", "an option of this line is not known"),
        ("ann@x namespaces KEY", "an option of this line is not known"),
        ('ann@x namespaces="git",namespaces="file" KEY', "namespaces stands twice"),
        ('ann@x valid-after="yesterday" KEY', "valid-after is not a time"),
        ('ann@x valid-before="20261301" KEY', "valid-before is not a time"),
        ('ann@x valid-before="2026010100000" KEY', "valid-before is not a time"),
        ('ann@x valid-after="20260102",valid-before="20260101" KEY', "valid-before is not later"),
        ("# openpgp: ann@x", "names no OpenPGP key"),
        ("# openpgp:", "names no OpenPGP key"),
        ("# openpgp: ann@x 0xDEADBEEF", "names no OpenPGP key"),
        ("# openpgp: ann@x 0123 4567 89AB", "names no OpenPGP key"),
        (f"# openpgp: {FINGERPRINT}", "names no principal"),
        ("\x00\x01\xff", "no line of allowed signers"),
    ],
)
def test_a_wrong_line_is_an_error_with_file_and_line(
    repository: Repository, tmp_path: Path, key: Key, line: str, said: str
) -> None:
    path = tmp_path / "allowed"
    with pytest.raises(InvalidInput) as caught:
        load(
            repository,
            path,
            f"{key.allowed('ok@x')}\n" + line.replace("KEY", key.line).replace("BLOB", key.line.split()[1]),
        )
    (finding,) = caught.value.findings
    assert said in finding.summary
    assert finding.where
    assert (finding.where.file, finding.where.line) == (str(path), 3)
    assert finding.hint


def test_every_wrong_line_is_told_and_none_is_quoted(repository: Repository, tmp_path: Path, key: Key) -> None:
    with pytest.raises(InvalidInput) as caught:
        load(repository, tmp_path / "allowed", key.path.read_text())  # the private key, taken for the public one
    assert len(caught.value.findings) == len(key.path.read_text().splitlines())
    secret = key.path.read_text().splitlines()[1]
    assert not any(secret in str(finding) for finding in caught.value.findings)


def test_a_file_that_cannot_be_read(repository: Repository, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="allowed signers cannot be read") as caught:
        Signers.load(repository, tmp_path / "absent", None)
    assert caught.value.findings[0].detail == "No such file or directory"
    with pytest.raises(InvalidInput, match="revoked keys cannot be read"):
        Signers.load(repository, None, tmp_path)
    git(folder, "config", "gpg.ssh.allowedSignersFile", "/nowhere/allowed")
    with pytest.raises(InvalidInput, match="/nowhere/allowed"):
        Signers.load(repository, None, None)


def test_revoked_keys_as_text(repository: Repository, folder: Path, tmp_path: Path, key: Key) -> None:
    path = tmp_path / "revoked"
    path.write_text(f"# gone\n{key.line} old laptop\n# openpgp: {FINGERPRINT}\n# openpgp: ann@x {'A' * 64}\n")
    signers = Signers.load(repository, None, path)
    assert not signers.known
    assert len(signers.revoked) == 3
    assert all(signers.is_revoked(name) for name in (*signers.revoked, FINGERPRINT.upper()))
    assert not signers.is_revoked("SHA256:other", b"blob")
    path.write_text(key.allowed("ann@x"))  # a line of the other file: a key that would seem revoked, and were not
    with pytest.raises(InvalidInput, match="no public key"):
        Signers.load(repository, None, path)
    git(folder, "config", "gpg.ssh.revocationFile", str(path))
    with pytest.raises(InvalidInput, match="no public key"):
        Signers.load(repository, None, None)


def test_git_reads_the_same_file(repository: Repository, folder: Path, key: Key) -> None:
    """The lines of OpenPGP keys are comments to git: its own verdict stands with them in the file."""
    trust(folder, f"# openpgp: dora@x {FINGERPRINT}\n" + key.allowed("ann@x"))
    commit = commit_signed(folder, str(key.path))
    assert gits_verdict(folder, commit) == "G"
    assert len(Signers.load(repository, None, None).allowed) == 2
