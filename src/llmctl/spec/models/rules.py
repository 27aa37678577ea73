"""The shapes of gates and policies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

from pydantic import Field, create_model

from llmctl.spec.models.base import Decide, Duration, ResourceShape, Shape

PolicyScope = Literal["dataset", "model", "prompt", "endpoint", "route", "gate", "policy", "plan"]


class QualityShape(Shape):
    """Thresholds of a score between 0 and 1, where more is better."""

    min: float | None = Field(default=None, ge=0, le=1, description="The score must reach this.", examples=[0.95])
    max_drop: float | None = Field(
        default=None, ge=0, le=1, description="The score may fall by this below what is live.", examples=[0.02]
    )
    decide: Decide = Field(
        default="interval", description="Judge a confidence interval, or only the measured point.", examples=["point"]
    )


class LatencyShape(Shape):
    """The threshold of a latency."""

    max: float | None = Field(default=None, gt=0, description="Milliseconds it may take.", examples=[500])
    decide: Decide = Field(
        default="interval", description="Judge a confidence interval, or only the measured point.", examples=["point"]
    )


class RateShape(Shape):
    """The threshold of a share between 0 and 1, where less is better."""

    max: float | None = Field(default=None, ge=0, le=1, description="The share may not exceed this.", examples=[0.01])
    decide: Decide = Field(
        default="interval", description="Judge a confidence interval, or only the measured point.", examples=["point"]
    )


class RegexShape(QualityShape):
    """A pattern, and the thresholds of the share of answers that match it."""

    pattern: str = Field(
        min_length=1, description="A Python regular expression that is searched in the answer.", examples=["^[A-Z]"]
    )


class JsonSchemaShape(QualityShape):
    """A JSON Schema, and the thresholds of the share of answers that are JSON and keep it."""

    schema_: dict[str, Any] | str = Field(
        alias="schema",
        description="The schema itself, or the path of a .json file relative to llmops.yaml.",
        examples=["schemas/answer.json", {"type": "object", "required": ["answer"]}],
    )


class MetricsShape(Shape):
    """What a gate measures, with its thresholds."""

    exact_match: QualityShape | None = Field(
        default=None, description="Share of answers that equal the expected one.", examples=[{"min": 0.95}]
    )
    contains: QualityShape | None = Field(
        default=None, description="Share of answers that contain the expected one.", examples=[{"min": 0.95}]
    )
    rouge_l: QualityShape | None = Field(
        default=None, description="Mean ROUGE-L with the expected answer.", examples=[{"min": 0.9}]
    )
    bleu: QualityShape | None = Field(
        default=None, description="Mean BLEU with the expected answer, 0 to 1.", examples=[{"min": 0.4}]
    )
    chrf: QualityShape | None = Field(
        default=None, description="Mean chrF with the expected answer, 0 to 1.", examples=[{"min": 0.6}]
    )
    regex: RegexShape | None = Field(
        default=None,
        description="Share of answers that match a pattern.",
        examples=[{"pattern": "^[A-Z]", "min": 0.99}],
    )
    json_schema: JsonSchemaShape | None = Field(
        default=None,
        description="Share of answers that are JSON and keep a schema.",
        examples=[{"schema": "schemas/answer.json", "min": 0.99}],
    )
    latency_p50_ms: LatencyShape | None = Field(
        default=None, description="The time that half of the requests stay under, in ms.", examples=[{"max": 200}]
    )
    latency_p95_ms: LatencyShape | None = Field(
        default=None, description="The time that 95 % of requests stay under, in ms.", examples=[{"max": 500}]
    )
    error_rate: RateShape | None = Field(
        default=None, description="Share of requests that fail.", examples=[{"max": 0.01}]
    )


class SliceRuleShape(Shape):
    """The threshold of a score, for each part of the rows by itself."""

    min: float = Field(ge=0, le=1, description="The score must reach this in every slice.", examples=[0.9])
    decide: Decide = Field(
        default="interval", description="Judge a confidence interval, or only the measured point.", examples=["point"]
    )


class SliceShape(Shape):
    """Thresholds for every value of one column, by metric; the gate must measure the metric."""

    exact_match: SliceRuleShape | None = Field(
        default=None, description="The threshold of `exact_match` in each slice.", examples=[{"min": 0.9}]
    )
    contains: SliceRuleShape | None = Field(
        default=None, description="The threshold of `contains` in each slice.", examples=[{"min": 0.9}]
    )
    rouge_l: SliceRuleShape | None = Field(
        default=None, description="The threshold of `rouge_l` in each slice.", examples=[{"min": 0.9}]
    )
    bleu: SliceRuleShape | None = Field(
        default=None, description="The threshold of `bleu` in each slice.", examples=[{"min": 0.9}]
    )
    chrf: SliceRuleShape | None = Field(
        default=None, description="The threshold of `chrf` in each slice.", examples=[{"min": 0.9}]
    )
    regex: SliceRuleShape | None = Field(
        default=None, description="The threshold of `regex` in each slice.", examples=[{"min": 0.9}]
    )
    json_schema: SliceRuleShape | None = Field(
        default=None, description="The threshold of `json_schema` in each slice.", examples=[{"min": 0.9}]
    )


class GateTimeoutsShape(Shape):
    """How long a gate may take."""

    request: Duration = Field(
        default="60s", description="For one answer; a request that takes longer has failed.", examples=["20s"]
    )
    run: Duration = Field(default="30m", description="For all rows together.", examples=["1h"])


class GateShape(ResourceShape):
    """What a route revision must prove before it serves."""

    route: str = Field(description="The name of the route that is proven.", examples=["support"])
    dataset: str = Field(description="The name of the dataset it is proven on.", examples=["faq-eval"])
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="Which column fills which prompt variable: `variable: column`.",
        examples=[{"question": "question"}],
    )
    expected: str | None = Field(default=None, description="The column with the expected answer.", examples=["answer"])
    metrics: MetricsShape = Field(
        description="What is measured, with thresholds.", examples=[{"exact_match": {"min": 0.95, "max_drop": 0.02}}]
    )
    confidence: float = Field(
        default=0.95, ge=0.5, le=0.999, description="Confidence of the one-sided bounds.", examples=[0.95]
    )
    slices: dict[str, SliceShape] = Field(
        default_factory=dict,
        description="Thresholds that every part of the rows must keep, by the column that parts them.",
        examples=[{"language": {"exact_match": {"min": 0.9}}}],
    )
    concurrency: int = Field(
        default=16, ge=1, le=256, description="Requests that are under way at the same time.", examples=[32]
    )
    timeouts: GateTimeoutsShape = Field(
        default_factory=GateTimeoutsShape,
        description="How long one request and the whole run may take.",
        examples=[{"request": "60s", "run": "30m"}],
    )


class WaiverShape(Shape):
    """An exception that somebody answers for, until a day."""

    resource: str = Field(
        min_length=1, description="The address of the resource that is excepted.", examples=["model.hosted"]
    )
    until: str = Field(min_length=1, description="The last day of it (UTC), as YYYY-MM-DD.", examples=["2027-01-31"])
    reason: str = Field(min_length=1, description="Why.", examples=["Only a fallback"])
    approved_by: str = Field(min_length=1, description="Who answers for it.", examples=["security"])


class PolicyShape(ResourceShape):
    """A rule that resources must keep."""

    applies_to: PolicyScope = Field(
        description="The kind of resource it judges, or `plan`: the plan as a whole.", examples=["model"]
    )
    require: str = Field(
        min_length=1,
        description="A CEL expression over `resource`, or over `plan`, that must be true.",
        examples=['resource.license in ["Apache-2.0", "MIT"]'],
    )
    severity: Literal["deny", "warn"] = Field(
        default="deny", description="Whether breaking it stops an apply.", examples=["deny"]
    )
    message: str = Field(
        default="", description="What to tell who breaks it.", examples=["Models must carry an open licence."]
    )
    waivers: list[WaiverShape] = Field(
        default_factory=list,
        description="Resources that may break it for a while.",
        examples=[
            [{"resource": "model.hosted", "until": "2027-01-31", "reason": "a fallback", "approved_by": "security"}]
        ],
    )


@lru_cache
def policy_shape(kinds: tuple[str, ...]) -> type[PolicyShape]:
    """The shape of a policy that may judge these kinds of plug-ins too."""
    if not kinds:
        return PolicyShape
    scope: Any = Literal[(*get_args(PolicyScope), *kinds)]
    known = PolicyShape.model_fields["applies_to"]
    field = Field(description=known.description, examples=known.examples)
    return create_model("PolicyShape", __base__=PolicyShape, applies_to=(scope, field))
