"""Defects that are put into llmctl, to see that the harness notices them."""

from __future__ import annotations

import posix
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayReading, Intent, Op
from llmctl.providers.local.endpoints import EndpointProvider
from llmctl.providers.local.gateway import LocalGateway
from llmctl.record import Attempt


def effect_nobody_knows() -> None:
    """A folder is made past everything that is watched."""
    create = EndpointProvider.create

    def created(self: EndpointProvider, op: Op, key: Any, want: Any) -> Any:
        posix.mkdir(self._layout.state / "unknown")
        posix.rmdir(self._layout.state / "unknown")
        return create(self, op, key, want)

    EndpointProvider.create = created  # type: ignore[method-assign]


def effect_not_announced() -> None:
    """What runs is changed in place, of which the journal says nothing."""
    intend, done = Attempt.intend, Attempt.done

    def intended(self: Attempt, step: str, effect: str, data: Any, *, share: bool = True) -> Intent:
        return Intent("", step, effect, {}) if effect == "update" else intend(self, step, effect, data, share=share)

    def ended(self: Attempt, intent: Intent, outcome: str, data: Any) -> None:
        if intent.id:
            done(self, intent, outcome, data)

    Attempt.intend = intended  # type: ignore[method-assign]
    Attempt.done = ended  # type: ignore[method-assign]


def engine_twice() -> None:
    """A lost answer leads to a second process."""
    create = EndpointProvider.create

    def created(self: EndpointProvider, op: Op, key: Any, want: Any) -> Any:
        path = self._layout.endpoint_file(key)
        words = [sys.executable, "-c", "import time; time.sleep(600)", "llmctl.providers.local.engine", str(path)]
        subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return create(self, op, key, want)

    EndpointProvider.create = created  # type: ignore[method-assign]


def route_away_for_a_moment() -> None:
    """Each publication takes all routes away first."""
    publish = LocalGateway.publish

    def published(self: LocalGateway, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        empty = replace(config, routes={})
        publish(self, op, empty, expected)
        time.sleep(0.3)
        return publish(self, op, config, empty.revision)

    LocalGateway.publish = published  # type: ignore[method-assign]


def error_nobody_explains() -> None:
    """What fails in the gateway's control is raised as something that nobody knows."""
    publish = LocalGateway.publish

    def published(self: LocalGateway, op: Op, config: GatewayConfig, expected: str) -> GatewayReading:
        try:
            return publish(self, op, config, expected)
        except Exception as error:
            raise RuntimeError("oh") from error

    LocalGateway.publish = published  # type: ignore[method-assign]
