"""Addresses: how one resource is named everywhere (``prompt.answer``, ``route.support``)."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: A name becomes a map key, a file name, a git path and a process name, so it is kept plain.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?\Z")


@dataclass(frozen=True, order=True, slots=True)
class Address:
    """A resource of one kind by its name, unique within an environment."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``kind.name``; raises ``ValueError`` when the text has another form."""
        kind, dot, name = text.partition(".")
        if not dot or not NAME.match(kind) or not NAME.match(name):
            raise ValueError(f"{text!r} is not an address; write kind.name, for example prompt.answer")
        return cls(kind, name)
