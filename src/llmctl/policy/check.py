"""Judge a policy itself when it is loaded: does it parse, and is all that it names there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.policy.engine import NotCel, compiled
from llmctl.policy.expression import Complaint, closest, names, unknown_variables
from llmctl.policy.fields import ENVIRONMENT, FIELDS, NESTED

#: Longer rules are refused: nobody can review them, and a parser should not be tried with them.
MAX_LENGTH = 4000


def check(address: Address, spec: Mapping[str, Json]) -> list[Diagnostic]:
    """What is wrong with a policy (its resolved spec); empty when it can be evaluated."""
    return [
        Diagnostic(f"{address}: {c.summary}", address=address, detail=detail, hint=c.hint)
        for c, detail in findings(spec["applies_to"], spec["require"])
    ]


@lru_cache(maxsize=1024)
def findings(kind: str, require: str) -> tuple[tuple[Complaint, str], ...]:
    """Each complaint about a rule on one kind, with the text that shows it."""
    if kind not in FIELDS:
        return ((Complaint(f"applies_to names no kind: {kind}", closest(kind, list(FIELDS))), ""),)
    if len(require) > MAX_LENGTH:
        return ((Complaint("the rule is too long", f"Keep it under {MAX_LENGTH:,} characters, or split it."), ""),)
    try:
        program = compiled(require)
    except NotCel as error:
        hint = 'Write a CEL expression, for example resource.license == "MIT".'
        return ((Complaint("the rule does not parse", hint), str(error)),)
    roots = {"resource": FIELDS[kind], "environment": ENVIRONMENT}
    found = names(require, roots, NESTED)
    known = {"resource", "environment", "project"}
    # Inside a macro a bound name hides the variable of that name, and with it the fields that are read.
    taken = sorted(found.bound & known)
    complaints = [
        *found.complaints,
        *unknown_variables(program.variables(), known | found.bound),
        *(Complaint(f"a macro binds {name} anew", "Choose another name for its variable.") for name in taken),
    ]
    return tuple((complaint, require) for complaint in dict.fromkeys(complaints))
