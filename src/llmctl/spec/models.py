"""The shape of ``llmops.yaml``: one pydantic model per map in the file, and nothing but shape.

What a shape cannot say (references, files, templates, what fits together) is checked in the other modules.
The models are strict and small on purpose: they are built on first use, and their build is most of what
reading a small file costs. The descriptions and examples become the JSON Schema that editors use.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ResourceKind = Literal["dataset", "model", "prompt", "endpoint", "route", "gate", "policy"]
ColumnType = Literal["string", "number", "boolean"]
VariableType = Literal["string", "number", "boolean", "list", "object"]
Decide = Literal["interval", "point"]


class Shape(BaseModel):
    """A map with known keys; types are taken as written and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True, allow_inf_nan=False)


class GatewayShape(Shape):
    """How the environment's gateway is reached."""

    port: int = Field(
        default=0,
        ge=1024,
        le=65535,
        description="The TCP port the gateway listens on, on 127.0.0.1. Left out: any free port, then kept.",
        examples=[8080],
    )


class EnvironmentShape(Shape):
    """One place where the application runs."""

    target: Literal["local"] = Field(
        description="Where things run: `local` is this machine, without account or GPU.", examples=["local"]
    )
    gateway: GatewayShape = Field(
        default_factory=GatewayShape,
        description="How this environment's gateway is reached.",
        examples=[{"port": 8080}],
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="What differs here, by section: maps merge, lists and scalars replace, null removes.",
        examples=[{"endpoints": {"support": {"context": 1024}}}],
    )


class ChecksShape(Shape):
    """What must hold of a dataset's rows."""

    min_rows: int = Field(default=0, ge=0, description="The least number of rows.", examples=[160])
    unique: list[str] = Field(
        default_factory=list, description="Columns whose values may not repeat.", examples=[["question"]]
    )
    not_null: list[str] = Field(
        default_factory=list, description="Columns that every row must fill.", examples=[["question", "answer"]]
    )


class DatasetShape(Shape):
    """Rows to train or to evaluate with."""

    source: str = Field(
        min_length=1,
        description="The file, relative to llmops.yaml: .jsonl (an object a line) or .csv (with a header).",
        examples=["data/faq_eval.jsonl"],
    )
    columns: dict[str, ColumnType] = Field(
        default_factory=dict,
        description="Columns that every row must have, and their type.",
        examples=[{"question": "string", "answer": "string"}],
    )
    checks: ChecksShape = Field(
        default_factory=ChecksShape,
        description="What must hold of the rows.",
        examples=[{"min_rows": 160, "unique": ["question"]}],
    )
    license: str = Field(default="", description="The licence, best as an SPDX name.", examples=["CC-BY-4.0"])
    sensitivity: Literal["", "public", "internal", "confidential", "restricted"] = Field(
        default="", description="Who may see the rows.", examples=["public"]
    )


class AdapterShape(Shape):
    """A LoRA adapter that is laid over a model."""

    source: str = Field(
        min_length=1,
        description="The adapter's .gguf file, relative to llmops.yaml.",
        examples=["models/tone-lora.gguf"],
    )
    scale: float = Field(default=1.0, description="How strongly it is applied; 1 is as trained.", examples=[1.0])


class LineageShape(Shape):
    """Where a model comes from."""

    base: str = Field(
        default="", description="What it was made from: a model of this file, or any name.", examples=["tiny-base"]
    )
    trained_on: list[str] = Field(
        default_factory=list,
        description="Datasets of this file it was trained on; gates refuse to evaluate on their rows.",
        examples=[["faq-train"]],
    )
    method: str = Field(default="", description="How it was trained.", examples=["lora"])
    hyperparameters: dict[str, Any] = Field(
        default_factory=dict, description="The training's settings, free in form.", examples=[{"rank": 8}]
    )


class CardShape(Shape):
    """What a person should know before using a model."""

    intended_use: str = Field(default="", description="What it is for.", examples=["Answer Acme's support questions"])
    limitations: str = Field(default="", description="What it cannot do.", examples=["Knows only the FAQ"])


class ModelShape(Shape):
    """Weights in a file, or a model that somebody else hosts."""

    source: str = Field(
        min_length=1,
        description="A .gguf file relative to llmops.yaml, or `openai:NAME` for a hosted model.",
        examples=["models/support-tiny.gguf", "openai:gpt-4.1-mini"],
    )
    adapters: list[AdapterShape] = Field(
        default_factory=list,
        description="LoRA adapters, applied in this order.",
        examples=[[{"source": "models/tone-lora.gguf", "scale": 1.0}]],
    )
    license: str = Field(default="", description="The licence, best as an SPDX name.", examples=["Apache-2.0"])
    lineage: LineageShape = Field(
        default_factory=LineageShape,
        description="Where the model comes from.",
        examples=[{"base": "tiny-base", "trained_on": ["faq-train"], "method": "lora"}],
    )
    card: CardShape = Field(
        default_factory=CardShape,
        description="What a person should know before using it.",
        examples=[{"intended_use": "Answer Acme's support questions", "limitations": "Knows only the FAQ"}],
    )
    api_key: str | None = Field(
        default=None,
        description="Where a hosted model's key is found; only a reference, never the key itself.",
        examples=["${env:OPENAI_API_KEY}"],
        pattern=r"^\$\{env:[A-Za-z_][A-Za-z0-9_]*\}$",
    )


class MessageShape(Shape):
    """One message of a prompt."""

    role: Literal["system", "user", "assistant"] = Field(description="Who speaks.", examples=["user"])
    content: str = Field(
        description="A Jinja2 template over the prompt's variables; in quotes when it starts with `{`.",
        examples=["{{ question }}"],
    )


class ParametersShape(Shape):
    """Sampling parameters, with the names of the OpenAI API; a client may override them."""

    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is greedy decoding.", examples=[0])
    top_p: float | None = Field(default=None, ge=0, le=1, description="Nucleus sampling.", examples=[0.95])
    max_tokens: int | None = Field(default=None, gt=0, description="The longest answer, in tokens.", examples=[96])
    stop: str | list[str] | None = Field(
        default=None, description="Text, or up to four texts, that end the answer.", examples=[["\n\n"]]
    )
    seed: int | None = Field(default=None, description="The seed of the sampling.", examples=[7])
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Above 0 discourages topics that were named.", examples=[0.2]
    )
    frequency_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Above 0 discourages repetition.", examples=[0.2]
    )


class PromptShape(Shape):
    """Messages with variables."""

    messages: list[MessageShape] = Field(
        min_length=1,
        description="The messages, in order.",
        examples=[[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ question }}"}]],
    )
    variables: dict[str, VariableType] = Field(
        default_factory=dict,
        description="Every variable that the templates read, and its type.",
        examples=[{"question": "string"}],
    )
    parameters: ParametersShape = Field(
        default_factory=ParametersShape,
        description="Sampling parameters.",
        examples=[{"temperature": 0, "max_tokens": 96}],
    )


class ReplicasShape(Shape):
    """How many copies of an endpoint run."""

    min: int = Field(default=1, ge=0, description="The least number of copies.", examples=[1])
    max: int = Field(default=1, ge=1, description="The greatest number of copies.", examples=[1])


class LlamaOptions(Shape):
    """The options of the engine llama.cpp."""

    slots: int = Field(default=4, ge=1, le=64, description="Requests answered at the same time.", examples=[4])
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads; 1 for tiny models.", examples=[1])
    batch: int | None = Field(default=None, ge=1, description="Tokens per prompt batch.", examples=[512])


class ExternalOptions(Shape):
    """The options of the engine external: an OpenAI-compatible API."""

    base_url: str = Field(
        default="https://api.openai.com/v1",
        min_length=1,
        description="The API's address, up to and including /v1.",
        examples=["https://api.openai.com/v1"],
    )
    timeout_s: float = Field(default=60.0, gt=0, le=3600, description="Seconds to wait for an answer.", examples=[60])


class EndpointShape(Shape):
    """A model, served by an engine."""

    model: str = Field(description="The name of a model of this file.", examples=["support-tiny"])
    engine: Literal["llama.cpp", "external"] = Field(
        description="What serves it: `llama.cpp` for a file, `external` for a hosted model.", examples=["llama.cpp"]
    )
    context: int | None = Field(
        default=None, ge=16, description="Tokens a request may use; llama.cpp only, 2048 if left out.", examples=[512]
    )
    replicas: ReplicasShape = Field(
        default_factory=ReplicasShape, description="How many copies run.", examples=[{"min": 1, "max": 1}]
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="The engine's own options.", examples=[{"slots": 4}]
    )


class RouteShape(Shape):
    """What clients call: a prompt and the endpoints that answer."""

    prompt: str = Field(description="The name of a prompt of this file.", examples=["answer"])
    endpoint: str = Field(description="The name of the endpoint that answers.", examples=["support"])
    fallback: list[str] = Field(
        default_factory=list, description="Endpoints to try when the one before fails.", examples=[["backup"]]
    )


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
    latency_p95_ms: LatencyShape | None = Field(
        default=None, description="The time that 95 % of requests stay under, in ms.", examples=[{"max": 500}]
    )
    error_rate: RateShape | None = Field(
        default=None, description="Share of requests that fail.", examples=[{"max": 0.01}]
    )


class GateShape(Shape):
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


class PolicyShape(Shape):
    """A rule that resources must keep."""

    applies_to: ResourceKind = Field(description="The kind of resource it judges.", examples=["model"])
    require: str = Field(
        min_length=1,
        description="A CEL expression over `resource` that must be true.",
        examples=['resource.license in ["Apache-2.0", "MIT"]'],
    )
    severity: Literal["deny", "warn"] = Field(
        default="deny", description="Whether breaking it stops an apply.", examples=["deny"]
    )
    message: str = Field(
        default="", description="What to tell who breaks it.", examples=["Models must carry an open licence."]
    )


class HeaderShape(Shape):
    """The scalars at the top of the file."""

    apiVersion: Literal["llmctl/v1"] = Field(description="The version of this format.", examples=["llmctl/v1"])
    project: str = Field(
        description="The project's name: lower case letters, digits, - and _.", examples=["acme-support"]
    )
    owner: str = Field(default="", description="Who answers for it: a team or a person.", examples=["support-ml"])


class FileShape(HeaderShape):
    """An LLM application: what llmctl plans and applies."""

    environments: dict[str, EnvironmentShape] = Field(
        min_length=1, description="Where the application runs, by name.", examples=[{"dev": {"target": "local"}}]
    )
    datasets: dict[str, DatasetShape] = Field(
        default_factory=dict,
        description="Datasets by name.",
        examples=[{"faq-eval": {"source": "data/faq_eval.jsonl"}}],
    )
    models: dict[str, ModelShape] = Field(
        default_factory=dict,
        description="Models by name.",
        examples=[{"support-tiny": {"source": "models/support-tiny.gguf"}}],
    )
    prompts: dict[str, PromptShape] = Field(
        default_factory=dict,
        description="Prompts by name.",
        examples=[{"answer": {"messages": [{"role": "system", "content": "Be brief."}]}}],
    )
    endpoints: dict[str, EndpointShape] = Field(
        default_factory=dict,
        description="Endpoints by name.",
        examples=[{"support": {"model": "support-tiny", "engine": "llama.cpp"}}],
    )
    routes: dict[str, RouteShape] = Field(
        default_factory=dict,
        description="Routes by name; the name is the model name that clients ask for.",
        examples=[{"support": {"prompt": "answer", "endpoint": "support"}}],
    )
    gates: dict[str, GateShape] = Field(
        default_factory=dict,
        description="Gates by name.",
        examples=[{"faq": {"route": "support", "dataset": "faq-eval", "metrics": {"error_rate": {"max": 0.01}}}}],
    )
    policies: dict[str, PolicyShape] = Field(
        default_factory=dict,
        description="Policies by name.",
        examples=[{"open-licence": {"applies_to": "model", "require": 'resource.license == "MIT"'}}],
    )
