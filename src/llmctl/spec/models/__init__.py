"""The shape of ``llmops.yaml``: one pydantic model per map in the file."""

from __future__ import annotations

from llmctl.spec.models.artifacts import ChecksShape, DatasetShape, ModelShape, PromptShape
from llmctl.spec.models.base import DURATION, REMOTE_NAME, ResourceShape, Shape
from llmctl.spec.models.file import EnvironmentShape, FileShape, GatewayShape, HeaderShape, MovedShape
from llmctl.spec.models.rules import GateShape, JsonSchemaShape, MetricsShape, PolicyScope, PolicyShape, policy_shape
from llmctl.spec.models.serving import EndpointShape, ExternalOptions, LlamaOptions, RolloutShape, RouteShape

__all__ = [
    "DURATION",
    "REMOTE_NAME",
    "ChecksShape",
    "DatasetShape",
    "EndpointShape",
    "EnvironmentShape",
    "ExternalOptions",
    "FileShape",
    "GateShape",
    "GatewayShape",
    "HeaderShape",
    "JsonSchemaShape",
    "LlamaOptions",
    "MetricsShape",
    "ModelShape",
    "MovedShape",
    "PolicyScope",
    "PolicyShape",
    "PromptShape",
    "ResourceShape",
    "RolloutShape",
    "RouteShape",
    "Shape",
    "policy_shape",
]
