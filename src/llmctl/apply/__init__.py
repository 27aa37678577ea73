"""Apply: interprets the steps of a plan with a journal. It never decides what to do, only does it."""

from llmctl.apply.clock import Clock
from llmctl.apply.engine import PARALLELISM, run_destroy, run_steps
from llmctl.apply.report import ApplyResult, Collected, GateReport, Reporter, State, StepResult
from llmctl.apply.run import Run

__all__ = [
    "PARALLELISM",
    "ApplyResult",
    "Clock",
    "Collected",
    "GateReport",
    "Reporter",
    "Run",
    "State",
    "StepResult",
    "run_destroy",
    "run_steps",
]
