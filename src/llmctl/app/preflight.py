"""What would fail half-way through an apply is found before its first effect."""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlsplit

from llmctl import spec
from llmctl.app.gc import cleared_by
from llmctl.app.workspace import Workspace
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json, digest_file
from llmctl.core.errors import InvalidInput, ProviderError
from llmctl.core.resources import Desired
from llmctl.core.steps import Provision
from llmctl.plan import Plan
from llmctl.providers.local.wire import holder, is_free


def preflight(workspace: Workspace, made: Plan) -> None:
    """Secrets, the gateway's port, the artifacts of a rollback. Raises ``InvalidInput`` or ``ProviderError``."""
    findings = [*_unset_secrets(workspace, made)]
    if made.action != "destroy":
        findings += [*_taken_port(workspace), *_engine_that_cannot_load(made)]
    if findings:
        raise InvalidInput(findings)
    if made.action == "rollback":
        _refuse_without_artifacts(workspace, made.desired)


def _unset_secrets(workspace: Workspace, made: Plan) -> list[Diagnostic]:
    """Only of endpoints that this plan touches: what serves already has its key."""
    found = []
    touched = {step.address for step in made.steps}
    for address, resource in sorted(made.desired.resources.items()):
        reference = resource.spec.get("api_key") if address.kind == "endpoint" and address in touched else None
        if reference and not os.environ.get(reference["env"]):
            name = reference["env"]
            where = spec.place(workspace.document, ("models", resource.spec["model"], "api_key"))
            summary, hint = f"environment variable {name} is not set", f"export {name}=… and run it again."
            found.append(Diagnostic(summary, where=where, address=address, detail="Nothing was changed.", hint=hint))
    return found


def _engine_that_cannot_load(made: Plan) -> list[Diagnostic]:
    """A missing library is told before anything changes."""
    starts = {s.address for s in made.steps if isinstance(s, Provision) and s.address.kind == "endpoint"}
    engines = {made.desired.resources[a].spec["engine"] for a in starts if a in made.desired.resources}
    reason = why_engine_cannot_load() if "llama.cpp" in engines else ""
    return [Diagnostic(reason, detail="Nothing was changed.")] if reason else []


def why_engine_cannot_load() -> str:
    """What keeps llama.cpp from being loaded, and what to do; "" when nothing does. Asked in a process of its own,
    as the engine will run."""
    command = [sys.executable, "-m", "llmctl.providers.local.engine", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 0:
        return ""
    reason = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    return reason.partition("llmctl engine: error ")[2].partition(": ")[2] or reason


def _taken_port(workspace: Workspace) -> list[Diagnostic]:
    """A port that the file asks for must be free, or the gateway's own."""
    environment = workspace.environment
    port = environment.gateway_port
    if not port or is_free(port):
        return []
    gateway = workspace.target.gateway.read()
    # What was left behind by processes that were killed is ended at the start, which looks at the port again.
    left_behind = workspace.target.exists() and not gateway.running
    if left_behind or urlsplit(gateway.base_url).port == port:
        return []
    return [
        Diagnostic(
            f"port {port} is taken by {holder(port)}",
            where=spec.place(workspace.document, ("environments", environment.name, "gateway", "port")),
            detail=f"The gateway of environment {environment.name} is to listen on it. Nothing was changed.",
            hint="End that process or choose another port; without `port` any free one is taken and kept.",
        )
    ]


def _refuse_without_artifacts(workspace: Workspace, desired: Desired) -> None:
    missing: list[str] = []
    gone: list[str] = []
    stored = workspace.target.artifacts.has
    found: set[str] = set()
    for address, resource in sorted(desired.resources.items()):
        for path, content in _contents(resource.spec):
            source = workspace.root / path
            if stored(content) or (source.is_file() and digest_file(source) == content):
                found.add(content)
            else:
                missing.append(f"{address}: {path} ({content[:19]}…)")
                gone.append(content)
    for address, resource in sorted(desired.resources.items()):
        for link in resource.spec["chain"] if address.kind == "route" else ():
            weights = link["spec"]["weights"]
            needed = [weights[k] for k in ("digest",) if k in weights] + [
                a["digest"] for a in weights.get("adapters", ())
            ]
            lost = [d for d in needed if d not in found and not stored(d)]
            gone += lost
            missing += [f"{address}: weights {d[:19]}… of {link['endpoint']}@{link['revision'][:8]}" for d in lost]
    if missing:
        serials = sorted(set(cleared_by(workspace.reader, gone).values()))
        missing += [f"`llmctl gc` cleared away content of these, as serial {serial}." for serial in serials]
        raise ProviderError(
            "this rollback needs artifacts that are no longer there; nothing was changed",
            detail="\n".join(missing),
            hint="Put the files back where they were (git checkout of the source commit in `llmctl audit show`).",
        )


def _contents(spec: dict[str, Json]) -> list[tuple[str, str]]:
    if "digest" in spec and "source" in spec:
        return [(spec["source"], spec["digest"])]
    return [(f["path"], f["digest"]) for f in spec.get("files", ())]
