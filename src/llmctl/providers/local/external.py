"""Endpoints with ``engine: external``: a hosted API. Nothing runs here; a file and a key in the gateway's secrets."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from urllib.parse import urlsplit

from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError, TransientError
from llmctl.core.protocols import Op
from llmctl.core.resources import Key, Live
from llmctl.core.secrets import Secret
from llmctl.providers.local.launch import EndpointFile
from llmctl.providers.local.layout import Layout, explained
from llmctl.providers.local.lock import StateLock
from llmctl.providers.local.secrets_file import SecretsFile

_PROBE_S = 10.0
_HEADER_SAFE = re.compile(r"[!-~]+\Z")
_OPENAI = "https://api.openai.com/v1"


class ExternalEndpoints:
    """Checks and remembers hosted endpoints. A key's name in the secrets file is ``name@revision``."""

    def __init__(self, layout: Layout, lock: StateLock, secrets: SecretsFile) -> None:
        self._layout = layout
        self._lock = lock
        self._secrets = secrets

    def read(self, endpoint: EndpointFile) -> Live[Json]:
        """From the file; the hosted API is not asked, as that would cost and fail for reasons of its own."""
        needs = bool(endpoint.spec.get("api_key"))
        there = not needs or self._secrets.has(str(endpoint.key))
        url, model = remote(endpoint.key, endpoint.spec)
        return Live(
            endpoint.key,
            endpoint.spec,
            endpoint.key.revision,
            healthy=there,
            detail=f"{model} at {url}" if there else "its API key is missing in the gateway's secrets",
            outputs={"base_url": url, "model": model, "secret": str(endpoint.key) if needs else ""},
        )

    def create(self, op: Op, key: Key, spec: Json) -> Live[Json]:
        """Check address and key against the API, then remember both. Nothing is changed when the check fails."""
        url, _ = remote(key, spec)
        secret = api_key(key, spec)
        op.guard()
        op.progress(f"asking {url}")
        check(key, url, secret)
        op.guard()
        endpoint = EndpointFile(key, spec)
        path = self._layout.endpoint_file(key)
        with self._lock.held(), explained(f"write endpoint {key}"):
            if secret is None:
                self._secrets.remove(str(key))
            else:
                self._secrets.put(str(key), secret)
            try:
                endpoint.write(path)
            except OSError:
                if not path.exists():  # a key that no endpoint uses must not stay
                    self._secrets.remove(str(key))
                raise
        return self.read(endpoint)

    def remove(self, key: Key) -> None:
        with self._lock.held(), explained(f"delete endpoint {key}"):
            self._layout.endpoint_file(key).unlink(missing_ok=True)
            self._secrets.remove(str(key))


def remote(key: Key, spec: Json) -> tuple[str, str]:
    """Base URL (up to and including /v1) and model name. Raises ``ProviderError`` when they cannot be told."""
    provider, _, model = str((spec.get("weights") or {}).get("remote") or "").partition(":")
    url = (spec.get("options") or {}).get("base_url") or (_OPENAI if provider == "openai" else "")
    if not model or not _is_address(url):
        raise ProviderError(
            f"endpoint {key.name}: it is not known where {provider or 'its model'} is served",
            detail="An address is http:// or https://, a host, and a path; no user or password in it.",
            hint="Set its `options: {base_url: https://…/v1}`.",
        )
    return url.rstrip("/"), model


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:  # a port that is no number
        return False


def api_key(key: Key, spec: Json) -> Secret | None:
    """The key's value, read from the environment now; None when the endpoint needs none."""
    reference = spec.get("api_key")
    if not reference:
        return None
    name = reference["env"]
    value = os.environ.get(name, "").strip()
    if not value:
        raise ProviderError(
            f"endpoint {key.name}: the environment variable {name} is not set",
            hint=f"Set {name} to the API key of {spec.get('model')}, then run the command again.",
        )
    if not _HEADER_SAFE.match(value):
        raise ProviderError(
            f"endpoint {key.name}: the environment variable {name} does not hold an API key",
            detail="Its value has blanks or characters that cannot be sent in a header.",
        )
    return Secret(value)


def check(key: Key, url: str, secret: Secret | None) -> None:
    """Ask ``GET url/models`` with the key. Redirects are not followed: they would carry the key elsewhere."""
    status = _status(key, url, secret)
    if status in (401, 403):
        refused = "refuses the API key" if secret else "wants an API key"
        raise ProviderError(
            f"endpoint {key.name}: {url} {refused} (HTTP {status})",
            hint="Set `api_key: ${env:NAME}` of its model, and check the variable's value.",
        )
    if status >= 500:
        raise TransientError(f"endpoint {key.name}: {url} fails (HTTP {status})", hint="Try again later.")
    if 300 <= status < 400:
        raise ProviderError(f"endpoint {key.name}: {url} redirects (HTTP {status})", hint="Write the final address.")


def _status(key: Key, url: str, secret: Secret | None) -> int:
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_PROBE_S)
    headers = {"Authorization": f"Bearer {secret.reveal()}"} if secret else {}
    try:
        connection.request("GET", f"{parts.path}/models", headers=headers)
        answer = connection.getresponse()
        with suppress(HTTPException, OSError):
            answer.read()
        return answer.status
    except (HTTPException, OSError) as error:
        raise TransientError(
            f"endpoint {key.name}: {url} cannot be reached",
            detail=str(error) or type(error).__name__,
            hint="Check the address and the network.",
        ) from None
    finally:
        connection.close()
