"""Cases that a project tests its policies with: a resource or a plan, and what a policy must say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from llmctl.core.address import Address
from llmctl.core.diagnostics import SourceRange
from llmctl.core.digests import Json
from llmctl.core.resources import Environment, Resource
from llmctl.core.steps import Action
from llmctl.plan import ResourceChange
from llmctl.policy.evaluate import Specs, outcome, severity_of
from llmctl.policy.fields import (
    ENVIRONMENT,
    PLAN,
    Shape,
    changes_view,
    environment_view,
    fields_of,
    resource_view,
    root_of,
)
from llmctl.policy.samples import SAMPLES, sample_of
from llmctl.spec.models.base import Shape as FileShape
from llmctl.spec.nodes import Location, plain
from llmctl.spec.report import Report
from llmctl.spec.source import Source
from llmctl.spec.suggestions import suggestion
from llmctl.spec.view import validated
from llmctl.spec.yaml_reader import read

START = "Start with `cases:` and a list; `llmctl policy test --help` shows one."

_ACTIONS = sorted(action.value for action in Action)
_TYPES = {"string": (str,), "number": (int, float), "boolean": (bool,), "map": (dict,)}


class CaseShape(FileShape):
    """One case."""

    policy: str = Field(description="The name of a policy of this file.", examples=["open-licence"])
    expect: Literal["allow", "deny", "warn"] = Field(description="What it must say.", examples=["deny"])
    name: str = Field(default="", description="What the case is about.", examples=["a GPL model"])
    resource: dict[str, Any] | None = Field(
        default=None,
        description="What differs from a plain resource of the policy's kind.",
        examples=[{"license": "GPL-3.0"}],
    )
    plan: dict[str, Any] | None = Field(
        default=None,
        description="What differs from an empty plan; `changes` are counted.",
        examples=[{"changes": [{"address": "route.support", "action": "delete"}]}],
    )
    environment: dict[str, Any] = Field(
        default_factory=dict, description="What differs from the environment.", examples=[{"name": "prod"}]
    )


class CasesShape(FileShape):
    """A file of cases."""

    cases: list[Any] = Field(description="The cases, each with `policy`, `resource` or `plan`, and `expect`.")


@dataclass(frozen=True, slots=True)
class Case:
    """What a policy must say of what: ``expect`` is allow, deny or warn; ``view`` is all that the rule can read."""

    policy: str
    name: str
    expect: str
    view: Mapping[str, Json]
    where: SourceRange


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a policy said of a case; ``error`` why its rule could not be evaluated, which denies."""

    case: Case
    got: str
    error: str

    @property
    def passed(self) -> bool:
        return self.got == self.case.expect


def read_cases(source: Source, policies: Specs, environment: Environment, project: str) -> list[Case]:
    """The cases of a file. Raises ``InvalidInput`` with everything that is wrong with it."""
    tree, found, refused = read(source, START)
    report = Report(tree)
    report.silence_nodes(refused)
    for finding in found:
        report.add(finding)
    shared = {"environment": environment_view(environment), "project": project}
    file = validated(report, CasesShape, (), plain(tree))
    cases = [_case(report, ("cases", n), given, policies, shared) for n, given in enumerate(file.cases if file else ())]
    report.raise_errors()
    return [case for case in cases if case is not None]


def run_case(case: Case, policies: Specs) -> CaseResult:
    """Judge one case. Waivers are left out: they are for single resources, and end."""
    spec = policies[case.policy]
    ok, error = outcome(spec["applies_to"], spec["require"], case.view)
    said = "deny" if error else severity_of(spec)
    return CaseResult(case, "allow" if ok else said, error)


def _case(report: Report, here: Location, given: Json, policies: Specs, shared: Mapping[str, Json]) -> Case | None:
    shape = validated(report, CaseShape, here, given)
    if shape is None:
        return None
    if shape.policy not in policies:
        hint = suggestion(shape.policy, policies, "policies")
        report.error((*here, "policy"), f"there is no policy `{shape.policy}`", hint=hint)
        return None
    kind = policies[shape.policy]["applies_to"]
    root = root_of(kind)
    about, other = (shape.plan, shape.resource) if root == PLAN else (shape.resource, shape.plan)
    if other is not None or about is None:
        summary = f"policy `{shape.policy}` judges {f'a {kind}' if root != PLAN else 'the plan as a whole'}"
        report.error(here, f"{summary}: the case needs `{root}:`, and nothing else", hint=f"Write `{root}: {{…}}`.")
        return None
    _check(report, (*here, root), fields_of(kind) or {}, about)
    _check(report, (*here, "environment"), ENVIRONMENT, shape.environment)
    view = _resource(kind, about) if root != PLAN else _plan(report, (*here, PLAN, "changes"), about)
    shared = {**shared, "environment": {**shared["environment"], **shape.environment}}
    name = shape.name or f"case {int(here[1]) + 1}"
    return Case(shape.policy, name, shape.expect, {**shared, root: view}, report.where((*here, "policy")))


def _resource(kind: str, given: Mapping[str, Json]) -> dict[str, Json]:
    spec = _merged(sample_of(kind), given)
    return resource_view(Resource(Address(kind, spec["name"]), spec, spec["revision"]))


def _plan(report: Report, here: Location, given: Mapping[str, Json]) -> dict[str, Json]:
    """A plan with these changes, which are counted; what else is given stands as it is."""
    listed = given.get("changes")
    changes = [
        change
        for number, item in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(item, dict) and (change := _change(report, (*here, number), item))
    ]
    rest = {key: value for key, value in given.items() if key != "changes"}
    return _merged({**SAMPLES[PLAN], **changes_view(changes)}, rest)


def _change(report: Report, here: Location, given: Mapping[str, Json]) -> ResourceChange | None:
    action = given.get("action", Action.UPDATE.value)
    if action not in _ACTIONS:
        hint = suggestion(str(action), _ACTIONS, "actions")
        report.error((*here, "action"), f"there is no action {action!r}", hint=hint)
        return None
    try:
        address = Address.parse(str(given.get("address", "")))
    except ValueError as error:
        report.error((*here, "address"), str(error), hint="Name the resource: `address: route.support`.")
        return None
    for key in ("kind", "name"):
        if given.get(key, getattr(address, key)) != getattr(address, key):
            report.error((*here, key), f"`{key}` is not that of {address}", hint=f"Remove `{key}`.")
    origin = address if action == Action.MOVE.value else None
    reason = str(given.get("reason", ""))
    return ResourceChange(address, Action(action), reason, before="", after="", moved_from=origin)


def _check(report: Report, here: Location, shape: Shape, value: Json) -> None:
    """Report what a rule would never see: fields that are not there, and values of another type."""
    if value is None:
        return
    if isinstance(shape, str):
        wrong = not isinstance(value, _TYPES[shape]) or (isinstance(value, bool) and shape != "boolean")
        if wrong:
            report.error(here, f"`{_last(here)}` must be a {shape}", hint="`llmctl policy explain` lists the fields.")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            report.error(here, f"`{_last(here)}` must be a list", hint="Write `[…]`.")
            return
        for number, item in enumerate(value):
            _check(report, (*here, number), shape[0], item)
    elif not isinstance(value, dict):
        report.error(here, f"`{_last(here)}` must be a map", hint=f"It may have: {', '.join(shape)}.")
    else:
        for key, inner in value.items():
            if key in shape:
                _check(report, (*here, key), shape[key], inner)
            else:
                hint = suggestion(key, shape, "fields")
                report.error((*here, key), f"`{_last(here)}` has no field `{key}`", hint=hint, at_key=True)


def _last(location: Location) -> str:
    return next(str(part) for part in reversed(location) if isinstance(part, str))


def _merged(base: Mapping[str, Json], given: Mapping[str, Json]) -> dict[str, Json]:
    """Maps merge, all else replaces. Weights are one thing or another, so they replace too."""
    result = dict(base)
    for key, value in given.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and key != "weights":
            value = _merged(old, value)
        result[key] = value
    return result
