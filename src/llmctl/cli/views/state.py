"""What the record holds of each resource, as a table, in full, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from llmctl.app.importing import Imported
from llmctl.app.state import Forgotten, Listing, Shown
from llmctl.cli.views.layout import count, one_line
from llmctl.core.digests import Json, pretty_json
from llmctl.core.resources import Recorded


def listing_json(found: Listing) -> dict[str, Json]:
    """The same for programs; revisions in full."""
    return {
        "format": 1,
        "environment": found.environment,
        "serial": found.serial,
        "resources": [_summary_json(r) for r in found.resources],
    }


def render_listing(found: Listing) -> str:
    """A line a resource."""
    head = f"llmctl/{found.environment} at serial {found.serial}: {count(len(found.resources), 'resource')}"
    lines = [click.style(head, bold=True)]
    width = max((len(str(r.address)) for r in found.resources), default=0)
    lines += [f"  {r.address!s:<{width}}  v{r.version:<3} {r.revision}" for r in found.resources]
    return "\n".join(lines)


def shown_json(found: Shown) -> dict[str, Json]:
    """One resource for programs."""
    resource, entry = found.resource, found.recorded_by
    return {
        "format": 1,
        "environment": found.environment,
        "serial": found.serial,
        **_summary_json(resource),
        "versions": [
            {"version": n, "revision": revision, "serial": found.first.get(revision)}
            for n, revision in enumerate(resource.revisions, 1)
        ],
        "needs": [str(a) for a in resource.needs],
        "needed_by": [str(a) for a in found.users],
        "outputs": resource.outputs,
        "spec": resource.spec,
        "recorded_by": {
            "serial": entry.serial,
            "commit": entry.commit,
            "time": entry.time,
            "actor": entry.actor,
            "action": entry.action,
        },
    }


def render_shown(found: Shown) -> str:
    """Everything that is recorded of one resource."""
    return "\n".join(_shown_lines(found))


def _shown_lines(found: Shown) -> Iterator[str]:
    resource, entry = found.resource, found.recorded_by
    yield click.style(f"{resource.address} v{resource.version} in llmctl/{found.environment}", bold=True)
    facts = {
        "revision": resource.revision,
        "recorded": f"by serial {entry.serial} ({entry.action}), {entry.time}, {one_line(entry.actor)}",
        "versions": ", ".join(_versions(found)),
        "needs": ", ".join(map(str, resource.needs)) or "nothing",
        "needed by": ", ".join(map(str, found.users)) or "nothing",
    }
    for name, text in facts.items():
        yield f"  {name:<9} {text}"
    for title, content in (("Outputs", resource.outputs), ("Spec", resource.spec)):
        if content:
            yield ""
            yield click.style(title, bold=True)
            yield from (f"  {one_line(line)}" for line in pretty_json(content).splitlines())


def _versions(found: Shown) -> Iterator[str]:
    for number, revision in enumerate(found.resource.revisions, 1):
        serial = found.first.get(revision)
        yield f"v{number} {revision[:8]} (serial {serial})" if serial else f"v{number} {revision[:8]} (taken back)"


def render_forgetting(asked: Forgotten) -> str:
    """What it means that the record forgets these."""
    lines = [click.style(f"The record of {asked.environment} would forget:", bold=True)]
    lines += [f"  - {r.address} v{r.version} {r.revision[:8]}" for r in asked.resources]
    lines += [f"  {text}" for text in _consequences(asked.resources)]
    return "\n".join(lines)


def _consequences(resources: Sequence[Recorded]) -> Iterator[str]:
    yield "What runs goes on running. The next apply takes back in what llmops.yaml declares, where it runs exactly so;"
    yield "of the rest it takes away endpoints and routes, unless `llmctl import` takes them in before."
    if any(len(r.revisions) > 1 for r in resources):
        yield "Version numbers begin anew; the history stays in the record."
    rules = [str(r.address) for r in resources if r.address.kind in ("gate", "policy")]
    if rules:
        yield f"Until then nothing is known of {', '.join(rules)}: that it is loosened or deleted is not told."


def forgotten_json(done: Forgotten) -> dict[str, Json]:
    """What was forgotten, for programs."""
    return {
        "format": 1,
        "environment": done.environment,
        "serial": done.serial,
        "forgotten": [_summary_json(r) for r in done.resources],
    }


def imported_json(done: Imported) -> dict[str, Json]:
    """What was taken in, for programs; ``differs`` are fields that llmops.yaml wants otherwise."""
    return {
        "format": 1,
        "environment": done.environment,
        "serial": done.serial,
        **_summary_json(done.resource),
        "differs": [{"path": d.path, "live": d.before, "declared": d.after} for d in done.differs],
    }


def render_imported(done: Imported) -> str:
    """What was taken in, and what the next plan will say of it."""
    resource = done.resource
    head = f"{resource.address} v{resource.version} {resource.revision[:8]} is recorded, as serial {done.serial}."
    if not done.differs:
        return f"{head}\nIt is as llmops.yaml declares it."
    lines = [head, "llmops.yaml declares it otherwise, and the next apply changes it:"]
    return "\n".join([*lines, *(f"  {one_line(diff.path)}" for diff in done.differs)])


def _summary_json(resource: Recorded) -> dict[str, Json]:
    return {"address": str(resource.address), "version": resource.version, "revision": resource.revision}
