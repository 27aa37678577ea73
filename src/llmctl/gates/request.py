"""What a gate is asked to prove, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json, canonical_json
from llmctl.core.errors import InvalidInput
from llmctl.core.evidence import Evidence
from llmctl.gates.metrics import METRICS

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
class RowReport:
    """One row for the screen only: it holds texts."""

    id: str
    inputs: Mapping[str, Json]
    expected: str | None
    answer: str
    score: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class GateResult:
    """``worst`` are at most five rows that lost points, worst first; ``cached`` names the metrics whose
    figures are those of known evidence."""

    evidence: Evidence
    worst: tuple[RowReport, ...] = ()
    cached: tuple[str, ...] = ()


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
    """Raise ``InvalidInput`` unless every metric is known and every row has what it needs."""
    findings = [*_metric_findings(request), *_row_findings(request)]
    if findings:
        address = Address("gate", request.gate)
        raise InvalidInput(Diagnostic(f"{address}: {text}", address=address, hint=hint) for text, hint in findings)


def _metric_findings(request: GateRequest) -> list[tuple[str, str]]:
    findings = []
    for name, given in request.spec["metrics"].items():
        metric = METRICS.get(name)
        if metric is None:
            findings.append((f"unknown metric {name}", f"There are: {', '.join(METRICS)}."))
            continue
        if metric.is_quality and request.spec.get("expected") is None:
            findings.append((f"{name} needs the expected answers", "Name their column: `expected: COLUMN`."))
        wrong = [rule for rule, _ in rules_of(given) if rule not in metric.rules]
        if wrong or not rules_of(given):
            findings.append(
                (f"{name} has {', '.join(wrong) or 'no threshold'}", f"It can have: {', '.join(metric.rules)}.")
            )
    return findings


def _row_findings(request: GateRequest) -> list[tuple[str, str]]:
    dataset = f"dataset {request.spec.get('dataset', '')}".strip()
    columns = {*request.spec["inputs"].values(), *filter(None, [request.spec.get("expected")])}
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
