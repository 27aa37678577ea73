"""What an attempt is, how far its commits have come, and how it ended: as its journal tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json
from llmctl.core.errors import RecordError
from llmctl.core.resources import Rejection
from llmctl.record.layout import StateFile, parse_state
from llmctl.record.messages import Trailers

Outcome = Literal["applied", "failed", "interrupted", "aborted", "rolled back"]

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Head:
    """What an attempt is: the first line of its journal. ``base`` is the record's head it began at, "" for none."""

    environment: str
    project: str
    serial: int
    fence: int
    action: str
    actor: str
    started_at: str
    base: str
    plan_digest: str = ""
    source_commit: str = ""
    run: str = ""

    def to_json(self) -> dict[str, Json]:
        return {"type": "attempt", "format": FORMAT, **{name: getattr(self, name) for name in self.__slots__}}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Head:
        """Read the first line of a journal; raises ``RecordError`` for one that another version wrote."""
        if data.get("format") != FORMAT or any(name not in data for name in cls.__slots__):
            raise RecordError(
                "the journal of an open attempt was written by another version of llmctl",
                hint="Close it with that version: run its `llmctl apply`.",
            )
        return cls(**{name: data[name] for name in cls.__slots__})

    def trailers(self, action: bool = True) -> Trailers:
        """What every commit of the attempt says."""
        return (
            *((("Action", self.action),) if action else ()),
            ("Plan", self.plan_digest),
            ("Source", self.source_commit),
            ("Actor", self.actor),
            ("Run", self.run),
        )


@dataclass(frozen=True, slots=True)
class Chain:
    """How far an attempt's commits have come. ``first`` is the empty beginning of a record that had none."""

    tip: str  # "" before the first commit
    first: str
    count: int
    gates: Trailers  # the evidence that its commits claim


@dataclass(frozen=True, slots=True)
class Closing:
    """How an attempt ended: all that its entry says beside its changes. It is in the journal before any ref moves."""

    outcome: Outcome
    subject: str
    decisions: Json
    rejections: tuple[Rejection, ...]
    break_glass: tuple[BreakGlass, ...] = ()
    trailers: Sequence[tuple[str, str]] = ()

    def state(self, head: Head) -> StateFile:
        """``state.json`` of the entry."""
        return StateFile(
            head.environment,
            head.project,
            head.serial,
            head.fence,
            head.source_commit,
            self.outcome,
            self.rejections,
            self.break_glass,
        )

    def to_json(self, head: Head) -> dict[str, Json]:
        """A line of the journal; ``from_json`` reads it back."""
        return {
            "type": "closing",
            "subject": self.subject,
            "decisions": self.decisions,
            "state": self.state(head).to_json(),
            "trailers": [list(pair) for pair in self.trailers],
        }

    @classmethod
    def from_json(cls, line: Mapping[str, Json]) -> Closing:
        """Read it back; raises ``RecordError`` for what is none."""
        try:
            state = parse_state(json.dumps(line["state"]).encode(), "the end of an attempt")
            if state.outcome not in get_args(Outcome):
                raise ValueError(f"{state.outcome!r} is no outcome")
            trailers = tuple((str(key), str(value)) for key, value in line["trailers"])
            outcome: Outcome = state.outcome  # type: ignore[assignment]
            return cls(outcome, str(line["subject"]), line["decisions"], state.rejections, state.break_glass, trailers)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError("the journal of an open attempt does not say how it ended", detail=str(error)) from error
