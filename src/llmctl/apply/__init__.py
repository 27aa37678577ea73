"""Apply: interprets the steps of a plan with a journal. It never decides what to do, only does it."""

from llmctl.apply.effects import Run
from llmctl.apply.engine import PARALLELISM, run_steps
from llmctl.apply.report import ApplyResult, Collected, GateReport, Reporter, State, StepResult

__all__ = [
    "PARALLELISM",
    "ApplyResult",
    "Collected",
    "GateReport",
    "Reporter",
    "Run",
    "State",
    "StepResult",
    "run_steps",
]
