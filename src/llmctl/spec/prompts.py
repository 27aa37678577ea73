"""Prompts: templates against their declared variables, and sampling parameters."""

from __future__ import annotations

import keyword
import re

from llmctl.core.diagnostics import SourceRange
from llmctl.core.prompts import PromptError, template_variables
from llmctl.spec.build import Build
from llmctl.spec.models import PromptShape
from llmctl.spec.nodes import Location, Scalar, find
from llmctl.spec.suggestions import suggestion

_MAX_STOPS = 4  # as the OpenAI API
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: Words with a meaning of their own in a template, and names that templates always have.
_RESERVED = frozenset(
    {*keyword.kwlist, "true", "false", "none", "self", "super", "loop", "caller", "varargs", "kwargs"}
    | {"range", "dict", "lipsum", "cycler", "joiner", "namespace"}
)
_PLAIN_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def variables_of(content: str) -> frozenset[str]:
    """The names that a template reads; raises ``PromptError`` when it does not parse."""
    # Importing Jinja2 costs 45 ms, a fifth of what `validate` may take. Templates that hold nothing but
    # `{{ name }}` are read here; anything else is left to it.
    names = frozenset(_PLAIN_VARIABLE.findall(content))
    rest = _PLAIN_VARIABLE.sub("", content)
    if "{" not in rest and "}" not in rest and not names & _RESERVED:
        return names
    try:
        return template_variables(content)
    except PromptError:
        raise
    except (ValueError, RecursionError, ArithmeticError, TypeError, LookupError) as error:
        raise PromptError(f"the template does not parse: {type(error).__name__}") from None


def resolve_prompt(build: Build, name: str, shape: PromptShape) -> None:
    """Check the templates and add the prompt."""
    here: Location = ("prompts", name)
    _check_names(build, here, shape)
    used: set[str] = set()
    parsed = True
    for index, message in enumerate(shape.messages):
        location = (*here, "messages", index, "content")
        try:
            variables = variables_of(message.content)
        except PromptError as error:
            hint = "Correct the template; `{{ name }}` stands for a variable, `{% … %}` for logic."
            build.report.error(location, str(error), hint=hint)
            parsed = False
            continue
        used |= variables
        for variable in sorted(variables - set(shape.variables)):
            hint = suggestion(variable, shape.variables, "declared variables")
            build.report.error(
                location,
                f"the template reads `{variable}`, which `variables` does not declare",
                hint=f"Declare it, `variables: {{{variable}: string}}`, or correct its name: {hint}",
                where=_place_of(build, location, variable),
            )
    for variable in shape.variables:
        if parsed and variable not in used:
            summary = f"variable `{variable}` is declared, and no message reads it"
            hint = f"Remove it, or use it: `{{{{ {variable} }}}}`."
            build.report.error((*here, "variables", variable), summary, hint=hint, at_key=True)
    build.add(
        "prompt",
        name,
        shape,
        {
            "messages": [{"role": m.role, "content": m.content} for m in shape.messages],
            "variables": dict(shape.variables),
            "parameters": shape.parameters.model_dump(exclude_none=True),
        },
    )


def _check_names(build: Build, here: Location, shape: PromptShape) -> None:
    for variable in shape.variables:
        if not _IDENTIFIER.match(variable) or variable in _RESERVED:
            hint = "Use letters, digits and `_`, starting with a letter, and no word that Jinja2 or Python reserves."
            build.report.error(
                (*here, "variables", variable), f"{variable!r} cannot name a variable", hint=hint, at_key=True
            )
    stop = shape.parameters.stop
    stops = [stop] if isinstance(stop, str) else stop
    if stops is not None and (not 1 <= len(stops) <= _MAX_STOPS or "" in stops):
        summary = f"`stop` must be text or a list of 1 to {_MAX_STOPS} texts, none of them empty"
        build.report.error((*here, "parameters", "stop"), summary, at_key=True)


def _place_of(build: Build, location: Location, variable: str) -> SourceRange | None:
    """Where in a message a variable is read."""
    node = find(build.report.tree, location)[1]
    if not isinstance(node, Scalar):
        return None
    return node.source.find_word(variable, node.line, node.end_line, node.column)
