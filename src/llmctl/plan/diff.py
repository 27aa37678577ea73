"""Field-level differences: compare first, and ask DeepDiff only about what differs."""

from __future__ import annotations

from collections.abc import Mapping

from llmctl.core.digests import Json
from llmctl.core.resources import Spec
from llmctl.plan.model import FieldDiff

#: Fields that repeat what other resources of the same plan show in full.
_DERIVED: dict[str, frozenset[str]] = {
    "endpoint": frozenset({"weights", "api_key"}),
    "route": frozenset({"chain", "template"}),
    "gate": frozenset({"dataset_digest", "dataset_format"}),
}
_NO_DERIVED: frozenset[str] = frozenset()


def field_diffs(kind: str, before: Spec | None, after: Spec | None) -> tuple[FieldDiff, ...]:
    """The fields in which two specs of a kind differ, by path. None stands for a spec that is not there."""
    if before == after:
        return ()
    hidden = _DERIVED.get(kind, _NO_DERIVED)
    old, new = _shown(before, hidden), _shown(after, hidden)
    if before is None or after is None:
        return tuple(
            FieldDiff(key, old.get(key), new.get(key)) for key in (new or old) if (new or old)[key] is not None
        )
    diffs: list[FieldDiff] = []
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            diffs += _nested(key, old.get(key), new.get(key))
    return tuple(diffs)


def _shown(spec: Spec | None, hidden: frozenset[str]) -> Mapping[str, Json]:
    return {key: value for key, value in (spec or {}).items() if key not in hidden}


def _nested(key: str, old: Json, new: Json) -> list[FieldDiff]:
    if not (isinstance(old, dict | list) and isinstance(new, dict | list)):
        return [FieldDiff(key, old, new)]
    from deepdiff import DeepDiff  # 0.25 s of CPU: only when something differs inside a field

    found: dict[str, FieldDiff] = {}
    for changes in DeepDiff(old, new, view="tree", threshold_to_diff_deeper=0).values():
        for change in changes:
            path = key + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in change.path(output_format="list"))
            before = None if _absent(change.t1) else change.t1
            after = None if _absent(change.t2) else change.t2
            found[path] = FieldDiff(path, before, after)
    return [found[path] for path in sorted(found)]


def _absent(value: object) -> bool:
    from deepdiff.helper import NotPresent

    return isinstance(value, NotPresent)
