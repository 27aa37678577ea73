"""Plan: pure functions from desired × recorded × live to a frozen plan, and the plan file."""

from llmctl.plan.build import build_plan, gate_rules
from llmctl.plan.model import (
    Drift,
    FieldDiff,
    GateForecast,
    Inputs,
    Plan,
    ResourceChange,
)
from llmctl.plan.planfile import SavedPlan, diagnostic_json, moved, plan_digest, plan_json, read_plan

__all__ = [
    "Drift",
    "FieldDiff",
    "GateForecast",
    "Inputs",
    "Plan",
    "ResourceChange",
    "SavedPlan",
    "build_plan",
    "diagnostic_json",
    "gate_rules",
    "moved",
    "plan_digest",
    "plan_json",
    "read_plan",
]
