"""Endpoints with ``engine: external``: a hosted API. Nothing runs here; a file and a key in the gateway's secrets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from threading import Thread
from time import monotonic
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
_STATUS_S = 2.0  # for all hosted APIs together, when somebody looks at the status
_MOST = 16 << 20  # bytes of a list of models
_REFUSALS = (401, 403)
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

    def ask(self, endpoints: Iterable[EndpointFile]) -> Callable[[], Mapping[Key, str]]:
        """Begin to ask all these APIs at once. What it returns waits for the answers, 2 s at most, and says by key
        what is wrong."""
        found: dict[Key, str] = {}
        threads = {}
        until = monotonic() + _STATUS_S
        for endpoint in endpoints:
            # Daemons: to look up a name may take longer than anybody waits.
            thread = Thread(target=self._trouble, args=(endpoint, found), daemon=True)
            threads[endpoint.key] = thread
            thread.start()

        def answers() -> Mapping[Key, str]:
            for thread in threads.values():
                thread.join(max(0.0, until - monotonic()))
            late = f"not reachable: no answer in {_STATUS_S:g} s"
            return {key: late for key, thread in threads.items() if thread.is_alive()} | dict(found)

        return answers

    def _trouble(self, endpoint: EndpointFile, found: dict[Key, str]) -> None:
        try:
            url, _ = remote(endpoint.key, endpoint.spec)
            secret = self._secrets.get(str(endpoint.key))
            if endpoint.spec.get("api_key") and secret is None:
                return  # so says the reading
            status, is_json = _ask(url, secret, _STATUS_S)
        except _NotReachable as error:
            found[endpoint.key] = f"not reachable: {error}"
        except ProviderError as error:
            found[endpoint.key] = error.summary
        else:
            if wrong := _wrong(status, secret, is_json=is_json):
                found[endpoint.key] = f"{url} {wrong}"

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
    try:
        status, is_json = _ask(url, secret, _PROBE_S)
    except _NotReachable as error:
        raise TransientError(
            f"endpoint {key.name}: {url} cannot be reached",
            detail=str(error),
            hint="Check the address and the network.",
        ) from None
    if not (wrong := _wrong(status, secret, is_json=is_json)):
        return
    summary = f"endpoint {key.name}: {url} {wrong}"
    if status >= 500:
        raise TransientError(summary, hint="Try again later.")
    if status in _REFUSALS:
        hint = "Set `api_key: ${env:NAME}` of its model, and check the variable's value."
        raise ProviderError(summary, hint=hint)
    if status == 200:
        hint = "Set `base_url` to the address of an OpenAI-compatible API, up to and including /v1."
        raise ProviderError(summary, hint=hint)
    raise ProviderError(summary, hint="Write the final address.")


class _NotReachable(Exception):
    """Nobody answers, or nothing that is HTTP. Says why, without the key."""


def _wrong(status: int, secret: Secret | None, *, is_json: bool) -> str:
    """What an answer says against its API; "" for nothing. One without a list of models will do."""
    if status in _REFUSALS:
        return f"{'refuses the' if secret else 'wants an'} API key (HTTP {status})"
    if status >= 500:
        return f"answers HTTP {status}"
    if 300 <= status < 400:
        return f"redirects (HTTP {status})"
    return "" if status != 200 or is_json else "answers something else than JSON, so it is no API"


def _ask(url: str, secret: Secret | None, timeout_s: float) -> tuple[int, bool]:
    """``GET url/models``: the status, and whether the answer is JSON. Raises ``_NotReachable``."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"Authorization": f"Bearer {secret.reveal()}"} if secret else {}
    try:
        connection.request("GET", f"{parts.path}/models", headers=headers)
        answer = connection.getresponse()
        return answer.status, _is_json(answer.read(_MOST))
    except TimeoutError:
        raise _NotReachable(f"no answer in {timeout_s:g} s") from None
    except ValueError as error:  # its text may hold a key that is no header, if the secrets were edited by hand
        raise _NotReachable(f"it cannot be asked ({type(error).__name__})") from None
    except OSError as error:
        raise _NotReachable(error.strerror or str(error) or type(error).__name__) from None
    except HTTPException as error:  # its text quotes what came, which may quote the key
        raise _NotReachable(f"what it answers is not HTTP ({type(error).__name__})") from None
    finally:
        connection.close()


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
