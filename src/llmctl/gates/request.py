"""What a gate is asked to prove, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json, canonical_json
from llmctl.core.errors import InvalidInput
from llmctl.core.evidence import Evidence
from llmctl.gates.metrics import METRICS
from llmctl.gates.scorers import BadScorer
from llmctl.gates.slices import slice_counts, slices_of, value_findings

_SHOWN = 10  # findings about rows: more of the same help nobody


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset."""

    id: str
    values: Mapping[str, Json]

    @classmethod
    def of(cls, line: int, values: Mapping[str, Json]) -> Row:
        """A row with the id of its ``id`` field, or else its line number (from 1)."""
        given = values.get("id")
        return cls(str(line) if given is None or given == "" else str(given), values)


@dataclass(frozen=True, slots=True)
class GateRequest:
    """Prove ``route_revision`` by a gate. ``spec`` is the gate's resolved spec, ``rows`` its dataset's.

    ``baseline_revision`` is the route revision that is live, "" when none is.
    """

    gate: str
    gate_revision: str
    spec: Mapping[str, Json]
    route_revision: str
    baseline_revision: str
    rows: Sequence[Row]

    @property
    def confidence(self) -> float:
        return confidence_of(self.spec)

    @property
    def quality(self) -> tuple[str, ...]:
        """The metrics that score answers."""
        return tuple(name for name in self.spec["metrics"] if METRICS[name].is_quality)

    @property
    def live(self) -> tuple[str, ...]:
        """The metrics that measure requests, and so are measured anew each time."""
        return tuple(name for name in self.spec["metrics"] if not METRICS[name].is_quality)

    @property
    def compared_with(self) -> str:
        """The revision that ``max_drop`` compares with, "" when no metric has it or it does not apply."""
        asked = any("max_drop" in rules for rules in self.spec["metrics"].values())
        return self.baseline_revision if asked and self.baseline_revision != self.route_revision else ""


@dataclass(frozen=True, slots=True)
class Failures:
    """The requests of one run that got no answer: ``failed`` of ``asked``, ``alike`` of them for ``reason``,
    which is the commonest."""

    failed: int
    asked: int
    reason: str
    alike: int


@dataclass(frozen=True, slots=True)
class RowReport:
    """One row for the screen only: it holds texts. ``failures`` is what became of the requests of its whole run,
    None when all were answered."""

    id: str
    inputs: Mapping[str, Json]
    expected: str | None
    answer: str
    score: float
    error: str = ""
    failures: Failures | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """``worst`` are at most five rows that failed or lost points, worst first; ``cached`` names the metrics whose
    figures are those of known evidence; ``taken_over`` counts the answers of an earlier run that was cut short."""

    evidence: Evidence
    worst: tuple[RowReport, ...] = ()
    cached: tuple[str, ...] = ()
    taken_over: int = 0


#: How long a request may take where a gate's spec, being older, does not say.
REQUEST_TIMEOUT_S = 60.0


class Limits(TypedDict, total=False):
    """How a gate asks, as ``run`` takes it; what an older spec does not say is left to the defaults there."""

    concurrency: int
    request_timeout_s: float
    run_timeout_s: float


def limits_of(spec: Mapping[str, Json]) -> Limits:
    """The limits in a gate's resolved spec."""
    timeouts = spec.get("timeouts") or {}
    limits: Limits = {}
    if spec.get("concurrency") is not None:
        limits["concurrency"] = int(spec["concurrency"])
    if timeouts.get("request_s") is not None:
        limits["request_timeout_s"] = float(timeouts["request_s"])
    if timeouts.get("run_s") is not None:
        limits["run_timeout_s"] = float(timeouts["run_s"])
    return limits


def confidence_of(spec: Mapping[str, Json]) -> float:
    """The confidence of a gate's one-sided bounds; 0.95 when it says nothing."""
    given = spec.get("confidence")
    return 0.95 if given is None else float(given)


def rules_of(metric: Mapping[str, Json]) -> list[tuple[str, float]]:
    """The thresholds of one metric: (rule, threshold) in a fixed order."""
    return [(rule, float(metric[rule])) for rule in ("min", "max", "max_drop") if metric.get(rule) is not None]


def is_point(metric: Mapping[str, Json]) -> bool:
    """Whether the metric is judged by its estimate alone."""
    return metric.get("decide") == "point"


def inputs_of(request: GateRequest, row: Row) -> dict[str, Json]:
    """The prompt variables of a row."""
    return {variable: row.values[column] for variable, column in request.spec["inputs"].items()}


def expected_of(request: GateRequest, row: Row) -> str | None:
    """The expected answer of a row as text; None when the gate has none."""
    column = request.spec.get("expected")
    if column is None:
        return None
    value = row.values[column]
    return value if isinstance(value, str) else canonical_json(value)


def check_request(request: GateRequest) -> None:
    """Raise ``InvalidInput`` unless the gate's spec can be used and every row has what it needs."""
    findings = spec_findings(request.spec)
    if not findings:
        findings = [
            *_row_findings(request),
            *value_findings(slice_counts(request.spec, (r.values for r in request.rows))),
        ]
    if findings:
        address = Address("gate", request.gate)
        raise InvalidInput(Diagnostic(f"{address}: {text}", address=address, hint=hint) for text, hint in findings)


def spec_findings(spec: Mapping[str, Json]) -> list[tuple[str, str]]:
    """What is wrong with the metrics and slices of a gate's resolved spec: (what, hint). Looks at no row.

    The libraries of the gate's own metrics are loaded, to see whether they take its pattern and schema.
    """
    findings = [f for name, given in spec["metrics"].items() for f in _metric_findings(spec, name, given)]
    for column, metrics in slices_of(spec).items():
        for name, given in metrics.items():
            where = f"slices of {column}: {name}"
            if name not in spec["metrics"] or name not in METRICS or not METRICS[name].is_quality:
                findings.append((f"{where} is no score that the gate measures", "Name one of its `metrics`."))
            elif [rule for rule, _ in rules_of(given)] != ["min"]:
                findings.append((f"{where} needs `min` and nothing else", "Write `min: …`."))
    return findings


def _metric_findings(spec: Mapping[str, Json], name: str, given: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    metric = METRICS.get(name)
    if metric is None:
        yield f"unknown metric {name}", f"There are: {', '.join(METRICS)}."
        return
    if metric.scorer and metric.needs_expected and spec.get("expected") is None:
        yield f"{name} needs the expected answers", "Name their column: `expected: COLUMN`."
    wrong = [rule for rule, _ in rules_of(given) if rule not in metric.rules]
    if wrong or not rules_of(given):
        yield f"{name} has {', '.join(wrong) or 'no threshold'}", f"It can have: {', '.join(metric.rules)}."
    try:
        if metric.scorer and metric.parameter:
            metric.scorer(given)
    except BadScorer as error:
        yield f"{name}: {error}", error.hint


def _row_findings(request: GateRequest) -> list[tuple[str, str]]:
    spec = request.spec
    dataset = f"dataset {spec.get('dataset', '')}".strip()
    columns = {*spec["inputs"].values(), *slices_of(spec), *filter(None, [spec.get("expected")])}
    seen: set[str] = set()
    findings = []
    for row in request.rows:
        if row.id in seen:
            findings.append((f"{dataset} has the row id {row.id} twice", "Give every row an id of its own."))
        seen.add(row.id)
        missing = sorted(c for c in columns if row.values.get(c) is None)
        if missing:
            findings.append((f"{dataset}, row {row.id}: nothing in {', '.join(missing)}", "Fill it, or drop the row."))
        if len(findings) >= _SHOWN:
            break
    return findings
