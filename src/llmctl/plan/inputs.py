"""What a plan was made from, and what of it has moved since."""

from __future__ import annotations

from collections.abc import Iterable

from llmctl.core.digests import digest
from llmctl.core.resources import Desired, Environment, RecordState
from llmctl.live import LiveState
from llmctl.plan.model import Inputs, ResourceChange


def inputs_of(
    desired: Desired, recorded: RecordState, changes: Iterable[ResourceChange], live: LiveState | None
) -> Inputs:
    """The fingerprint of a plan's inputs. ``changes`` are all that there would be, those that are held too.

    Of the resources only those that differ from the record are listed, with "" for one that is not declared:
    the record's commit vouches for the rest, and to digest thousands of unchanged specs takes long.
    """
    found = {str(a): "" for a in recorded.resources if a not in desired.resources}
    for change in changes:
        want = desired.resources.get(change.address)
        found[str(change.address)] = digest(want.spec) if want else ""
    return Inputs(
        desired=dict(sorted(found.items())),
        serial=recorded.serial,
        head=recorded.head,
        live=live.fingerprint() if live else {},
        settings=_settings(desired.environment),
    )


def _settings(environment: Environment) -> dict[str, str]:
    """What the file says of the environment itself: no resource, and an apply goes by it all the same."""
    return {
        "gateway.port": str(environment.gateway_port or ""),
        "promote_from": environment.promote_from,
        "approvals": str(environment.approvals or ""),
        "record.remote": environment.record_remote,
        "record.sign": environment.record_sign if environment.record_sign != "auto" else "",
        "target": environment.target,
    }


def moved(saved: Inputs, now: Inputs) -> list[str]:
    """What differs between what a saved plan was made from and what is there now, a line each."""
    lines = []
    record_moved = saved.serial != now.serial or saved.head != now.head
    if record_moved:
        lines.append(f"the record: serial {saved.serial} when planned, {now.serial} now")
    for name in sorted({*saved.desired, *now.desired}):
        before, after = saved.desired.get(name), now.desired.get(name)
        # What differs from one record alone may be the doing of that record, and not of the file.
        if before != after and not (record_moved and None in (before, after)):
            state = "gone from" if after == "" else "back in" if before == "" else "changed in"
            lines.append(f"{name}: {state} llmops.yaml or a file that it refers to")
    for name in sorted({*saved.live, *now.live}):
        was, there = saved.live.get(name, "absent"), now.live.get(name, "absent")
        if was != there:
            lines.append(f"{name}: live was {was or 'nothing'} when planned, is {there or 'nothing'} now")
    if not saved.settings:
        lines.append("the environment's settings: the plan is of an earlier llmctl, which did not save them")
    for name, before in saved.settings.items():
        after = now.settings.get(name, "")
        if before != after:
            lines.append(
                f"`{name}` of the environment: was {before or 'not set'} when planned, is {after or 'not set'} now"
            )
    return lines
