"""The file as typed shapes: each resource is validated by itself, so that one mistake hides no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, cast, get_args

from pydantic import ValidationError

from llmctl.core import plugins
from llmctl.core.address import NAME
from llmctl.core.kinds import BY_NAME
from llmctl.core.plugins import installed
from llmctl.spec.interpolation import REFERENCE
from llmctl.spec.messages import LEFT_OUT, explain, shown, unknown_key
from llmctl.spec.models import (
    DatasetShape,
    EndpointShape,
    EnvironmentShape,
    FileShape,
    GateShape,
    HeaderShape,
    ModelShape,
    MovedShape,
    PolicyScope,
    PolicyShape,
    PromptShape,
    ResourceShape,
    RouteShape,
    Shape,
    policy_shape,
)
from llmctl.spec.nodes import Location, Mapping, Node, Scalar, Sequence, find, plain
from llmctl.spec.report import Report
from llmctl.spec.reserved import VALUES
from llmctl.spec.sections import KIND_OF_SECTION, plugin_in
from llmctl.spec.suggestions import closest, suggestion

S = TypeVar("S", bound=Shape)

_HEADER = tuple(HeaderShape.known_keys())
_SHAPES: dict[str, type[ResourceShape]] = {
    "datasets": DatasetShape,
    "models": ModelShape,
    "prompts": PromptShape,
    "endpoints": EndpointShape,
    "routes": RouteShape,
    "gates": GateShape,
    "policies": PolicyShape,
}
_FREE = frozenset({"hyperparameters", "overrides", "schema"})  # keys below which `null` is a value like others

#: Entries in which nothing was wrong, with their shapes: environments share most, and none is looked at twice.
Memo = dict[tuple[str, int], tuple[Node, Shape]]


@dataclass
class View:
    """The well-formed resources of a tree, by name.

    ``names`` has the malformed ones too, by section; a section that is no map is not in it.
    """

    project: str = ""
    owner: str = ""
    moved: list[MovedShape] = field(default_factory=list)
    environments: dict[str, EnvironmentShape] = field(default_factory=dict)
    datasets: dict[str, DatasetShape] = field(default_factory=dict)
    models: dict[str, ModelShape] = field(default_factory=dict)
    prompts: dict[str, PromptShape] = field(default_factory=dict)
    endpoints: dict[str, EndpointShape] = field(default_factory=dict)
    routes: dict[str, RouteShape] = field(default_factory=dict)
    gates: dict[str, GateShape] = field(default_factory=dict)
    policies: dict[str, PolicyShape] = field(default_factory=dict)
    plugins: dict[str, dict[str, ResourceShape]] = field(default_factory=dict)  # by section
    names: dict[str, frozenset[str]] = field(default_factory=dict)


def view_of(report: Report, memo: Memo) -> View:
    """The view of the report's tree; everything malformed is reported and left out."""
    root = report.tree
    assert isinstance(root, Mapping)  # the reader refuses any other file
    view = View()
    plugins: dict[str, type[ResourceShape]] = {}
    for key, (_, node) in root.items.items():
        if plugin := plugin_in(key):
            plugins[key] = plugin.entry
        elif key not in FileShape.known_keys():
            unknown_key(report, FileShape, (key,))
        if key not in _SHAPES and key not in plugins and not (key == "environments" and isinstance(node, Mapping)):
            _refuse_nothing(report, node, (key,))
    if isinstance(project := root.get("project"), Scalar) and isinstance(project.value, str):
        _check_name(report, ("project",), project.value, at_key=False)
    header = validated(report, HeaderShape, (), {k: plain(n) for k in _HEADER if (n := root.get(k)) is not None})
    if header is not None:
        view.project, view.owner, view.moved = header.project, header.owner, header.moved
    if not root.get("environments") or (isinstance(e := root.get("environments"), Mapping) and not e.items):
        hint = "Add at least one, for example `environments: {dev: {target: local}}`."
        report.error(("environments",), "`environments` is missing", hint=hint, at_key=True)
    view.environments = _section(report, view, "environments", EnvironmentShape, memo)
    resources_of(report, view, _SHAPES, memo)
    view.plugins = {section: _section(report, view, section, entry, memo) for section, entry in plugins.items()}
    for section in _moved_sections(view.moved):
        if root.get(section) is None:
            view.names[section] = frozenset()
    _check_references(report, view)
    return view


def _moved_sections(moved: Iterable[MovedShape]) -> Iterator[str]:
    """The sections of plug-ins' kinds that are said to have a new name; that of one may not be in the file."""
    for kind in {end.partition(".")[0] for entry in moved for end in (entry.origin, entry.to)} - BY_NAME.keys():
        if plugin := installed().get(kind):
            yield plugin.kind.section


def resources_of(report: Report, view: View, sections: Iterable[str], memo: Memo) -> None:
    """Put the well-formed resources of these sections into the view; what is malformed is reported."""
    for section in sections:
        setattr(view, section, _section(report, view, section, _SHAPES[section], memo))


def validated(report: Report, shape: type[S], location: Location, value: object) -> S | None:
    """The value as that shape, or ``None`` when it is not one; what is wrong is reported."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        explain(report, shape, error, location)
        return None


def _section(report: Report, view: View, section: str, shape: type[S], memo: Memo) -> dict[str, S]:
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
        if not NAME.match(name):
            _check_name(report, (section, name), name, at_key=True)
        known = memo.get((section, id(entry)))
        item = known[1] if known else _entry(report, (section, name), shape, entry, memo)
        if isinstance(item, shape):
            result[name] = item
    return result


def _entry(report: Report, location: Location, shape: type[S], entry: Node, memo: Memo) -> S | None:
    before = report.count
    if shape is PolicyShape and plugins.are_left_out() and _judges_unknown_kind(entry):
        report.warn((*location, "applies_to"), f"the policy is passed over: {LEFT_OUT}")
        return None
    _refuse_nothing(report, entry, location)
    if shape is ModelShape:
        _check_secret(report, location, entry)
    shape = _with_plugins(shape, entry)
    item = validated(report, shape, location, plain(entry))
    if item is not None and report.count == before:
        memo[str(location[0]), id(entry)] = (entry, item)  # the entry is kept, so that its id stays its own
    return item


def _with_plugins(shape: type[S], entry: Node) -> type[S]:
    """The shape of a policy may name a kind of a plug-in; packages are asked only when it names no built-in one."""
    if shape is not PolicyShape or not isinstance(entry, Mapping):
        return shape
    scope = entry.get("applies_to")
    if not isinstance(scope, Scalar) or not isinstance(scope.value, str):
        return shape
    return shape if scope.value in get_args(PolicyScope) else cast("type[S]", policy_shape(tuple(installed())))


def _judges_unknown_kind(entry: Node) -> bool:
    scope = entry.get("applies_to") if isinstance(entry, Mapping) else None
    if not isinstance(scope, Scalar) or not isinstance(scope.value, str):
        return False
    known = (*get_args(PolicyScope), *VALUES["policy", "applies_to"])
    return bool(NAME.match(scope.value)) and scope.value not in known and not closest(scope.value, known)


def _check_name(report: Report, location: Location, name: str, *, at_key: bool) -> None:
    if NAME.match(name):
        return
    what = "a name" if at_key else f"a {location[0]} name"
    hint = "Use lower-case letters, digits, `-` and `_`; start and end with a letter or digit; at most 63 characters."
    report.error(location, f"{shown(name)} cannot be {what}", hint=hint, at_key=at_key)


def _refuse_nothing(report: Report, node: Node, location: Location) -> None:
    """A key without a value is a slip."""
    if not node.special:
        return
    if isinstance(node, Sequence):
        for index, item in enumerate(node.items):
            _refuse_nothing(report, item, (*location, index))
    elif isinstance(node, Mapping):
        for key, (_, value) in node.items.items():
            if not (key in _FREE and isinstance(value, Mapping)):
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
        hint = 'Put the key into an environment variable and write "${env:NAME}".'
        report.error(here, "`api_key` takes no file: what is read from one is recorded", hint=hint, at_key=True)
    else:
        report.error(
            here,
            "`api_key` takes a reference, never the key itself",
            hint='Put the key into an environment variable and write "${env:NAME}"; replace a key that was committed.',
            at_key=True,
        )
    report.silence(here)


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
