"""What apply asks of a gate, and what it makes of its verdict."""

from __future__ import annotations

from llmctl.apply.run import Run
from llmctl.core.errors import GateBlocked, ProviderError
from llmctl.core.evidence import Evidence, Verdict
from llmctl.core.resources import Recorded, Resource
from llmctl.core.steps import RunGate
from llmctl.gates import GateRequest, Row
from llmctl.spec import dataset_rows


def judging(run: Run, step: RunGate) -> Resource | Recorded:
    """The gate as it judges here: the file's, or the recorded one that this change weakens or deletes."""
    known = run.before if step.as_recorded else run.plan.desired.resources
    gate = known.get(step.address)
    if gate is None:
        raise ProviderError(f"{step.address} is not {'recorded' if step.as_recorded else 'declared'}")
    return gate


def gate_request(run: Run, step: RunGate, baseline: str) -> GateRequest:
    """What the gate's runner needs: the gate's spec and the rows of its dataset, from the artifact store."""
    gate = judging(run, step)
    digest = gate.spec["dataset_digest"]
    if not run.target.artifacts.has(digest):
        which = "as it is recorded, whose" if step.as_recorded else "whose"
        raise ProviderError(
            f"{step.address} judges {which} dataset is not in the artifact store",
            detail=f"Needed is {digest}, of dataset {gate.spec.get('dataset', '')}.",
            hint="Apply a revision of the file that still declares it: that stores its content again.",
        )
    path = run.target.artifacts.path(digest)
    rows = tuple(Row.of(line, values) for line, values in dataset_rows(path, gate.spec["dataset_format"]))
    return GateRequest(
        gate=step.address.name,
        gate_revision=gate.revision,
        spec=gate.spec,
        route_revision=step.revision,
        baseline_revision=baseline,
        rows=rows,
    )


def blocked(step: RunGate, evidence: Evidence) -> GateBlocked:
    """The error of a gate that did not pass, with the figures that decided."""
    failed = evidence.verdict is Verdict.FAIL
    bad = [j for j in evidence.judgements if j.verdict.blocks]
    detail = "\n".join(
        f"{j.metric}{f' [{j.slice}]' if j.slice else ''} {j.rule} {j.threshold:g}: measured {j.estimate:.4g}, "
        f"between {j.lower:.4g} and {j.upper:.4g} at {j.confidence:.0%} on {j.samples} samples"
        for j in bad
    )
    more = max((j.samples_needed for j in bad), default=0)
    settle = f"{more} rows would settle it. " if more else ""
    undecided = f"Too few rows to tell. {settle}Add rows, or loosen the threshold in a reviewed commit."
    if step.as_recorded:
        detail = f"Judged as it is recorded, because this change weakens or deletes it.\n{detail}"
    return GateBlocked(
        f"{step.address} {'failed' if failed else 'could not decide'} for {step.route}@{step.revision[:8]}",
        detail=detail,
        hint="Look at the worst rows; change the model, the prompt or the data." if failed else undecided,
    )
