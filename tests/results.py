"""What a command of llmctl, run as a process, gave back."""

from __future__ import annotations

import json
from dataclasses import dataclass

from llmctl.core.digests import Json


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Json:
        return json.loads(self.out)
