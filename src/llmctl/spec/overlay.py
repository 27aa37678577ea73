"""Overrides of an environment: maps merge, lists and scalars replace, null removes."""

from __future__ import annotations

from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.plugins import are_left_out
from llmctl.spec.messages import LEFT_OUT
from llmctl.spec.nodes import Mapping, Node, Scalar
from llmctl.spec.reserved import not_served
from llmctl.spec.sections import kind_in, known_sections
from llmctl.spec.suggestions import suggestion


def overlaid(root: Mapping, environment: str) -> tuple[Mapping, list[Diagnostic]]:
    """The file as that environment sees it: only its own entry under ``environments``, its overrides applied."""
    findings: list[Diagnostic] = []
    merged = dict(root.items)
    environments = root.get("environments")
    if not isinstance(environments, Mapping):
        return root, findings
    key, entry = environments.items[environment]
    overrides = entry.get("overrides") if isinstance(entry, Mapping) else None
    if isinstance(entry, Mapping):
        entry = entry.with_items({k: v for k, v in entry.items.items() if k != "overrides"})
    merged["environments"] = (root.items["environments"][0], environments.with_items({environment: (key, entry)}))
    if isinstance(overrides, Mapping):
        for section, (section_key, change) in overrides.items.items():
            if kind_in(section):
                _merge_key(merged, section, section_key, change, findings)
            else:
                findings.append(_unknown_section(section, section_key))
    return root.with_items(merged), findings


def _unknown_section(section: str, key: Scalar) -> Diagnostic:
    if not_served("file", section):
        return Diagnostic(f"`{section}` is not served yet", where=key.range, hint="Remove it.")
    hint = suggestion(section, known_sections(), "sections that can be overridden")
    if are_left_out() and not hint.startswith("did you mean"):
        return Diagnostic(f"`{section}` is passed over: {LEFT_OUT}", Severity.WARNING, key.range)
    return Diagnostic(f"`{section}` cannot be overridden", where=key.range, hint=hint)


def _merge_key(
    items: dict[str, tuple[Scalar, Node]],
    name: str,
    key: Scalar,
    change: Node,
    findings: list[Diagnostic],
) -> None:
    if isinstance(change, Scalar) and change.value is None:
        if items.pop(name, None) is None:
            summary = f"`{name}: null` removes nothing: there is no `{name}` to remove"
            hint = suggestion(name, items, "keys there")
            findings.append(Diagnostic(summary, Severity.WARNING, key.range, hint=hint))
        return
    old = items.get(name)
    if old is None or not isinstance(old[1], Mapping) or not isinstance(change, Mapping):
        items[name] = (key, change)
        return
    below = dict(old[1].items)
    for inner, (inner_key, inner_change) in change.items.items():
        _merge_key(below, inner, inner_key, inner_change, findings)
    items[name] = (old[0], old[1].with_items(below))
