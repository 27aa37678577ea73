"""Digests and revisions: the same content has the same name on every machine."""

from __future__ import annotations

import hashlib
import json
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

#: JSON as Python holds it: None, bool, int, float, str, list and dict with str keys.
Json = Any

REVISION_LENGTH = 16  # hex digits: 64 bit, short enough for a model name `support@…`
_CHUNK = 1 << 20


def canonical_json(value: Json) -> str:
    """JSON with sorted keys and no spaces; equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Json) -> str:
    """JSON for the record: sorted keys, one item a line, so that ``git diff`` reads well.

    Of its own, because ``json`` has no C code for indented text, and a verification writes every file of a history once
    more. Raises ``TypeError``, ``ValueError`` or ``RecursionError`` for what JSON cannot hold.
    """
    return _text(value, "\n") + "\n"


def _text(value: Json, line: str) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, dict):
        if not value:
            return "{}"
        inner = line + "  "
        items = [f"{inner}{encode_basestring(key)}: {_text(value[key], inner)}" for key in sorted(value)]
        return "{" + ",".join(items) + line + "}"
    if isinstance(value, list | tuple):
        if not value:
            return "[]"
        inner = line + "  "
        return "[" + ",".join([inner + _text(item, inner) for item in value]) + line + "]"
    return int.__repr__(value) if type(value) is int else json.dumps(value, allow_nan=False)


def digest_bytes(data: bytes) -> str:
    """``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(value: Json) -> str:
    """The digest of a JSON value, independent of key order."""
    return digest_bytes(canonical_json(value).encode())


def digest_file(path: Path) -> str:
    """The digest of a file's bytes, read in pieces."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return "sha256:" + hasher.hexdigest()


def revision(value: Json) -> str:
    """A revision: the first ``REVISION_LENGTH`` hex digits of the digest."""
    return digest(value).removeprefix("sha256:")[:REVISION_LENGTH]
