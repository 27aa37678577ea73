"""Judging the signature of a git commit, as git does, without a process for each.

SSH signatures are checked here (PROTOCOL.sshsig of OpenSSH): 0.1 ms, where ``git verify-commit`` runs ssh-keygen
three times. OpenPGP signatures are given to gpg, as git gives them. A key counts at the commit's own time, that
of its committer; a revoked key never does.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from llmctl.record.repository import Repository
from llmctl.record.signers import Signers, fingerprint

Status = Literal["good", "unsigned", "bad", "stranger", "revoked", "expired"]

_SSH = b"-----BEGIN SSH SIGNATURE-----"
_PGP = (b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN PGP MESSAGE-----")
_ARMOR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)-----END SSH SIGNATURE-----\n*")
_MAGIC, _NAMESPACE = b"SSHSIG", b"git"
_HEADER = {"sha1": b"gpgsig ", "sha256": b"gpgsig-sha256 "}
_COMMITTER = re.compile(rb"^committer .*> ([0-9]{1,15}) [+-][0-9]{4}$", re.MULTILINE)
_GPG_S = 60.0  # seconds that gpg may take for one signature
_GPG_LINE = re.compile(r"\[GNUPG:\] ([A-Z_]+)(?: (.*))?")

Check = Callable[[bytes, bytes], bool]  # signature and what is signed: whether it is right


@dataclass(frozen=True, slots=True)
class Judged:
    """What a signature is worth.

    good      right, by a key that counted then. Where nobody said whose keys count (``Signers.known`` is False), no
              more than right: then ``principal`` is "".
    unsigned  there is none
    bad       it is not of this content, or it cannot be read
    stranger  right, by a key that is not among the allowed signers; or of a kind that cannot be checked here
    revoked   by a key that is revoked
    expired   right, by an allowed signer's key that did not count at the commit's time
    """

    status: Status
    key: str = ""  # fingerprint: SHA256:… or the hexadecimal one of an OpenPGP primary key
    principal: str = ""  # by which the allowed signers name the key
    detail: str = ""
    names: tuple[str, ...] = ()  # all principals of that key


def judge(repository: Repository, raw_commit: bytes, signers: Signers) -> Judged:
    """Judge the signature in the content of a commit object.

    Raises ``RecordError`` when a binary list of revoked keys cannot be asked, and nothing for any content.
    """
    return judge_parts(*split(raw_commit, repository.algorithm), signers)


def judge_parts(payload: bytes, signature: bytes, signers: Signers) -> Judged:
    """Judge a signature of what is signed, as ``split`` gives both; otherwise as ``judge``."""
    if not signature:
        return Judged("unsigned")
    if signature.startswith(_SSH):
        return _by_ssh(payload, signature, signers)
    if signature.startswith(_PGP):
        return _by_gpg(payload, signature, signers)
    if signature.startswith(b"-----BEGIN SIGNED MESSAGE-----"):
        return Judged("stranger", detail="llmctl does not check X.509 signatures; sign with SSH or OpenPGP")
    return Judged("bad", detail="it is of no kind that git knows")


def split(raw_commit: bytes, algorithm: str) -> tuple[bytes, bytes]:
    """What is signed, and the signature, b"" for none. As git does, signatures for the other kind of object ids
    are no part of either."""
    head, separator, message = raw_commit.partition(b"\n\n")
    if b"\ngpgsig" not in head:
        return raw_commit, b""
    wanted = _HEADER[algorithm]
    kept: list[bytes] = []
    signature: list[bytes] = []
    place = kept
    other: list[bytes] = []
    for line in head.split(b"\n"):
        if line.startswith(b" "):
            place.append(line[1:] if place is signature else line)
        elif line.startswith(wanted):
            place = signature
            place.append(line[len(wanted) :])
        elif line.startswith(b"gpgsig"):
            place = other
        else:
            place = kept
            place.append(line)
    return b"\n".join(kept) + separator + message, b"".join(line + b"\n" for line in signature)


def committed_at(payload: bytes) -> int | None:
    """The committer's time in seconds since 1970, ``None`` when there is none."""
    found = _COMMITTER.search(payload.partition(b"\n\n")[0])
    return int(found[1]) if found else None


def _worth(key: str, payload: bytes, signers: Signers, *, blob: bytes = b"") -> Judged:
    """The worth of a right signature by that key."""
    if signers.is_revoked(key, blob):
        return Judged("revoked", key, names=signers.names_of(key), detail="the key is revoked")
    if not signers.known:
        return Judged("good", key)
    lines = [line for line in signers.allowed.get(key, ()) if line.for_git]
    if not lines:
        limited = " for git" if key in signers.allowed else ""
        return Judged("stranger", key, detail=f"the key is none of the allowed signers{limited}")
    moment = committed_at(payload)
    names = signers.names_of(key)
    for line in lines:
        if line.covers(moment):
            return Judged("good", key, line.principals[0], names=names)
    return Judged("expired", key, lines[0].principals[0], "the key did not count when this was committed", names)


class _Damaged(ValueError):
    """A signature that is none; the text says why."""


class _Unknown(ValueError):
    """A kind of key that cannot be checked here."""


class _Fields:
    """Reads the length-prefixed fields of SSH's formats."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._data):
            raise _Damaged("it ends too early")
        return self._data[self._at - size : self._at]

    def text(self) -> bytes:
        return self.take(int.from_bytes(self.take(4), "big"))

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)


def _by_ssh(payload: bytes, signature: bytes, signers: Signers) -> Judged:
    try:
        blob, right = _check_ssh(payload, signature)
    except _Damaged as error:
        return Judged("bad", detail=str(error))
    except _Unknown:
        return Judged("stranger", detail="llmctl does not check its kind of key; sign with ed25519, ecdsa or rsa")
    key = fingerprint(blob)
    if not right:
        return Judged("bad", key, detail="it is not of this content")
    return _worth(key, payload, signers, blob=blob)


def _check_ssh(payload: bytes, signature: bytes) -> tuple[bytes, bool]:
    """The public key that a signature names, and whether the signature is right."""
    armor = _ARMOR.fullmatch(signature)
    if not armor:
        raise _Damaged("it is no SSH signature")
    try:
        fields = _Fields(binascii.a2b_base64(armor[1]))
    except binascii.Error:
        raise _Damaged("it is no SSH signature") from None
    if fields.take(len(_MAGIC) + 4) != _MAGIC + b"\0\0\0\1":
        raise _Damaged("it is of another version of SSH signatures")
    blob, namespace, reserved, hashed, proof = (fields.text() for _ in range(5))
    if namespace != _NAMESPACE:
        raise _Damaged("it was not made for git")
    if hashed not in (b"sha256", b"sha512") or not fields.ended:
        raise _Damaged("it is no SSH signature")
    parts = (namespace, reserved, hashed, hashlib.new(hashed.decode(), payload).digest())
    signed = _MAGIC + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    inner = _Fields(proof)
    algorithm, right = inner.text(), inner.text()
    check, application = _key(blob, algorithm)
    if application:  # of a security key: what it signs tells the touch and a counter, too
        extra = inner.take(5)
        signed = hashlib.sha256(application).digest() + extra + hashlib.sha256(signed).digest()
    if not inner.ended:
        raise _Damaged("it is no SSH signature")
    return blob, check(right, signed)


@lru_cache(maxsize=256)
def _key(blob: bytes, algorithm: bytes) -> tuple[Check, bytes]:
    """How signatures of an SSH public key are checked, and the application of a security key, b"" for another."""
    fields = _Fields(blob)
    kind = fields.text()
    security = kind.startswith(b"sk-")
    plain = kind.removeprefix(b"sk-").removesuffix(b"@openssh.com")
    try:
        if plain == b"ssh-ed25519" and algorithm == kind:
            check = _ed25519(fields.text())
        elif plain.startswith(b"ecdsa-sha2-") and algorithm == kind:
            check = _ecdsa(plain, fields.text(), fields.text())
        elif kind == b"ssh-rsa" and algorithm in (b"rsa-sha2-256", b"rsa-sha2-512"):
            check = _rsa(algorithm, int.from_bytes(fields.text(), "big"), int.from_bytes(fields.text(), "big"))
        else:
            raise _Unknown
        application = fields.text() if security else b""
    except (_Damaged, _Unknown):
        raise
    except ValueError:
        raise _Damaged("the key that it names is none") from None
    if not fields.ended or (security and not application):
        raise _Damaged("the key that it names is none")
    return check, application


def _ed25519(public: bytes) -> Check:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(public)

    def check(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return check


def _ecdsa(kind: bytes, curve: bytes, point: bytes) -> Check:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    known: dict[bytes, tuple[ec.EllipticCurve, SHA256 | SHA384 | SHA512]] = {
        b"nistp256": (ec.SECP256R1(), SHA256()),
        b"nistp384": (ec.SECP384R1(), SHA384()),
        b"nistp521": (ec.SECP521R1(), SHA512()),
    }
    if curve not in known or kind != b"ecdsa-sha2-" + curve:
        raise _Damaged("the key that it names is none")
    shape, digest = known[curve]
    key = ec.EllipticCurvePublicKey.from_encoded_point(shape, point)

    def check(signature: bytes, data: bytes) -> bool:
        fields = _Fields(signature)
        r, s = (int.from_bytes(fields.text(), "big") for _ in range(2))
        try:
            key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(digest))
        except InvalidSignature:
            return False
        return fields.ended

    return check


def _rsa(algorithm: bytes, exponent: int, modulus: int) -> Check:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256, SHA512

    if not 1024 <= modulus.bit_length() <= 16384:  # as OpenSSH has it
        raise _Damaged("the key that it names is too short, or too long")
    key = RSAPublicNumbers(exponent, modulus).public_key()
    digest = SHA256() if algorithm == b"rsa-sha2-256" else SHA512()

    def check(signature: bytes, data: bytes) -> bool:
        try:
            key.verify(signature.rjust(key.key_size // 8, b"\0"), data, PKCS1v15(), digest)
        except InvalidSignature:
            return False
        return True

    return check


def _by_gpg(payload: bytes, signature: bytes, signers: Signers) -> Judged:
    program = signers.program("openpgp")
    with tempfile.NamedTemporaryFile(prefix="llmctl-", suffix=".sig") as file:
        file.write(signature)
        file.flush()
        command = [program, "--keyid-format=long", "--status-fd=1", "--verify", file.name, "-"]
        try:
            done = subprocess.run(command, input=payload, capture_output=True, timeout=_GPG_S, check=False)
        except subprocess.TimeoutExpired:
            return Judged("stranger", detail=f"{program}, which checks it, gave no answer within {_GPG_S:g} s")
        except OSError:
            return Judged("stranger", detail=f"{program}, which checks it, is not installed")
    lines = map(_GPG_LINE.fullmatch, done.stdout.decode(errors="replace").split("\n"))
    return _as_gpg_says([(line[1], (line[2] or "").split()) for line in lines if line], payload, signers)


_VERDICTS = ("GOODSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "ERRSIG")


def _as_gpg_says(said: Sequence[tuple[str, list[str]]], payload: bytes, signers: Signers) -> Judged:
    words = dict(said)
    verdicts = [name for name, _ in said if name in _VERDICTS]
    if len(verdicts) != 1:  # several signatures in one: git, too, takes none of them
        return Judged("bad", detail="gpg finds no signature in it, or several")
    verdict, valid = verdicts[0], words.get("VALIDSIG", [])
    if verdict == "ERRSIG" and "NO_PUBKEY" in words:
        detail = "the key is not in your keyring: `gpg --import` it"
        return Judged("stranger", "".join(words["NO_PUBKEY"][:1]), detail=detail)
    if verdict in ("ERRSIG", "BADSIG") or len(valid) < 10:
        detail = "gpg cannot check it" if verdict == "ERRSIG" else "it is not of this content"
        return Judged("bad", "".join(words[verdict][:1]), detail=detail)
    key = valid[9].upper()
    if verdict == "REVKEYSIG":
        return Judged("revoked", key, names=signers.names_of(key), detail="its owner revoked the key")
    worth = _worth(key, payload, signers)
    if worth.status == "good" and verdict != "GOODSIG" and not _in_time(verdict, said, payload):
        return Judged("expired", key, worth.principal, "the key had expired when this was committed", worth.names)
    return worth


def _in_time(verdict: str, said: Sequence[tuple[str, list[str]]], payload: bytes) -> bool:
    """Whether a key that has expired since still counted at the commit's time."""
    ended = [int(rest[0]) for name, rest in said if name == "KEYEXPIRED" and rest and rest[0].isdigit()]
    moment = committed_at(payload)
    return verdict == "EXPKEYSIG" and moment is not None and bool(ended) and moment <= min(ended)
