"""Changes to the gateway's configuration: read, change, publish, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from llmctl.apply.calls import as_gateway_reading, bounded
from llmctl.apply.clock import Clock
from llmctl.core.errors import Conflict, Interrupted, LlmctlError, Locked, ProviderError, TransientError
from llmctl.core.gateway_config import GatewayConfig
from llmctl.core.protocols import GateAccess, GatewayControl, Op
from llmctl.core.steps import Step

Edit = Callable[[GatewayConfig], GatewayConfig]
_TRIES = 3
_OF_ALL = (TransientError, Locked, Interrupted)  # errors that no single edit is to blame for


@dataclass(eq=False)
class Wish:
    """An edit that a step waits for, and what became of it. With ``always`` it is published also when it changes
    nothing."""

    step: Step
    op: Op
    edit: Edit
    always: bool = False
    changed: bool = False
    error: Exception | None = None


class Rollout:
    """Serialises the steps of several routes on one gateway configuration. ``step`` only names it in messages."""

    def __init__(self, control: GatewayControl, environment: str, clock: Clock) -> None:
        self._control = control
        self._environment = environment
        self._clock = clock
        self._mutex = Lock()  # held while one publishes
        self._guard = Lock()
        self._waiting: list[Wish] = []
        self._published: GatewayConfig | None = None  # what we published last, if that is known to be served

    def current(self, step: Step, op: Op) -> GatewayConfig:
        """What the gateway serves. Raises ``ProviderError`` when that is not known."""
        what = f"{step.id}: read of the gateway"
        reading = as_gateway_reading(what, bounded(self._clock, op, what, self._control.read))
        if reading.unreadable:
            raise TransientError(f"the gateway cannot be read: {reading.unreadable}")
        if not reading.running:
            raise ProviderError("the gateway does not run", hint="Look at `llmctl logs gateway`.")
        served = {config.revision: config for config in reading.configs.values()}
        if len(served) != 1:
            raise TransientError(f"the gateway's replicas serve {len(served)} different configurations")
        return next(iter(served.values()))

    def access(self, step: Step, op: Op) -> GateAccess:
        """How a gate reaches what is staged."""
        return bounded(self._clock, op, f"{step.id}: gate_access of the gateway", self._control.gate_access)

    def change(self, wishes: Sequence[Wish]) -> None:
        """Publish these edits of what is served, as one; what became of each is in it then.

        Edits that come from other threads while one is published wait, and go out together as the next one: a
        publication costs as much as there are routes.
        """
        if not wishes:
            return
        with self._guard:
            self._waiting += wishes
        with self._mutex:
            with self._guard:
                done = wishes[0] not in self._waiting
            if not done:
                self._fulfil(self._taken())

    def _taken(self) -> list[Wish]:
        with self._guard:
            taken, self._waiting = self._waiting, []
        return taken

    def _fulfil(self, wishes: list[Wish]) -> None:
        """Publish all, or else one half and then the other: what is wrong with one must not keep the others back.

        With the other half goes what came meanwhile: a lease that is to be renewed cannot wait for all of them.
        Together they have the time of the one that has most: another one's may be almost over.
        """
        by = max(wishes, key=lambda wish: wish.op.deadline_s)
        try:
            self._publish_all(wishes, by)
        except Exception as error:  # noqa: BLE001 - it is the other steps' error too, and is raised there
            if len(wishes) == 1 or isinstance(error, _OF_ALL) or self._clock.now() >= by.op.deadline_s:
                for wish in wishes:
                    wish.error = error
            else:
                half = len(wishes) // 2
                self._fulfil(wishes[:half])
                self._fulfil([*wishes[half:], *self._taken()])

    def _publish_all(self, wishes: list[Wish], by: Wish) -> None:
        """A conflict means that somebody published meanwhile: the edits are made again on what is there then."""
        step, op = by.step, by.op
        for attempt in range(_TRIES):
            # Its revision guards the publication: what somebody else published meanwhile is a conflict, and then read.
            published, self._published = self._published, None
            try:
                current = edited = published or self.current(step, op)
            except LlmctlError as error:  # no half of the edits makes it readable
                for wish in wishes:
                    wish.error = error
                return
            for wish in wishes:
                before, edited = edited, wish.edit(edited)
                wish.changed = wish.always or edited != before
            if not any(wish.changed for wish in wishes):
                if published is None:
                    return
                continue  # nothing guards that
            wanted = replace(edited, environment=self._environment, serial=op.serial, fence=op.fence)
            try:
                self._publish(step, op, wanted, current.revision)
                self._published = wanted
                return
            except Conflict:
                if attempt + 1 == _TRIES:
                    raise

    def _publish(self, step: Step, op: Op, wanted: GatewayConfig, expected: str) -> None:
        what = f"{step.id}: publish to the gateway"
        answer = bounded(self._clock, op, what, lambda: self._control.publish(op, wanted, expected=expected))
        as_gateway_reading(what, answer)
