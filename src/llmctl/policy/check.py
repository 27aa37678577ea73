"""Judge a policy itself when it is loaded: does it parse, and is all that it names there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.policy.engine import NotCel, Program, compiled
from llmctl.policy.expression import Complaint, closest, names, unknown_variables
from llmctl.policy.fields import ENVIRONMENT, FIELDS, fields_of, root_of

#: Longer rules are refused: nobody can review them, and a parser should not be tried with them.
MAX_LENGTH = 4000


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it was understood: what is wrong with it, or the program, and the ``paths`` that it reads.

    ``faults`` are complaints with the text that shows each; ``program`` is ``None`` when there are any.
    ``wanted`` are the fields of ``resource`` or ``plan`` that the paths begin with.
    """

    faults: tuple[tuple[Complaint, str], ...]
    program: Program | None = None
    paths: tuple[tuple[str, ...], ...] = ()
    wanted: frozenset[str] = frozenset()


def check(address: Address, spec: Mapping[str, Json]) -> list[Diagnostic]:
    """What is wrong with a policy (its resolved spec); empty when it can be evaluated."""
    return [
        Diagnostic(f"{address}: {c.summary}", address=address, detail=detail, hint=c.hint)
        for c, detail in understood(spec["applies_to"], spec["require"]).faults
    ]


@lru_cache(maxsize=1024)
def understood(applies_to: str, require: str) -> Rule:
    """Read a rule on one kind, or on the plan as a whole."""
    fields = fields_of(applies_to)
    if fields is None:
        return _faulty(Complaint(f"applies_to names no kind: {applies_to}", closest(applies_to, list(FIELDS))))
    if len(require) > MAX_LENGTH:
        return _faulty(Complaint("the rule is too long", f"Keep it under {MAX_LENGTH:,} characters, or split it."))
    root = root_of(applies_to)
    try:
        program = compiled(require)
    except NotCel as error:
        hint = f"Write a CEL expression, for example {_EXAMPLES[root]}."
        return _faulty(Complaint("the rule does not parse", hint), str(error))
    found = names(require, {root: fields, "environment": ENVIRONMENT})
    known = {root, "environment", "project"}
    # Inside a macro a bound name hides the variable of that name, and with it the fields that are read.
    taken = sorted(found.bound.keys() & known)
    complaints = [
        *found.complaints,
        *unknown_variables(program.variables(), known | found.bound.keys()),
        *(Complaint(f"a macro binds {name} anew", "Choose another name for its variable.") for name in taken),
    ]
    if complaints:
        return Rule(tuple((complaint, require) for complaint in dict.fromkeys(complaints)))
    paths = tuple(found.paths)
    return Rule((), program, paths, frozenset(path[1] for path in paths if path[0] == root))


def _faulty(complaint: Complaint, detail: str = "") -> Rule:
    return Rule(((complaint, detail),))


_EXAMPLES = {"resource": 'resource.license == "MIT"', "plan": "plan.counts.delete <= 3"}
