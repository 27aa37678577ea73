"""Signatures that are made in this process: with an SSH key from a file, or by an ssh-agent.

For each commit git starts itself and ``ssh-keygen``, which takes 10 ms; here an Ed25519 key takes 0.04. The signature
is the one that ``ssh-keygen -Y sign -n git`` makes. Whatever is not plainly such a key is left to git: OpenPGP, X.509,
a program of the user's, security keys, certificates, a key that asks for its passphrase or that others can read.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import socket
import struct
import subprocess
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

from llmctl.core.errors import RecordError
from llmctl.record.repository import Repository

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    _Private: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

UNSIGNED = "the commit could not be signed"  # as record/git.py says it of git
PROGRAM = "ssh-keygen"
_MAGIC, _VERSION = b"SSHSIG", 1
_NAMESPACE, _RESERVED, _HASH = b"git", b"", b"sha512"
_WIDTH = 70  # of the lines of an armored signature, as OpenSSH breaks them
_LITERAL = ("key::", "ssh-")  # how git tells a key from the path of one
_KINDS = (b"ssh-ed25519", b"ssh-rsa", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521")
_LIST, _LISTED, _SIGN, _SIGNED = 11, 12, 13, 14  # the messages of an agent
_RSA_SHA512 = 4  # asks an agent for more than the SHA-1 that was once meant by ssh-rsa
_ANSWER = 1 << 20  # bytes: an agent that says more is none
_SETTINGS = r"^(gpg\.format|gpg\.ssh\.(program|defaultkeycommand)|user\.signingkey)$"


class AgentRefused(RecordError):
    """An ssh-agent has the key, and did not sign with it."""


@dataclass(frozen=True, slots=True)
class SshKey:
    """A key that signs in this process. ``public`` and what ``sign`` returns are in SSH's wire format."""

    public: bytes
    sign: Callable[[bytes], bytes]

    def signature(self, payload: bytes) -> bytes:
        """The armored signature of a commit; raises ``AgentRefused``."""
        digest = hashlib.sha512(payload).digest()
        about = (_NAMESPACE, _RESERVED, _HASH)
        signed = self.sign(_MAGIC + b"".join(map(_string, (*about, digest))))
        blob = _MAGIC + struct.pack(">I", _VERSION) + b"".join(map(_string, (self.public, *about, signed)))
        text = b64encode(blob)
        lines = [text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH)]
        return b"\n".join([b"-----BEGIN SSH SIGNATURE-----", *lines, b"-----END SSH SIGNATURE-----", b""])


def signer_of(repository: Repository) -> SshKey | None:
    """What signs in this process by the user's git settings, ``None`` for what git must do itself.

    A key file is looked at each time, so that one that was taken away signs nothing more.
    """
    settings = _settings(repository)
    if settings.get("gpg.format") != "ssh" or settings.get("gpg.ssh.program", PROGRAM) != PROGRAM:
        return None
    named = settings.get("user.signingkey", "")
    if not named:
        return None
    if named.startswith(_LITERAL):
        return _from_agent(_public_key(named.removeprefix(_LITERAL[0]).encode(errors="surrogateescape")))
    path = repository.work_tree / os.path.expanduser(named)
    return _from_file(path) or _from_agent(_public_file(path))


_known: WeakKeyDictionary[Repository, Mapping[str, str]] = WeakKeyDictionary()


def _settings(repository: Repository) -> Mapping[str, str]:
    """The settings that signing depends on, asked once: by name in lower case, the last value of each."""
    if repository not in _known:
        output = repository.git.run("config", "-z", "--get-regexp", _SETTINGS, accept=(0, 1))
        pairs = (line.partition("\n") for line in output.decode(errors="surrogateescape").split("\0"))
        found = {name: value for name, _, value in pairs}
        command = found.get("gpg.ssh.defaultkeycommand", "")
        if command and not found.get("user.signingkey") and found.get("gpg.format") == "ssh":
            found["user.signingkey"] = _default_key(command, repository.work_tree)
        _known[repository] = found
    return _known[repository]


def _default_key(command: str, folder: Path) -> str:
    """What the user's ``gpg.ssh.defaultKeyCommand`` names, "" for nothing that git would take."""
    try:
        done = subprocess.run(shlex.split(command), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True)
    except (OSError, ValueError):
        return ""
    first = done.stdout.decode(errors="replace").partition("\n")[0]
    return first if done.returncode == 0 and first.startswith(_LITERAL) else ""


def _public_key(text: bytes) -> bytes:
    """The key in ``ssh-ed25519 AAAA… comment``, b"" for a kind that is not ours to use."""
    parts = text.split(None, 2)
    with suppress(Base64Error):
        blob = b64decode(parts[1]) if len(parts) > 1 else b""
        if parts and parts[0] in _KINDS and blob.startswith(_string(parts[0])):
            return blob
    return b""


def _public_file(path: Path) -> bytes:
    """The key in a ``.pub`` file: ``path`` itself, or the one beside it."""
    for each in (path, path.with_name(f"{path.name}.pub")):
        with suppress(OSError):
            if found := _public_key(each.read_bytes()):
                return found
    return b""


def _from_file(path: Path) -> SshKey | None:
    """A private key, named by its own path or by that of its ``.pub``, if it is whole and not encrypted."""
    private = path.with_suffix("") if path.suffix == ".pub" else path
    try:
        status = private.stat()
        if status.st_uid == os.getuid() and status.st_mode & 0o077:
            return None  # git refuses it, and says why
        key = _load(private, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    except OSError:
        return None
    if key and path != private and _public_file(path) != key.public:
        return None
    return key


@lru_cache(maxsize=4)
def _load(path: Path, _version: tuple[int, ...]) -> SshKey | None:
    """Read a key once: to check an RSA key takes 80 ms. What is wrong with one is not told, it could quote the key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    try:
        private = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(private, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        return None
    public = _public_key(private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return SshKey(public, partial(_sign_with, private)) if public else None


def _sign_with(private: _Private, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    if isinstance(private, rsa.RSAPrivateKey):
        return _string(b"rsa-sha2-512") + _string(private.sign(data, padding.PKCS1v15(), hashes.SHA512()))
    if isinstance(private, ec.EllipticCurvePrivateKey):
        size = private.key_size
        hashed = hashes.SHA256() if size == 256 else hashes.SHA384() if size == 384 else hashes.SHA512()
        numbers = decode_dss_signature(private.sign(data, ec.ECDSA(hashed)))
        return _string(b"ecdsa-sha2-nistp%d" % size) + _string(b"".join(map(_number, numbers)))
    return _string(b"ssh-ed25519") + _string(private.sign(data))


def _from_agent(public: bytes) -> SshKey | None:
    """The key as an agent has it; ``None`` when there is no agent, or it has not got the key."""
    if not public:
        return None
    try:
        answer = _ask_agent(_LIST, _LISTED, b"")
        count, rest = struct.unpack(">I", answer[:4])[0], answer[4:]
        for _ in range(count):
            blob, rest = _split(rest)
            _, rest = _split(rest)  # its comment
            if blob == public:
                return SshKey(public, partial(_sign_by_agent, public))
    except (OSError, ValueError, struct.error):
        return None
    return None


def _sign_by_agent(public: bytes, data: bytes) -> bytes:
    flags = _RSA_SHA512 if public.startswith(_string(b"ssh-rsa")) else 0
    try:
        return _split(_ask_agent(_SIGN, _SIGNED, _string(public) + _string(data) + struct.pack(">I", flags)))[0]
    except (OSError, ValueError, struct.error) as error:
        raise AgentRefused(
            UNSIGNED,
            detail=f"The ssh-agent has the key and did not sign with it: {error}.",
            hint="Allow it where the agent asks, or look with `ssh-add -l` whether the key is still there.",
        ) from None


def _ask_agent(question: int, wanted: int, data: bytes) -> bytes:
    """One question to the agent. How long the answer takes is the user's affair: it may ask for a confirmation."""
    address = os.environ.get("SSH_AUTH_SOCK", "")
    if not address:
        raise OSError("there is no agent (SSH_AUTH_SOCK is not set)")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        connection.sendall(_string(bytes([question]) + data))
        with connection.makefile("rb") as stream:
            head = stream.read(4)
            size = struct.unpack(">I", head)[0]
            answer = stream.read(size) if size <= _ANSWER else b""
    if not answer or len(answer) != size or answer[0] != wanted:
        raise ValueError("it refused")
    return answer[1:]


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _number(value: int) -> bytes:
    """A whole number as SSH writes it: with a zero before a first bit that would be a sign."""
    return _string(value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The string at the beginning, and what follows it; raises ``ValueError`` for less than it says."""
    size = struct.unpack(">I", data[:4])[0]
    if len(data) < 4 + size:
        raise ValueError("it gave an answer that is none")
    return data[4 : 4 + size], data[4 + size :]
