"""The shape of the file around the resources."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llmctl.spec.models.artifacts import DatasetShape, ModelShape, PromptShape
from llmctl.spec.models.base import REMOTE_NAME, Shape
from llmctl.spec.models.rules import GateShape, PolicyShape
from llmctl.spec.models.serving import EndpointShape, RouteShape


class GatewayShape(Shape):
    """How the environment's gateway is reached."""

    port: int = Field(
        default=0,
        ge=1024,
        le=65535,
        description="The TCP port the gateway listens on, on 127.0.0.1. Left out: any free port, then kept.",
        examples=[8080],
    )


class RecordShape(Shape):
    """Where the record of the environment is kept, and whether it must be signed."""

    remote: str = Field(
        default="",
        pattern=REMOTE_NAME,
        description="The git remote, by name, that has the record and the lock, so that other clones see them; `none` "
        "keeps them in this clone. Left out: `none` for the target `local`.",
        examples=["origin"],
    )
    sign: Literal["auto", "required"] = Field(
        default="auto",
        description="`auto` signs what is recorded as git is configured; `required` refuses to run unsigned.",
        examples=["required"],
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
    promote_from: str = Field(
        default="",
        min_length=1,
        description="The environment in which artifact revisions must have passed before they are applied here.",
        examples=["dev"],
    )
    approvals: int = Field(
        default=0,
        ge=0,
        le=20,
        description="How many people must approve a plan with `llmctl approve` before it is applied here.",
        examples=[1],
    )
    record: RecordShape = Field(
        default_factory=RecordShape,
        description="Where the record is kept, and whether it must be signed.",
        examples=[{"remote": "origin", "sign": "required"}],
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="What differs here, by section: maps merge, lists and scalars replace, null removes.",
        examples=[{"endpoints": {"support": {"context": 1024}}}],
    )


class MovedShape(Shape):
    """A resource under a new name."""

    origin: str = Field(alias="from", description="The old address, `kind.name`.", examples=["route.help"])
    to: str = Field(description="The new address, of the same kind.", examples=["route.support"])


class HeaderShape(Shape):
    """The top of the file, without the maps of names."""

    apiVersion: Literal["llmctl/v1"] = Field(description="The version of this format.", examples=["llmctl/v1"])
    project: str = Field(
        description="The project's name: lower case letters, digits, - and _.", examples=["acme-support"]
    )
    owner: str = Field(default="", description="Who answers for it: a team or a person.", examples=["support-ml"])
    include: str | list[str] = Field(
        default_factory=list,
        description="More files with resources: paths or globs, relative to the folder of llmops.yaml.",
        examples=[["prompts/*.yaml", "policies.yaml"]],
    )
    moved: list[MovedShape] = Field(
        default_factory=list,
        description="Resources that got a new name; they are renamed and not made anew.",
        examples=[[{"from": "route.help", "to": "route.support"}]],
    )


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
