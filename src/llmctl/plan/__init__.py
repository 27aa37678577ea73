"""Plan: pure functions from desired × recorded × live to a frozen plan, and the plan file."""

from llmctl.plan.back import back_to, undone
from llmctl.plan.build import build_plan
from llmctl.plan.explain import Cause, Explanation, explain
from llmctl.plan.forecasts import gate_rules
from llmctl.plan.inputs import moved
from llmctl.plan.model import (
    Consent,
    Drift,
    FieldDiff,
    GateForecast,
    Inputs,
    Plan,
    ResourceChange,
    Weakening,
)
from llmctl.plan.moves import as_recorded
from llmctl.plan.planfile import covered_of, diagnostic_json, plan_digest, plan_json, sealed
from llmctl.plan.saved import SavedPlan, load_plan, read_plan
from llmctl.plan.skipping import skippable, skipped

__all__ = [
    "Cause",
    "Consent",
    "Drift",
    "Explanation",
    "FieldDiff",
    "GateForecast",
    "Inputs",
    "Plan",
    "ResourceChange",
    "SavedPlan",
    "Weakening",
    "as_recorded",
    "back_to",
    "build_plan",
    "covered_of",
    "diagnostic_json",
    "explain",
    "gate_rules",
    "load_plan",
    "moved",
    "plan_digest",
    "plan_json",
    "read_plan",
    "sealed",
    "skippable",
    "skipped",
    "undone",
]
