"""Changes to the gateway's configuration: read, change, publish, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import Lock

from llmctl.core.errors import Conflict, ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GatewayControl, Op

Edit = Callable[[GatewayConfig], GatewayConfig]
_TRIES = 3


class Rollout:
    """Serialises the steps of several routes on one gateway configuration."""

    def __init__(self, control: GatewayControl, environment: str) -> None:
        self._control = control
        self._environment = environment
        self._mutex = Lock()

    def current(self) -> GatewayConfig:
        """What the gateway serves. Raises ``ProviderError`` when that is not known."""
        reading = self._control.read()
        if reading.unreadable:
            raise TransientError(f"the gateway cannot be read: {reading.unreadable}")
        if not reading.running:
            raise ProviderError("the gateway does not run", hint="Look at `llmctl logs gateway`.")
        served = {config.revision: config for config in reading.configs.values()}
        if len(served) != 1:
            raise TransientError(f"the gateway's replicas serve {len(served)} different configurations")
        return next(iter(served.values()))

    def change(self, op: Op, edit: Edit, *, always: bool = False) -> bool:
        """Publish ``edit`` of what is served; when that is what is served already, only with ``always``.

        A conflict means that somebody published meanwhile: the edit is made again on what is there then.
        """
        with self._mutex:
            for attempt in range(_TRIES):
                current = self.current()
                wanted = edit(current)
                if wanted == current and not always:
                    return False
                wanted = replace(wanted, environment=self._environment, serial=op.serial, fence=op.fence)
                try:
                    self._control.publish(op, wanted, expected=current.revision)
                except Conflict:
                    if attempt + 1 == _TRIES:
                        raise
                    continue
                return True
        raise AssertionError("unreachable")
