"""Digests and revisions: the same content has the same name on every machine."""

from __future__ import annotations

import hashlib
import json
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
    """JSON for the record: sorted keys, one item a line, so that ``git diff`` reads well."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


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
