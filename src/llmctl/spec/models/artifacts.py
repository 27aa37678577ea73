"""The shapes of datasets, models and prompts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llmctl.spec.models.base import ColumnType, ResourceShape, Shape, VariableType


class ChecksShape(Shape):
    """What must hold of a dataset's rows."""

    min_rows: int = Field(default=0, ge=0, description="The least number of rows.", examples=[160])
    unique: list[str] = Field(
        default_factory=list, description="Columns whose values may not repeat.", examples=[["question"]]
    )
    not_null: list[str] = Field(
        default_factory=list, description="Columns that every row must fill.", examples=[["question", "answer"]]
    )


class DatasetShape(ResourceShape):
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


class ModelShape(ResourceShape):
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


class PromptShape(ResourceShape):
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
