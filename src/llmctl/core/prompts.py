"""Rendering prompts: sandboxed Jinja2 with StrictUndefined. Values are data and are never rendered again.

Used by the gateway to answer, by ``spec`` to check templates against their variables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llmctl.core.digests import Json

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.meta import TrackingCodeGenerator
    from jinja2.sandbox import ImmutableSandboxedEnvironment

#: Types a prompt variable may be declared with, and what Python makes of their JSON.
VARIABLE_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
}


class PromptError(ValueError):
    """A prompt cannot be rendered; the message says why, in the user's words."""


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, cache_size=0
    )


@lru_cache(maxsize=4096)
def _compiled(source: str) -> Template:
    return _environment().from_string(source)


@lru_cache(maxsize=1)
def _tracker() -> type[TrackingCodeGenerator]:
    """What finds names, as ``jinja2.meta`` does, and computes nothing: Jinja folds constants, and `{{ "x" * 10**10 }}`
    must not be made for it."""
    from jinja2 import meta, nodes

    class Tracker(meta.TrackingCodeGenerator):
        def _output_child_to_const(self, *_: object) -> str:
            raise nodes.Impossible

    return Tracker


def template_variables(source: str) -> frozenset[str]:
    """The names that a template reads. Raises ``PromptError`` with the line when it does not parse."""
    if "{" not in source:
        return frozenset()
    from jinja2 import TemplateSyntaxError

    try:
        tracker = _tracker()(_environment())
        tracker.optimizer = None
        tracker.visit(_environment().parse(source))
        return frozenset(tracker.undeclared_identifiers)
    except TemplateSyntaxError as error:
        raise PromptError(f"the template does not parse (its line {error.lineno}): {error.message}") from None


def check_variables(declared: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Raise ``PromptError`` when a declared variable is missing, of another type, or one is not declared."""
    missing = sorted(set(declared) - set(given))
    unknown = sorted(set(given) - set(declared))
    if missing:
        raise PromptError(f"prompt variable{_s(missing)} missing: {', '.join(missing)}")
    if unknown:
        known = ", ".join(sorted(declared)) or "none"
        raise PromptError(f"unknown prompt variable{_s(unknown)}: {', '.join(unknown)}; declared: {known}")
    for name, kind in declared.items():
        value = given[name]
        wanted = VARIABLE_TYPES[kind]
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind != "boolean"):
            raise PromptError(f"prompt variable {name} must be a {kind}, not {type(value).__name__}")


def render(
    messages: Iterable[Mapping[str, str]], declared: Mapping[str, str], given: Mapping[str, Json]
) -> list[dict[str, str]]:
    """Render a prompt's messages with the given variables.

    Returns new messages. Raises ``PromptError`` for wrong variables or a failing template.
    """
    from jinja2 import TemplateError

    check_variables(declared, given)
    rendered = []
    for message in messages:
        source = message["content"]
        try:
            content = _compiled(source).render(given) if "{" in source else source
        except TemplateError as error:
            raise PromptError(f"the prompt cannot be rendered: {error.message or type(error).__name__}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise PromptError(f"the prompt cannot be rendered: {error}") from None
        rendered.append({**message, "content": content})
    return rendered


def _s(items: list[str]) -> str:
    return "s" if len(items) > 1 else ""
