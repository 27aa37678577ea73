"""pydantic's findings in plain English, at the place in the file that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from llmctl.core import plugins
from llmctl.spec.models import (
    DURATION,
    REMOTE_NAME,
    ChecksShape,
    DatasetShape,
    EndpointShape,
    EnvironmentShape,
    FileShape,
    GateShape,
    GatewayShape,
    ModelShape,
    PolicyShape,
    PromptShape,
    RolloutShape,
    RouteShape,
    Shape,
)
from llmctl.spec.nodes import Location, Scalar, find
from llmctl.spec.report import Report
from llmctl.spec.reserved import VALUES, not_served
from llmctl.spec.sections import known_sections
from llmctl.spec.source import is_secret_name, without_credentials
from llmctl.spec.suggestions import suggestion

#: The place whose reserved words apply inside of a shape.
_PLACES: dict[type[Shape], str] = {
    EnvironmentShape: "environment",
    GatewayShape: "gateway",
    DatasetShape: "dataset",
    ChecksShape: "checks",
    ModelShape: "model",
    PromptShape: "prompt",
    EndpointShape: "endpoint",
    RouteShape: "route",
    RolloutShape: "rollout",
    GateShape: "gate",
    PolicyShape: "policy",
    FileShape: "file",
}
_TYPES: dict[Any, str] = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def explain(report: Report, shape: type[Shape], error: ValidationError, base: Location) -> None:
    """Report all that pydantic found in the value at ``base``, which should have had that shape."""
    for item in error.errors(include_url=False, include_context=False):
        if item["loc"] and item["loc"][-1] == "str" and isinstance(item["input"], list):
            continue  # of "text or a list", the finding about the list's items says more
        steps = list(_walk(shape, item["loc"]))
        location = (*base, *(part for part, _, _, _ in steps))
        owner, key, field = _last_field(shape, steps, base)
        if item["type"] == "extra_forbidden":
            unknown_key(report, owner, location)
        elif item["type"] == "missing":
            hint = f"Add `{key}:`. {field.description or ''}" if field else ""
            report.error(location, f"`{key}` is missing", hint=hint.strip(), at_key=True)
        else:
            annotation, metadata = steps[-1][2:] if steps else (shape, ())
            _wrong_value(report, location, owner, key, (annotation, metadata), item["input"])


def _place(owner: type[Shape]) -> str:
    return next((_PLACES[shape] for shape in owner.__mro__ if shape in _PLACES), "")


#: Of what may belong to a package, and is not looked at.
LEFT_OUT = "kinds of other packages are left out under --untrusted"

#: In the hint of a key at the top of the file that may be the section of a package that is not installed.
NONE_ADDS_IT = "a package that adds kinds can add a section, and none that is installed adds this one"


def unknown_key(report: Report, owner: type[Shape], location: Location) -> None:
    """Report a key that its map does not know: reserved, misspelt, or from elsewhere."""
    key = str(location[-1])
    if not_served(_place(owner), key):
        report.error(location, f"`{key}` is not served yet", hint="Remove it.", at_key=True)
        return
    known = {*owner.known_keys(), *(known_sections() if owner is FileShape else ())}
    hint = suggestion(key, known, "known keys here")
    if owner is FileShape and not hint.startswith("did you mean"):
        if plugins.are_left_out():
            report.warn(location, f"`{key}` is passed over: {LEFT_OUT}")
            return
        hint += f"; {NONE_ADDS_IT}"
    report.error(location, f"unknown key `{key}`", hint=hint, at_key=True)


_Step = tuple[Union[str, int], "type[Shape] | None", Any, Sequence[Any]]


def _walk(shape: type[Shape], path: tuple[str | int, ...]) -> Iterator[_Step]:
    """The parts of pydantic's path that are in the file, each with its owner, annotation and metadata.

    pydantic adds parts of its own for the members of a union; they name no key and are left out.
    """
    annotation: Any = shape
    for part in path:
        annotation = _bare(annotation)
        origin = get_origin(annotation)
        if isinstance(annotation, type) and issubclass(annotation, Shape):
            field = annotation.known_keys().get(str(part))
            owner = annotation
            annotation = field.annotation if field else Any
            yield part, owner, annotation, field.metadata if field else ()
        elif origin is dict:
            annotation = get_args(annotation)[1]
            yield part, None, annotation, ()
        elif origin is list and isinstance(part, int):
            annotation = get_args(annotation)[0]
            yield part, None, annotation, ()
        elif origin in (Union, UnionType) and isinstance(part, int):
            annotation = next((get_args(a)[0] for a in get_args(annotation) if get_origin(a) is list), Any)
            yield part, None, annotation, ()


def _bare(annotation: Any) -> Any:
    """Without ``Annotated`` and without ``None``, which stands only for "left out"."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [a for a in get_args(annotation) if a is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else Union[tuple(rest)]
    return annotation


def _last_field(shape: type[Shape], steps: list[_Step], base: Location) -> tuple[type[Shape], str, FieldInfo | None]:
    """The shape that owns the last key, the key as messages name it, and its field."""
    owner, key = shape, str(base[-1]) if base else "the file"
    for part, step_owner, _, _ in steps:
        if step_owner is not None:
            owner = step_owner
        if isinstance(part, str):
            key = part
    return owner, key, owner.known_keys().get(key)


def _wrong_value(
    report: Report, location: Location, owner: type[Shape], key: str, wanted: tuple[Any, Sequence[Any]], value: Any
) -> None:
    what = f"item {location[-1] + 1} of `{key}`" if isinstance(location[-1], int) else f"`{key}`"
    if isinstance(value, str) and value in VALUES.get((_place(owner), key), ()):
        report.error(location, f"`{value}` is not served yet as `{key}`", hint=f"Use {describe(*wanted)}.")
        return
    node = find(report.tree, location)[1]
    if isinstance(node, Scalar):
        value = node.written  # a variable's value is not shown: it may be what must not be seen
    summary = f"{what} must be {describe(*wanted)}"
    report.error(
        location,
        summary if is_secret_name(key) else f"{summary}, not {shown(value)}",
        hint=_hint(*wanted, value),
    )


def _hint(annotation: Any, metadata: Sequence[Any], value: Any) -> str:
    bare = _bare(annotation)
    if _limit(metadata, "pattern") == DURATION:
        return "Units: ms, s, m, h."
    if get_origin(bare) is Literal and isinstance(value, str):
        choices = [str(a) for a in get_args(bare) if a]
        return suggestion(value, choices, "known values")
    if bare is str and isinstance(value, (int, float)):
        return "Put it in quotes."
    if bare in (int, float) and isinstance(value, str):
        return "Write the number without quotes." if value.strip("+-").replace(".", "", 1).isdigit() else ""
    if bare is str and isinstance(value, dict):
        return "Put text that starts with `{` in quotes."
    return ""


def describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a field takes: "a whole number greater than 0"."""
    bare = _bare(annotation)
    origin = get_origin(bare)
    if _limit(metadata, "pattern") == DURATION:
        return "a time with its unit, such as 30s or 5m"
    if _limit(metadata, "pattern") == REMOTE_NAME:
        return "the name of a git remote, such as origin"
    if origin is Literal:
        return _either([str(a) for a in get_args(bare) if a != ""])
    if origin in (Union, UnionType):
        return " or ".join(describe(a) for a in get_args(bare))
    if bare in _TYPES:
        return _TYPES[bare] + _bounds(bare, metadata)
    if origin is list:
        return "a list" + (" with at least one item" if _limit(metadata, "min_length") else "")
    if origin is dict or (isinstance(bare, type) and issubclass(bare, Shape)):
        return "a map of keys"
    return "a value"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _limit(metadata: Sequence[Any], name: str) -> Any:
    return next((getattr(m, name) for m in metadata if getattr(m, name, None) is not None), None)


def _bounds(bare: Any, metadata: Sequence[Any]) -> str:
    if bare is str:
        return " that is not empty" if _limit(metadata, "min_length") else ""
    above, least = _limit(metadata, "gt"), _limit(metadata, "ge")
    below, most = _limit(metadata, "lt"), _limit(metadata, "le")
    if least is not None and most is not None:
        return f" from {least} to {most}"
    parts = [
        f"greater than {above}" if above is not None else "",
        f"of at least {least}" if least is not None else "",
        f"less than {below}" if below is not None else "",
        f"of at most {most}" if most is not None else "",
    ]
    words = [part for part in parts if part]
    return " " + " and ".join(words) if words else ""


def shown(value: Any) -> str:
    """A value as messages show it, shortened."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        value = without_credentials(value)
        return repr(value if len(value) <= 40 else value[:37] + "…")
    if isinstance(value, dict):
        return "a map"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "nothing"
