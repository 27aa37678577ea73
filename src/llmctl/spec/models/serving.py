"""The shapes of endpoints and routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llmctl.spec.models.base import Duration, ResourceShape, Shape


class ReplicasShape(Shape):
    """How many copies of an endpoint run."""

    min: int = Field(default=1, ge=1, description="The least number of copies.", examples=[2])
    max: int = Field(default=1, ge=1, description="The greatest number of copies.", examples=[2])


class EndpointTimeoutsShape(Shape):
    """How long an endpoint may take."""

    ready: Duration = Field(
        default="3m", description="From its start until it answers; after that the start has failed.", examples=["10m"]
    )
    drain: Duration = Field(
        default="30s",
        description="How long requests in flight may go on before a revision that is no longer needed stops.",
        examples=["2m"],
    )


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


class EndpointShape(ResourceShape):
    """A model, served by an engine."""

    model: str = Field(description="The name of a model of this file.", examples=["support-tiny"])
    engine: Literal["llama.cpp", "external"] = Field(
        description="What serves it: `llama.cpp` for a file, `external` for a hosted model.", examples=["llama.cpp"]
    )
    context: int | None = Field(
        default=None, ge=16, description="Tokens a request may use; llama.cpp only, 2048 if left out.", examples=[512]
    )
    replicas: ReplicasShape = Field(
        default_factory=ReplicasShape, description="How many copies run.", examples=[{"min": 2, "max": 2}]
    )
    timeouts: EndpointTimeoutsShape = Field(
        default_factory=EndpointTimeoutsShape,
        description="How long it may take to start and to stop.",
        examples=[{"ready": "3m", "drain": "30s"}],
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="The engine's own options.", examples=[{"slots": 4}]
    )


class RolloutShape(Shape):
    """How traffic moves to a new revision that its gates have proven."""

    canary: list[int] = Field(
        default_factory=lambda: [100],
        min_length=1,
        description="Percent of the traffic, step by step; rising, the last is 100. `[100]` if left out.",
        examples=[[10, 50, 100]],
    )
    hold: Duration = Field(
        default="0s", description="How long each step but the last stands before the next.", examples=["30s"]
    )


class RouteShape(ResourceShape):
    """What clients call: a prompt and the endpoints that answer."""

    prompt: str = Field(description="The name of a prompt of this file.", examples=["answer"])
    endpoint: str = Field(description="The name of the endpoint that answers.", examples=["support"])
    fallback: list[str] = Field(
        default_factory=list, description="Endpoints to try when the one before fails.", examples=[["backup"]]
    )
    rollout: RolloutShape = Field(
        default_factory=RolloutShape,
        description="How traffic moves to a new revision.",
        examples=[{"canary": [10, 50, 100], "hold": "30s"}],
    )
