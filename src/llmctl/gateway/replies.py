"""Answers and errors in OpenAI's form. Nothing of an upstream or of a secret goes into an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from llmctl.core.digests import Json


def dump(value: Json) -> bytes:
    """JSON as bytes, without spaces. ASCII, because a lone surrogate has no UTF-8."""
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(eq=False)
class ApiError(Exception):
    """A request that cannot be answered: what the client is told."""

    status: int
    message: str
    code: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> Json:
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "api_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def reply(value: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(body=dump(value), status=status, headers=headers, content_type="application/json")


def error_reply(error: ApiError, headers: Mapping[str, str] | None = None) -> web.Response:
    """An error response; ``headers`` are added to the error's own."""
    return reply(error.body(), error.status, {**(headers or {}), **error.headers})


def no_such_model(model: str) -> ApiError:
    """The one answer for every model that this client may not use, so that nothing can be probed."""
    return ApiError(404, f"The model {json.dumps(model[:200])} does not exist.", "model_not_found", "model")
