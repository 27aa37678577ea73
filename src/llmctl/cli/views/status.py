"""What serves now, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from llmctl.app.status import Status
from llmctl.cli.views.layout import one_line
from llmctl.cli.views.risks import open_since
from llmctl.core.digests import Json


def status_json(status: Status) -> dict[str, Json]:
    """The same for programs; revisions in full."""
    return {
        "format": 1,
        "environment": status.environment,
        "target": status.target,
        "serial": status.serial,
        "base_url": status.base_url,
        "gateway": status.gateway,
        "gateway_note": status.gateway_note,
        "elsewhere": status.elsewhere,
        "routes": [asdict(r) for r in status.routes],
        "endpoints": [{**asdict(e), "key": str(e.key)} for e in status.endpoints],
        "resources": [{**asdict(r), "address": str(r.address)} for r in status.resources],
        "processes": [asdict(p) for p in status.processes],
        "drift": [{"address": str(d.address), "summary": d.summary, "details": list(d.details)} for d in status.drift],
        "unreadable": list(status.unreadable),
        "lock": status.lock,
        "interrupted": status.interrupted,
        "break_glass": [found.to_json() for found in status.break_glass],
    }


def render_status(status: Status) -> str:
    """Tables for people; what is wrong comes first after the headline."""
    return "\n".join(_lines(status))


def _lines(status: Status) -> Iterator[str]:
    serial = f"serial {status.serial}" if status.serial else "nothing applied yet"
    yield click.style(f"{status.environment} ({status.target}), {serial}", bold=True)
    notes = (status.interrupted, status.lock and f"locked: {status.lock}", status.gateway_note, status.elsewhere)
    for text in notes:
        if text:
            yield click.style(f"  ! {one_line(text)}", fg="yellow")
    for found in status.break_glass:
        yield click.style(f"  ✗ {one_line(open_since(found))}", fg="red", bold=True)
    for line in status.unreadable:
        yield click.style(f"  ! {one_line(line)}", fg="red")
    for drift in status.drift:
        yield click.style(f"  ↺ {drift.address}: {one_line(drift.summary)}", fg="cyan")
    if not status.serial and not status.processes:
        return
    yield f"gateway   {status.base_url or '-'}  {_state(status.gateway)}"
    if status.routes:
        yield ""
        yield from _table(("ROUTE", "REVISION", "TRAFFIC", "PROMPT", "ENDPOINT", ""), _route_rows(status))
    if status.endpoints:
        yield ""
        yield from _table(("ENDPOINT", "STATE", "DETAIL"), _endpoint_rows(status))
    if status.resources:
        yield ""
        yield from _table(("RESOURCE", "REVISION", "STATE", "DETAIL"), _resource_rows(status))
    if status.processes:
        yield ""
        yield from _table(("PROCESS", "PID", "STATE", "UP", "DETAIL"), _process_rows(status))


def _route_rows(status: Status) -> Iterator[tuple[str, ...]]:
    for route in status.routes:
        traffic = ", ".join(f"{share} % {rev[:8]}" for rev, share in sorted(route.weights.items())) or "none"
        revision = f"v{route.version} {route.revision[:8]}" if route.version else "-"
        yield route.name, revision, traffic, route.prompt, route.endpoint, one_line(route.note)


def _endpoint_rows(status: Status) -> Iterator[tuple[str, ...]]:
    for endpoint in status.endpoints:
        state = "ready" if endpoint.healthy else "not ready"
        note = "" if endpoint.recorded else " (not recorded)"
        yield f"{endpoint.key.name}@{endpoint.key.revision[:8]}", _state(state), one_line(endpoint.detail) + note


def _resource_rows(status: Status) -> Iterator[tuple[str, ...]]:
    for resource in status.resources:
        state = _state("ready" if resource.healthy else "not ready")
        yield str(resource.address), f"v{resource.version}", state, one_line(resource.detail)


def _process_rows(status: Status) -> Iterator[tuple[str, ...]]:
    for process in status.processes:
        pid = str(process.pid) if process.pid else "-"
        yield process.name, pid, _state(process.state), _uptime(process.uptime_s), one_line(process.detail)


def _state(text: str) -> str:
    good = text in ("serving", "ready", "running")
    return click.style(text, fg="green" if good else "red")


def _uptime(seconds: float) -> str:
    if seconds <= 0:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    body = list(rows)
    widths = [max(len(click.unstyle(row[i])) for row in (tuple(head), *body)) for i in range(len(head))]
    for number, row in enumerate((tuple(head), *body)):
        cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join(cells).rstrip()
        yield click.style(line, dim=True) if number == 0 else line
