"""A client's chat request, checked, and the upstream's request made of it. Pure: no network, no clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from llmctl.core.digests import Json
from llmctl.core.gateway_config import RouteRevision
from llmctl.core.prompts import PromptError, render
from llmctl.gateway.replies import ApiError

_NUMBER = ((int, float), "a number")
_INTEGER = ((int,), "an integer")
_BOOLEAN = ((bool,), "true or false")
_STRING = ((str,), "a string")
_LIST = ((list,), "a list")
_OBJECT = ((dict,), "an object")

#: Keys whose type is checked here. Others go to the upstream untouched.
_KNOWN: Mapping[str, tuple[tuple[type, ...], str]] = {
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "top_k": _INTEGER,
    "min_p": _NUMBER,
    "frequency_penalty": _NUMBER,
    "presence_penalty": _NUMBER,
    "repeat_penalty": _NUMBER,
    "max_tokens": _INTEGER,
    "max_completion_tokens": _INTEGER,
    "n": _INTEGER,
    "seed": _INTEGER,
    "stop": ((str, list), "a string or a list"),
    "logit_bias": _OBJECT,
    "logprobs": _BOOLEAN,
    "top_logprobs": _INTEGER,
    "response_format": _OBJECT,
    "tools": _LIST,
    "tool_choice": ((str, dict), "a string or an object"),
    "stream": _BOOLEAN,
    "stream_options": _OBJECT,
    "user": _STRING,
}
_OWN = frozenset({"model", "prompt_variables", "messages"})
#: Two names of one limit: a client that sets either must not get the prompt's other one beside it.
_SAME_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asked for. ``variables`` and ``messages`` are None when they were not given."""

    model: str
    variables: Mapping[str, Json] | None
    messages: tuple[Mapping[str, Json], ...] | None
    parameters: Mapping[str, Json]

    @property
    def stream(self) -> bool:
        return bool(self.parameters.get("stream"))

    @property
    def user(self) -> str | None:
        return self.parameters.get("user")


def parse(raw: bytes) -> ChatRequest:
    """Read a request's body; raises ``ApiError`` 400 naming what is wrong."""
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "The request's body is not valid JSON.", "invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The request's body must be a JSON object.", "invalid_type")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "a string: the name of a route")
    for key, (types, what) in _KNOWN.items():
        value = body.get(key)
        if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
            raise _wrong(key, what)
    variables = body.get("prompt_variables")
    if variables is not None and not isinstance(variables, dict):
        raise _wrong("prompt_variables", "an object: variable names and values")
    return ChatRequest(
        model,
        variables,
        _messages(body.get("messages")),
        # OpenAI's clients send null for what their caller left out, so the prompt's default stands.
        {k: v for k, v in body.items() if k not in _OWN and not (v is None and k in _KNOWN)},
    )


def _messages(value: Json) -> tuple[Mapping[str, Json], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise _wrong("messages", "a list of messages")
    for position, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(f"messages[{position}]", "an object with a role")
        if not isinstance(message.get("content"), (str, list, type(None))):
            raise _wrong(f"messages[{position}].content", "a string or a list of parts")
    return tuple(value)


def _wrong(param: str, what: str) -> ApiError:
    return ApiError(400, f"{param} must be {what}.", "invalid_type", param)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def payload(request: ChatRequest, revision: RouteRevision, fixed: tuple[Mapping[str, str], ...]) -> dict[str, Json]:
    """The upstream's request, still without its model.

    ``fixed`` are the prompt's messages that need no variables: they alone go before the messages of a
    client that gives messages and no variables. Raises ``ApiError`` 400 for wrong variables.
    """
    try:
        if request.variables is None and revision.variables and request.messages:
            rendered = render(fixed, {}, {})
        else:
            rendered = render(revision.messages, revision.variables, request.variables or {})
    except PromptError as error:
        raise ApiError(400, str(error), "invalid_prompt_variables", "prompt_variables") from None
    messages = [*rendered, *(request.messages or ())]
    if not messages:
        raise ApiError(400, "messages are needed: this route's prompt has none of its own.", "missing", "messages")
    given = request.parameters
    defaults = {k: v for k, v in revision.parameters.items() if _SAME_LIMIT.get(k) not in given}
    return {**defaults, **given, "messages": messages}
