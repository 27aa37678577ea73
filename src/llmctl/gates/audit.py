"""Judge recorded evidence again without measuring: do its verdicts follow from its own figures?"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from llmctl.core.digests import Json
from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.gates.request import confidence_of, is_point, rules_of
from llmctl.gates.slices import column_of, slices_of
from llmctl.gates.verdicts import NOT_APPLICABLE, POINT, decide, overall

_Key = tuple[str, str, str]  # metric, rule, slice


def rejudge(evidence: Evidence, gate_spec: Mapping[str, Json] | None) -> list[str]:
    """What does not hold together in evidence; empty when all does.

    ``gate_spec`` is the gate's resolved spec as it was when the evidence was taken, None when unknown.
    """
    complaints = [text for judgement in evidence.judgements for text in _judgement(judgement, evidence)]
    follows = overall(j.verdict for j in evidence.judgements)
    if evidence.verdict is not follows:
        complaints.append(f"the verdict is {evidence.verdict.value}, but its judgements give {follows.value}")
    if gate_spec is not None:
        complaints += _against(evidence, gate_spec)
    return complaints


def _judgement(judgement: Judgement, evidence: Evidence) -> list[str]:
    name = _said(judgement.metric, judgement.rule, judgement.slice)
    figures = (judgement.threshold, judgement.estimate, judgement.lower, judgement.upper)
    if not all(isfinite(figure) for figure in figures):
        return [f"{name}: not every figure is a number"]
    if not judgement.lower <= judgement.estimate <= judgement.upper:
        return [f"{name}: the estimate {judgement.estimate:g} lies outside its own bounds"]
    complaints = []
    if judgement.samples > evidence.samples:
        complaints.append(f"{name}: judged on {judgement.samples} samples of {evidence.samples}")
    follows = _follows(judgement, evidence)
    if judgement.verdict is not follows:
        complaints.append(f"{name}: the verdict is {judgement.verdict.value}, but its figures give {follows.value}")
    return complaints


def _follows(judgement: Judgement, evidence: Evidence) -> Verdict:
    if judgement.method == NOT_APPLICABLE:
        compared = evidence.baseline_revision not in ("", evidence.route_revision)
        applies = judgement.rule != "max_drop" or compared
        return Verdict.INCONCLUSIVE if applies else Verdict.NOT_APPLICABLE
    if judgement.samples == 0:
        return Verdict.INCONCLUSIVE
    estimate = judgement.estimate
    bounds = (estimate, estimate) if judgement.method == POINT else (judgement.lower, judgement.upper)
    return decide(judgement.rule, judgement.threshold, estimate, *bounds)


def _against(evidence: Evidence, spec: Mapping[str, Json]) -> list[str]:
    complaints = []
    confidence = confidence_of(spec)
    asked = _asked(evidence, spec)
    judged = {(j.metric, j.rule, j.slice): j for j in evidence.judgements}
    if len(judged) < len(evidence.judgements):
        complaints.append("a threshold is judged twice")
    for key in sorted(asked.keys() - judged.keys()):
        complaints.append(f"{_said(*key)}: the gate asks for it, and it is not judged")
    for key in sorted(judged.keys() - asked.keys()):
        complaints.append(f"{_said(*key)}: judged, and the gate does not ask for it")
    for key in sorted(judged.keys() & asked.keys()):
        judgement, (value, point) = judged[key], asked[key]
        name = _said(*key)
        if judgement.threshold != value:
            complaints.append(f"{name}: judged against {judgement.threshold:g}, the gate says {value:g}")
        if judgement.confidence != confidence:
            complaints.append(f"{name}: judged at confidence {judgement.confidence:g}, the gate says {confidence:g}")
        if judgement.method == POINT and not point:
            complaints.append(f"{name}: judged on the point, the gate asks for an interval")
    for what, found in (("route", evidence.route), ("dataset_digest", evidence.dataset_digest)):
        if found != spec[what]:
            complaints.append(f"{what} is {found}, the gate says {spec[what]}")
    return complaints + _uncovered(evidence, spec)


def _asked(evidence: Evidence, spec: Mapping[str, Json]) -> dict[_Key, tuple[float, bool]]:
    """The thresholds of the gate, and whether they are judged on the point.

    Which values the columns of its slices have, only the evidence knows.
    """
    slices = slices_of(spec)
    named = {j.slice for j in evidence.judgements if j.slice}
    parts = [("", spec["metrics"]), *((part, slices.get(column_of(part, slices), {})) for part in named)]
    return {
        (name, rule, part): (value, is_point(given))
        for part, metrics in parts
        for name, given in metrics.items()
        for rule, value in rules_of(given)
    }


def _uncovered(evidence: Evidence, spec: Mapping[str, Json]) -> list[str]:
    """Every row has a value in every column that is sliced by, so the slices of a column have all rows."""
    complaints = []
    for column, metrics in slices_of(spec).items():
        for name in metrics:
            parts = [
                j for j in evidence.judgements if j.metric == name and column_of(j.slice, slices_of(spec)) == column
            ]
            if sum(j.samples for j in parts) != evidence.samples:
                rows = f"{sum(j.samples for j in parts)} of {evidence.samples} rows"
                complaints.append(f"{name} in slices of {column}: judged on {rows}")
    return complaints


def _said(metric: str, rule: str, part: str) -> str:
    return f"{metric} {rule} of {part}" if part else f"{metric} {rule}"
