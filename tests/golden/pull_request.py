"""Plans of pull requests to the example, without a process: the record and what runs are made from its base file."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from llmctl import spec
from llmctl.app.policies import judge
from llmctl.app.validate import checked
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.gateway_config import GatewayConfig, Route
from llmctl.core.protocols import GatewayReading
from llmctl.core.resources import ALL, Desired, Key, Live, Reading, Recorded, RecordState, Resource
from llmctl.live import LiveState
from llmctl.plan import Plan, build_plan
from llmctl.plan.routes import chain_keys, route_revision

EXAMPLE = Path(__file__).parents[2] / "examples"
TODAY = date(2026, 11, 21)
_KINDS = ("dataset", "model", "prompt", "endpoint")

Description = dict[str, Any]


def described(folder: Path) -> Description:
    """What ``pr.toml`` says of a pull request."""
    return tomllib.loads((folder / "pr.toml").read_text(encoding="utf-8"))


def plan_of(description: Description, root: Path) -> Plan:
    """The plan of one pull request, in an empty folder that is the working directory."""
    for name in ("llmops.yaml", "data", "models"):
        source = EXAMPLE / name
        if source.is_dir():
            shutil.copytree(source, root / name)
        else:
            shutil.copyfile(source, root / name)
    for edit in description.get("before", ()):
        _edit(root, edit)
    was, _ = _desired(root)
    for edit in description["edit"]:
        _edit(root, edit)
    want, warnings = _desired(root)
    recorded = _recorded(was)
    targets = tuple(Address.parse(text) for text in description.get("targets", ()))
    live = _live(was.resources, description)
    made = build_plan(want, recorded, live, source_commit="c0ffee" + 34 * "0", targets=targets)
    policies = judge(made, want, None, TODAY)
    return replace(made, policies=policies, warnings=warnings, gates=_known(made, description))


def _edit(root: Path, edit: Mapping[str, str]) -> None:
    """``old`` becomes ``new`` in ``file``, ``append`` is added to it, or it is written as ``text``."""
    path = root / edit.get("file", "llmops.yaml")
    if "text" in edit:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(edit["text"], encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    assert edit.get("old", "") in text, edit
    text = text.replace(edit["old"], edit["new"], 1) if "old" in edit else text + edit["append"]
    path.write_text(text, encoding="utf-8")


def _desired(root: Path) -> tuple[Desired, tuple[Diagnostic, ...]]:
    document = spec.load(spec.find_file("llmops.yaml", root))
    resolved = checked(document, "dev")
    return resolved.desired, resolved.warnings


def _recorded(desired: Desired) -> RecordState:
    entries = {
        a: Recorded(a, r.spec, r.revision, 1, r.needs, (r.revision,)) for a, r in sorted(desired.resources.items())
    }
    return RecordState("dev", 7, "c0ffee", resources=entries, project=desired.project)


def _live(resources: Mapping[Address, Resource], description: Description) -> LiveState:
    """Everything runs as it was applied, but for what is ``gone`` or ``unreadable``."""
    gone = set(description.get("gone", ()))
    readings: dict[str, Reading[Json]] = {}
    for kind in _KINDS:
        found: dict[Key, Live[Json]] = {}
        for address, resource in resources.items():
            if address.kind == kind and str(address) not in gone:
                key = Key(address.name, resource.revision)
                outputs = {"base_url": f"http://127.0.0.1/{key}/v1", "model": str(key), "secret": ""}
                found[key] = Live[Json](key, resource.spec, key.revision, outputs=outputs if kind == "endpoint" else {})
        reason = description.get("unreadable", {}).get(kind, "")
        readings[kind] = Reading({}, {ALL: Diagnostic(reason)}) if reason else Reading(found)
    reached = LiveState(readings).endpoint_outputs()
    routes = {
        a.name: Route(a.name, {r.revision: route_revision(r.spec, r.revision, reached)}, {r.revision: 100}, r.revision)
        for a, r in resources.items()
        if a.kind == "route" and all(key in reached for key in chain_keys(r.spec))
    }
    config = GatewayConfig("dev", 7, 1, routes)
    return LiveState(readings, GatewayReading(True, {"local": config}, base_url="http://127.0.0.1:1"))


def _known(made: Plan, description: Description) -> tuple[Any, ...]:
    """Forecasts with the verdicts that evidence in the record would give."""
    known = {(entry["gate"], entry.get("as_recorded", False)): entry for entry in description.get("evidence", ())}
    found = []
    for forecast in made.gates:
        entry = known.get((str(forecast.gate), forecast.as_recorded))
        found.append(replace(forecast, cached=entry["verdict"], cached_at=entry["at"]) if entry else forecast)
    return tuple(found)
