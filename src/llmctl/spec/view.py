"""The file as typed shapes: each resource is validated by itself, so that one mistake hides no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ValidationError

from llmctl.core.address import NAME
from llmctl.spec.interpolation import REFERENCE
from llmctl.spec.messages import explain, shown, unknown_key
from llmctl.spec.models import (
    DatasetShape,
    EndpointShape,
    EnvironmentShape,
    FileShape,
    GateShape,
    HeaderShape,
    ModelShape,
    PolicyShape,
    PromptShape,
    RouteShape,
    Shape,
)
from llmctl.spec.nodes import Location, Mapping, Node, Scalar, Sequence, find, plain
from llmctl.spec.report import KIND_OF_SECTION, Report, suggestion
from llmctl.spec.source import Source, is_secret_name

S = TypeVar("S", bound=Shape)

_HEADER = tuple(HeaderShape.model_fields)


@dataclass
class View:
    """The well-formed resources of a tree, by name.

    ``names`` has the malformed ones too, by section; a section that is no map is not in it.
    """

    project: str = ""
    owner: str = ""
    environments: dict[str, EnvironmentShape] = field(default_factory=dict)
    datasets: dict[str, DatasetShape] = field(default_factory=dict)
    models: dict[str, ModelShape] = field(default_factory=dict)
    prompts: dict[str, PromptShape] = field(default_factory=dict)
    endpoints: dict[str, EndpointShape] = field(default_factory=dict)
    routes: dict[str, RouteShape] = field(default_factory=dict)
    gates: dict[str, GateShape] = field(default_factory=dict)
    policies: dict[str, PolicyShape] = field(default_factory=dict)
    names: dict[str, frozenset[str]] = field(default_factory=dict)


def view_of(report: Report) -> View:
    """The view of the report's tree; everything malformed is reported and left out."""
    root = report.tree
    assert isinstance(root, Mapping)  # the reader refuses any other file
    view = View()
    for key in root.items:
        if key not in FileShape.model_fields:
            unknown_key(report, FileShape, (key,))
    _refuse_nothing(report, root, ())
    if isinstance(project := root.get("project"), Scalar) and isinstance(project.value, str):
        _check_name(report, ("project",), project.value, at_key=False)
    header = validated(report, HeaderShape, (), {k: plain(n) for k in _HEADER if (n := root.get(k)) is not None})
    if header is not None:
        view.project, view.owner = header.project, header.owner
    if not root.get("environments") or (isinstance(e := root.get("environments"), Mapping) and not e.items):
        hint = "Add at least one, for example `environments: {dev: {target: local}}`."
        report.error(("environments",), "`environments` is missing", hint=hint, at_key=True)
    view.environments = _section(report, view, "environments", EnvironmentShape)
    view.datasets = _section(report, view, "datasets", DatasetShape)
    view.models = _section(report, view, "models", ModelShape)
    view.prompts = _section(report, view, "prompts", PromptShape)
    view.endpoints = _section(report, view, "endpoints", EndpointShape)
    view.routes = _section(report, view, "routes", RouteShape)
    view.gates = _section(report, view, "gates", GateShape)
    view.policies = _section(report, view, "policies", PolicyShape)
    _check_references(report, view)
    return view


def validated(report: Report, shape: type[S], location: Location, value: object) -> S | None:
    """The value as that shape, or ``None`` when it is not one; what is wrong is reported."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        explain(report, shape, error, location)
        return None


def _section(report: Report, view: View, section: str, shape: type[S]) -> dict[str, S]:
    root = report.tree
    node = root.get(section) if isinstance(root, Mapping) else None
    if node is None or (isinstance(node, Scalar) and node.value is None):
        view.names[section] = frozenset()
        return {}
    if not isinstance(node, Mapping):
        report.error((section,), f"`{section}` must be a map of names, not {shown(plain(node))}")
        return {}
    view.names[section] = frozenset(node.items)
    result: dict[str, S] = {}
    for name, (_, entry) in node.items.items():
        location = (section, name)
        _check_name(report, location, name, at_key=True)
        if section == "models":
            _check_secret(report, location, entry)
        if (item := validated(report, shape, location, plain(entry))) is not None:
            result[name] = item
    return result


def _check_name(report: Report, location: Location, name: str, *, at_key: bool) -> None:
    if NAME.match(name):
        return
    what = "a name" if at_key else f"a {location[0]} name"
    hint = "Use lower-case letters, digits, `-` and `_`; start and end with a letter or digit; at most 63 characters."
    report.error(location, f"{shown(name)} cannot be {what}", hint=hint, at_key=at_key)


def _refuse_nothing(report: Report, node: Node, location: Location) -> None:
    """A key without a value is a slip; only a whole section may be left empty."""
    if isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            _refuse_nothing(report, item, (*location, index))
    elif isinstance(node, Mapping):
        for key, (_, value) in node.items.items():
            free = key in ("hyperparameters", "overrides") and isinstance(value, Mapping)
            if not free and not (not location and key in KIND_OF_SECTION and isinstance(value, Scalar)):
                _refuse_nothing(report, value, (*location, key))
    elif node.value is None:
        last = location[-1]
        what = f"`{last}`" if isinstance(last, str) else f"item {last + 1} of `{location[-2]}`"
        report.error(location, f"{what} has no value", hint="Give it one, or remove it.", at_key=True)
        report.silence(location)


def _check_secret(report: Report, location: Location, entry: Node) -> None:
    node = entry.get("api_key") if isinstance(entry, Mapping) else None
    if node is None or (isinstance(node, Scalar) and (node.value is None or REFERENCE.match(str(node.value)))):
        return
    here = (*location, "api_key")
    if isinstance(node, Scalar) and str(node.value).startswith("${file:"):
        report.error(here, "`${file:…}` is not served yet", hint='Write "${env:NAME}".', at_key=True)
    else:
        report.error(
            here,
            "`api_key` takes a reference, never the key itself",
            hint='Put the key into an environment variable and write "${env:NAME}"; replace a key that was committed.',
            at_key=True,
        )
    report.silence(here)


def mask_secrets(source: Source, node: Node, key: Scalar | None = None) -> None:
    """Tell the source which lines hold nothing but (a part of) a secret's value."""
    if isinstance(node, Mapping):
        for name, (inner, value) in node.items.items():
            mask_secrets(source, value, key or (inner if is_secret_name(name) else None))
    elif isinstance(node, Sequence):
        for item in node.items:
            mask_secrets(source, item, key)
    elif key is not None and not REFERENCE.match(str(node.value)):
        first = node.line if node.line > key.line else node.line + 1
        source.secret_lines.update(range(first, node.end_line + 1))


#: Fields that name resources: the section they are in, the way to them, the section they mean.
_REFERENCES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("models", ("lineage", "trained_on"), "datasets"),
    ("endpoints", ("model",), "models"),
    ("routes", ("prompt",), "prompts"),
    ("routes", ("endpoint",), "endpoints"),
    ("routes", ("fallback",), "endpoints"),
    ("gates", ("route",), "routes"),
    ("gates", ("dataset",), "datasets"),
)


def _references(report: Report, view: View) -> Iterator[tuple[Location, str, str]]:
    """Every name that points at a resource: where it stands, the section it means, the name.

    Read from the tree, so that a resource with another mistake in it is looked at too.
    """
    for section, path, meant in _REFERENCES:
        for resource in view.names.get(section, ()):
            location: Location = (section, resource, *path)
            _, node, whole = find(report.tree, location)
            if not whole:
                continue
            places: list[tuple[Location, Node]] = [(location, node)]
            if isinstance(node, Sequence):
                places = [((*location, index), item) for index, item in enumerate(node.items)]
            for place, item in places:
                if isinstance(item, Scalar) and isinstance(item.value, str):
                    yield place, meant, item.value


def _check_references(report: Report, view: View) -> None:
    for location, section, name in _references(report, view):
        known = view.names.get(section)
        if known is None or name in known:
            continue
        node = find(report.tree, location)[1]
        written = node.written if isinstance(node, Scalar) else name
        kind = KIND_OF_SECTION[section]
        hint = suggestion(name, known, section)
        if elsewhere := [s for s in KIND_OF_SECTION if name in view.names.get(s, ())]:
            hint = f"`{name}` is a name among the {elsewhere[0]}; {section} are meant here; {hint}"
        report.error(location, f"there is no {kind} {shown(written)}", hint=hint)
    _check_lineage(report, view)


def _check_lineage(report: Report, view: View) -> None:
    """``lineage.base`` may name a model of this file, and then must not come back to itself."""
    told: set[frozenset[str]] = set()
    for start in view.models:
        path = [start]
        while (base := _base(view, path[-1])) is not None and base not in path:
            path.append(base)
        if base != start or frozenset(path) in told:
            continue
        told.add(frozenset(path))
        shape = " → ".join(f"model.{name}" for name in [*path, start])
        hint = "Name as `base` what the model was made from."
        report.error(("models", start, "lineage", "base"), f"a cycle of base models: {shape}", hint=hint)


def _base(view: View, name: str) -> str | None:
    model = view.models.get(name)
    return model.lineage.base if model and model.lineage.base in view.models else None
