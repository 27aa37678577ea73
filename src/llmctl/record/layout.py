"""What lies where in the record's tree, and its JSON forms.

state.json                              format, serial, fence, outcome … of the entry
resources/<kind>/<name>.json            what is recorded of one resource
evidence/<gate>/<hex of digest>.json    what a gate measured; never changed afterwards
decisions/<serial>.json                 policies, waivers, approvals and the actor of one entry
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from llmctl.core.address import NAME, Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json, digest, pretty_json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import FORMAT as EVIDENCE_FORMAT
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Recorded, RecordState, Rejection

FORMAT = 1
STATE = "state.json"
T = TypeVar("T")

_RESOURCE = re.compile(r"resources/({0})/({0})\.json\Z".format(NAME.pattern.removesuffix(r"\Z")))
_EVIDENCE = re.compile(r"evidence/([^/]+)/([0-9a-f]{64})\.json\Z")


@dataclass(frozen=True, slots=True)
class StateFile:
    """``state.json``: one entry of the record in short."""

    environment: str
    project: str
    serial: int
    fence: int
    source_commit: str
    outcome: str
    rejections: tuple[Rejection, ...] = ()
    break_glass: tuple[BreakGlass, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "format": FORMAT,
            "environment": self.environment,
            "project": self.project,
            "serial": self.serial,
            "fence": self.fence,
            "source_commit": self.source_commit,
            "outcome": self.outcome,
            "rejections": [
                {
                    "address": str(r.address),
                    "revision": r.revision,
                    "serial": r.serial,
                    "reason": r.reason,
                    "actor": r.actor,
                }
                for r in self.rejections
            ],
            **({"break_glass": [b.to_json() for b in self.break_glass]} if self.break_glass else {}),
        }


def record_path(address: Address) -> str:
    """Where a resource lies in the record."""
    return f"resources/{address.kind}/{address.name}.json"


def evidence_path(evidence: Evidence) -> str:
    """Where evidence lies in the record; the file's name is its digest."""
    return f"evidence/{evidence.gate}/{evidence.digest.removeprefix('sha256:')}.json"


def decisions_path(serial: int) -> str:
    """Where the decisions of one entry lie in the record."""
    return f"decisions/{serial}.json"


def address_at(path: str) -> Address | None:
    """The resource that lies at ``path``, ``None`` when it is not the path of one."""
    found = _RESOURCE.match(path)
    return Address(found[1], found[2]) if found else None


def evidence_at(path: str) -> tuple[str, str] | None:
    """Gate and digest (``sha256:…``) of the evidence that lies at ``path``, ``None`` when none can."""
    found = _EVIDENCE.match(path)
    return (found[1], f"sha256:{found[2]}") if found and NAME.match(found[1]) else None


def resource_json(recorded: Recorded) -> dict[str, Json]:
    """The file of a resource; ``parse_resource`` reads it back."""
    return {
        "format": FORMAT,
        "kind": recorded.address.kind,
        "name": recorded.address.name,
        "spec": recorded.spec,
        "revision": recorded.revision,
        "version": recorded.version,
        "revisions": list(recorded.revisions),
        "needs": [str(a) for a in recorded.needs],
        "outputs": recorded.outputs,
    }


def encode(path: str, value: Json) -> bytes:
    """The bytes of a file in the record; raises ``RecordError`` for what JSON cannot hold, a secret among it."""
    try:
        return pretty_json(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        # Not the error's text: it could quote the value.
        raise RecordError(f"{path} holds a value that cannot be recorded: {type(error).__name__}") from None


def parse_json(data: bytes, where: str, known_format: int = FORMAT) -> Mapping[str, Json]:
    """Read a JSON object; raises ``RecordError`` for damage and for the format of a newer llmctl."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(where, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(where, "it is not a JSON object")
    form = value.get("format", known_format)
    if not isinstance(form, int) or form > known_format:
        raise RecordError(
            f"{where} was written by a newer llmctl (format {form}, this one knows {known_format})",
            hint="Upgrade llmctl: `pip install --upgrade llmctl`.",
        )
    return value


def parse_state(data: bytes, where: str) -> StateFile:
    """Read ``state.json``."""
    return _read(data, where, _state, FORMAT)


def parse_resource(data: bytes, where: str) -> Recorded:
    """Read the file of a resource."""
    return _read(data, where, _resource, FORMAT)


def parse_evidence(data: bytes, where: str) -> Evidence:
    """Read an evidence file."""
    return _read(data, where, Evidence.from_json, EVIDENCE_FORMAT)


def content_digest(data: bytes, where: str) -> str:
    """The digest of a file's JSON content, which for evidence must be its name."""
    return digest(parse_json(data, where, EVIDENCE_FORMAT))


def _read(data: bytes, where: str, build: Callable[[Mapping[str, Json]], T], known_format: int) -> T:
    value = parse_json(data, where, known_format)
    try:
        return build(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise _damaged(where, reason) from error


def _state(value: Mapping[str, Json]) -> StateFile:
    return StateFile(
        environment=str(value["environment"]),
        project=str(value["project"]),
        serial=int(value["serial"]),
        fence=int(value["fence"]),
        source_commit=str(value["source_commit"]),
        outcome=str(value["outcome"]),
        rejections=tuple(
            Rejection(
                Address.parse(r["address"]), str(r["revision"]), int(r["serial"]), str(r["reason"]), r.get("actor", "")
            )
            for r in value["rejections"]
        ),
        break_glass=tuple(map(BreakGlass.from_json, value.get("break_glass", ()))),
    )


def _resource(value: Mapping[str, Json]) -> Recorded:
    return Recorded(
        address=Address(str(value["kind"]), str(value["name"])),
        spec=dict(value["spec"]),
        revision=str(value["revision"]),
        version=int(value["version"]),
        needs=tuple(map(Address.parse, value["needs"])),
        revisions=tuple(value["revisions"]),
        outputs=dict(value["outputs"]),
    )


def record_state(state: StateFile, head: str, resources: Mapping[Address, Recorded]) -> RecordState:
    """The record at one entry, as the other rooms know it."""
    return RecordState(
        environment=state.environment,
        serial=state.serial,
        head=head,
        fence=state.fence,
        project=state.project,
        resources=resources,
        rejections=state.rejections,
        break_glass=state.break_glass,
    )


def _damaged(where: str, reason: str) -> RecordError:
    return RecordError(
        f"{where} in the record cannot be read",
        detail=reason,
        hint="llmctl wrote no such file: `llmctl audit verify` names the commit that changed it.",
    )
