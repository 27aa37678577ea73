"""Gates and policies that ask for less than they did: against the record, and against another revision of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.resources import Desired, RecordState, Resource, Spec
from llmctl.plan.changes import by_name
from llmctl.plan.model import Weakening
from llmctl.plan.moves import Pair, applicable, with_new_names

RECORD = "the record"

_UPPER = ("max", "max_drop")  # thresholds that loosen when they rise; `min` loosens when it falls
_JUDGED = (*_UPPER, "min", "decide")
_UNDER_LOAD = ("latency_p50_ms", "latency_p95_ms", "error_rate")  # easier to keep with fewer requests at a time


def weakenings(
    planned: Desired,
    recorded: RecordState,
    moves: Sequence[Pair],
    declared: Desired,
    base: Mapping[Address, Resource] | None,
    base_name: str,
) -> tuple[Weakening, ...]:
    """What gets weaker: by what is ``planned``, against the record, and in what the file ``declared``, against base.

    ``recorded`` has the new names already, ``base`` has its own. What is weaker in the same way against both
    is said once.
    """
    before = {
        address: with_new_names(address, was.spec, moves)
        for address, was in recorded.resources.items()
        if address.kind in ("gate", "policy")
    }
    found = list(_against(planned, before, RECORD))
    if base is not None:
        known = {(w.address, w.what) for w in found}
        pairs = applicable(declared, base)
        to = dict(pairs)
        before = {
            to.get(address, address): with_new_names(to.get(address, address), was.spec, pairs)
            for address, was in base.items()
            if address.kind in ("gate", "policy")
        }
        found += [w for w in _against(declared, before, base_name) if (w.address, w.what) not in known]
    return tuple(found)


def _against(desired: Desired, before: Mapping[Address, Spec], name: str) -> Iterator[Weakening]:
    for address in sorted(before, key=by_name):
        want = desired.resources.get(address)
        if want is not None and want.spec == before[address]:
            continue
        compare = _gate if address.kind == "gate" else _policy
        what = tuple(compare(before[address], want.spec)) if want else ("it is deleted",)
        if what:
            yield Weakening(address, what, name)


def _gate(was: Spec, now: Spec) -> Iterator[str]:
    if was["route"] != now["route"]:
        yield f"proves another route now: {was['route']} → {now['route']}"
    if was["dataset"] != now["dataset"]:
        yield f"measured on other data now: dataset {was['dataset']} → {now['dataset']}"
    if was.get("expected") != now.get("expected"):
        yield f"expects another column now: {was.get('expected') or 'none'} → {now.get('expected') or 'none'}"
    yield from _inputs(was.get("inputs") or {}, now.get("inputs") or {})
    if now["confidence"] < was["confidence"]:
        yield f"confidence {was['confidence']:g} → {now['confidence']:g}"
    yield from _load(was, now)
    yield from _metrics("", was["metrics"], now["metrics"])
    slices, kept = was.get("slices") or {}, now.get("slices") or {}
    for column, metrics in slices.items():
        if column not in kept:
            yield f"the slices of {column} are no longer judged"
        else:
            yield from _metrics(f"for each {column}: ", metrics, kept[column])


def _load(was: Spec, now: Spec) -> Iterator[str]:
    """How the gate asks. What was recorded before these were settings of a gate has none of them."""
    before, after = was.get("concurrency") or 0, now.get("concurrency") or 0
    if 0 < after < before and any(metric in was["metrics"] and metric in now["metrics"] for metric in _UNDER_LOAD):
        yield f"latency and errors are measured among fewer requests at a time: {before} → {after}"
    allowed, allows = ((spec.get("timeouts") or {}).get("request_s") or 0 for spec in (was, now))
    if allows > allowed > 0:
        yield f"a request fails later: after {allowed:g} s → {allows:g} s"


def _inputs(was: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[str]:
    """A variable that is new, or no longer there, follows the prompt; one that is filled otherwise asks otherwise."""
    for variable in sorted(was.keys() & now.keys()):
        if was[variable] != now[variable]:
            yield f"{variable} is filled from another column now: {was[variable]} → {now[variable]}"


def _metrics(place: str, was: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[str]:
    for metric, rules in was.items():
        if metric not in now:
            yield f"{place}{metric} is no longer measured"
        else:
            yield from (f"{place}{metric} {text}" for text in _rules(rules, now[metric]))


def _rules(was: Mapping[str, Json], now: Mapping[str, Json]) -> Iterator[str]:
    for rule in ("min", *_UPPER):
        before, after = was.get(rule), now.get(rule)
        if before is None:
            continue
        if after is None:
            yield f"{rule} {before:g} is removed"
        elif (after > before) if rule in _UPPER else (after < before):
            yield f"{rule} {before:g} → {after:g}"
    if was.get("decide", "interval") == "interval" and now.get("decide", "interval") == "point":
        yield "is decided by the measured point, no longer by an interval"
    for key in sorted({*was, *now} - set(_JUDGED)):
        if was.get(key) != now.get(key):
            yield f"{key} changed and cannot be compared; read it"


def _policy(was: Spec, now: Spec) -> Iterator[str]:
    if (was["severity"], now["severity"]) == ("deny", "warn"):
        yield "severity deny → warn"
    if was["applies_to"] != now["applies_to"]:
        yield f"applies to other resources now: {was['applies_to']} → {now['applies_to']}"
    if was["require"] != now["require"]:
        yield "its rule changed and cannot be compared; read it"
    yield from _waivers(was.get("waivers") or (), now.get("waivers") or ())


def _waivers(was: Sequence[Mapping[str, Json]], now: Sequence[Mapping[str, Json]]) -> Iterator[str]:
    before = {waiver["resource"]: str(waiver["until"]) for waiver in was}
    for waiver in now:
        known = before.get(waiver["resource"])
        if known is None:
            yield f"a waiver for {waiver['resource']} until {waiver['until']}"
        elif str(waiver["until"]) > known:
            yield f"the waiver for {waiver['resource']} lasts longer: {known} → {waiver['until']}"
