"""What steps do to routes. Every effect is one edit of the gateway's configuration, journalled before and after."""

from __future__ import annotations

from functools import partial

from llmctl.apply.calls import bounded
from llmctl.apply.rollout import Edit, Rollout, Wish
from llmctl.apply.run import Run
from llmctl.apply.together import Swap
from llmctl.core import gateway_config as gw
from llmctl.core.address import Address
from llmctl.core.errors import Interrupted, ProviderError, TransientError
from llmctl.core.protocols import Drains, Op
from llmctl.core.resources import Key
from llmctl.core.steps import Action, Destroy, Move, Promote, Provision, Retire, Shift, Stage, Step
from llmctl.plan.routes import chain_keys, route_revision

LEASE_S = 60.0  # a split that is not renewed for so long is reverted by the gateway itself
_TICK_S = 1.0
_DRAIN_TICK_S = 0.05


class Traffic:
    """Stages, shifts, promotes, renames and takes away routes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rollout = Rollout(run.target.gateway, run.environment, run.clock)
        self._served: dict[Address, gw.Route] = {}  # routes that nobody recorded, as they were before this apply

    def runs(self, step: Step, op: Op, key: Key) -> bool:
        """Whether an endpoint revision is live and healthy. Raises ``TransientError`` when that cannot be read."""
        live = self.run.inventory.find(step, op, "endpoint", key)
        return live is not None and live.healthy

    def swap(self, step: Step, op: Op) -> Swap:
        """The one edit that a step is, for those of which ``Effects.swaps`` says so."""
        match step:
            case Stage():
                return Swap("stage", partial(self._staged, step, self._revision(step, op)))
            case Shift():
                return Swap("shift", partial(self._shifted, step))
            case Promote():
                return self._restore(step, op) if step.action is Action.RESTORE else self._promote(step)
            case Provision():
                return self._update(step, op)
            case Retire():
                return self._removal(step, step.revision)
            case Destroy():
                return self._removal(step)
            case Move():
                return self._rename(step)
            case _:
                raise TypeError(f"{step!r} is more than an edit of the gateway")

    def _update(self, step: Provision, op: Op) -> Swap:
        """Publish a route again whose revision stays: its operating fields, and where its endpoints are now."""
        name, wanted = step.address.name, self._revision(step, op)

        def edit(config: gw.GatewayConfig) -> gw.GatewayConfig:
            return gw.with_aliases(gw.staged(config, name, wanted), name, self.aliases(step.address))

        # Also when it looks the same: the gateway reads its secrets anew, and one of them may be another now.
        return Swap("update", edit, always=True)

    def hold(self, step: Shift, op: Op) -> None:
        """Split traffic, and hold that split under a lease for ``step.hold_s``.

        Raises ``Interrupted`` on Ctrl-C; what takes the step back shifts back.
        """
        self._publish(step, op, self.swap(step, op))
        clock = self.run.clock
        renewed = clock.now()
        until = renewed + step.hold_s
        while (left := until - clock.now()) > 0:
            op.progress(f"{split(step)}, {left:.0f} s left")
            if clock.pause(op.cancelled, min(left, _TICK_S)):
                raise Interrupted("interrupted")
            op.guard()
            age = clock.now() - renewed
            if age >= LEASE_S / 3:
                try:
                    self._publish(step, op, Swap("renew lease", partial(self._shifted, step)))
                    renewed = clock.now()
                except TransientError:
                    if age >= LEASE_S:
                        raise

    def _staged(self, step: Stage, wanted: gw.RouteRevision, config: gw.GatewayConfig) -> gw.GatewayConfig:
        route = config.routes.get(step.address.name)
        if route is not None and route.promoted and step.address not in self.run.before:
            self._served.setdefault(step.address, route)
        return gw.staged(config, step.address.name, wanted)

    def _promote(self, step: Promote) -> Swap:
        name, was = step.address.name, self.run.before.get(step.address)
        keep = was.revision if was else ""

        def edit(config: gw.GatewayConfig) -> gw.GatewayConfig:
            return gw.with_aliases(gw.promoted(config, name, step.revision, keep), name, self.aliases(step.address))

        return Swap("promote", edit)

    def _restore(self, step: Promote, op: Op) -> Swap:
        """Put a drifted route back as it is recorded."""
        name = step.address.name
        route = gw.Route(name, {step.revision: self._revision(step, op)}, {step.revision: 100}, step.revision)

        def edit(config: gw.GatewayConfig) -> gw.GatewayConfig:
            return gw.with_aliases(gw.with_route(config, route), name, self.aliases(step.address))

        return Swap("restore", edit, always=True)

    def _rename(self, step: Move) -> Swap:
        """One swap in which the new name serves what the old one did; the old one is an alias from then on.

        A route that the gateway does not serve under either name is drift, and not for this step to bring back.
        """
        old, new = step.origin.name, step.address.name

        def edit(config: gw.GatewayConfig) -> gw.GatewayConfig:
            if old in config.routes:
                config = gw.without_route(config, new)  # nobody recorded that one
            elif new not in config.routes:
                return config
            return gw.renamed(config, old, new, self.aliases(step.address))

        return Swap("rename", edit)

    def shift_back(self, step: Stage) -> Swap:
        """Back to 100 % of what is recorded, or served before without a record, also when the promotion itself was
        published and not recorded."""
        name = step.address.name
        was, served = self.run.resources.get(step.address), self._served.get(step.address)

        def edit(config: gw.GatewayConfig) -> gw.GatewayConfig:
            route = config.routes.get(name)
            if route is None:
                return config
            if served is not None:
                return gw.with_route(config, served)
            if was is not None and was.revision in route.revisions:
                return gw.promoted(config, name, was.revision)
            return gw.without_revision(gw.shifted_back(config, name), name, step.revision)

        return Swap("shift back", edit)

    def _removal(self, step: Retire | Destroy, revision: str = "") -> Swap:
        """Take away a revision of a route, or the whole route."""
        name = step.address.name
        edit: Edit = partial(gw.without_route, name=name)
        if revision:
            edit = partial(gw.without_revision, name=name, revision=revision)
        return Swap("remove", edit)

    def drain(self, step: Step, op: Op, key: Key, seconds: float) -> None:
        """Wait until no request is in flight to an endpoint revision, a bounded time."""
        gateway, clock = self.run.target.gateway, self.run.clock
        if not isinstance(gateway, Drains):
            return
        until = min(op.deadline_s, clock.now() + seconds)
        what = f"{step.id}: in_flight of the gateway"
        while clock.now() < until and bounded(clock, op, what, partial(gateway.in_flight, key)) > 0:
            op.progress("waiting for requests in flight")
            clock.pause(op.cancelled, _DRAIN_TICK_S)
            op.guard()

    def _revision(self, step: Stage | Provision | Promote, op: Op) -> gw.RouteRevision:
        """The gateway's form of the step's route revision, with the addresses that its endpoints have now."""
        spec = self.run.spec_of(step.address, step.revision)
        outputs = {}
        for key in chain_keys(spec):
            live = self.run.inventory.find(step, op, "endpoint", key)
            if live is None or not live.healthy:
                raise ProviderError(
                    f"{step.address} needs endpoint {key}, which does not run", hint="Run `llmctl status`."
                )
            if not (live.outputs.get("base_url") or live.outputs.get("base_urls")) or "model" not in live.outputs:
                raise ProviderError(
                    f"{step.address} needs endpoint {key}, and its provider does not say how it is reached",
                    hint="This is a defect of that provider; please report it.",
                )
            outputs[key] = live.outputs
        return route_revision(spec, step.revision, outputs)

    def aliases(self, address: Address) -> tuple[str, ...]:
        """Names that a route had before: as the file has them, else as they are recorded."""
        declared = self.run.plan.desired.resources.get(address) or self.run.before.get(address)
        return tuple(declared.spec.get("aliases") or ()) if declared else ()

    def _shifted(self, step: Shift, config: gw.GatewayConfig) -> gw.GatewayConfig:
        """The split; the new revision alone where the old one could not be brought back."""
        weights = {revision: share for revision, share in step.weights if share}
        if not weights.keys() <= config.routes[step.address.name].revisions.keys():
            weights = {step.revision: 100}
        lease = gw.Lease(self.run.serial, self.run.fence, expires_at=self.run.clock.wall() + LEASE_S)
        return gw.shifted(config, step.address.name, weights, lease)

    def _publish(self, step: Shift, op: Op, swap: Swap) -> None:
        intent = self.run.intend(step, swap.effect, {"gateway": str(step.address)})
        wish = Wish(step, op, swap.edit, swap.always)
        self.rollout.change([wish])
        self.run.ended(intent, wish.error, "ok" if wish.changed else "already so")


def split(step: Shift) -> str:
    """``10 % 3fa9c1d2, 90 % 77aa01bc``"""
    return ", ".join(f"{share} % {revision[:8]}" for revision, share in step.weights)
