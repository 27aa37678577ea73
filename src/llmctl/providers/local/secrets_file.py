"""The gateway's ``secrets.json``, mode 0600: the only file on this machine that holds a secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError
from llmctl.core.secrets import Secret
from llmctl.providers.local.layout import Layout, explained, read_json, write_json
from llmctl.providers.local.lock import StateLock


class SecretsFile:
    """``{"gate_token": …, "keys": {name: key}}``; the gateway reads it at its start and at every publish."""

    def __init__(self, layout: Layout, lock: StateLock) -> None:
        self._path = layout.secrets
        self._lock = lock

    def make(self) -> None:
        """Create it with a fresh gate token, or leave it as it is, readable by its owner alone."""
        with self._changed() as content:
            content["gate_token"] = content.get("gate_token") or secrets.token_urlsafe(32)
        self._path.chmod(0o600)

    def gate_token(self) -> Secret:
        token = self._read().get("gate_token")
        if not token:
            raise ProviderError("the gateway has no gate token yet", hint="Run `llmctl local start`.")
        return Secret(token)

    def has(self, name: str) -> bool:
        return name in self._read().get("keys", {})

    def get(self, name: str) -> Secret | None:
        keys = self._read().get("keys")
        value = keys.get(name) if isinstance(keys, dict) else None
        return Secret(value) if isinstance(value, str) and value else None

    def put(self, name: str, value: Secret) -> None:
        with self._changed() as content:
            content.setdefault("keys", {})[name] = value.reveal()

    def remove(self, name: str) -> None:
        if self.has(name):
            with self._changed() as content:
                del content["keys"][name]

    def _read(self) -> dict[str, Json]:
        with explained("read the gateway's secrets"):
            try:
                content = read_json(self._path, {"keys": {}})
            except ValueError:  # not chained: the text of a JSON error is near the secrets
                content = None
        if not isinstance(content, dict):
            raise ProviderError(
                "the gateway's secrets file is damaged",
                detail=str(self._path),
                hint="Delete it, then run `llmctl local stop`, `llmctl local start` and `llmctl apply`.",
            )
        return content

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Json]]:
        with self._lock.held(), explained("write the gateway's secrets"):
            content = self._read()
            content.setdefault("keys", {})
            before = str(content)
            yield content
            if str(content) != before:
                write_json(self._path, content)
