"""Secrets: values that cannot be printed, logged, compared in the open or serialised by accident."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, NoReturn

_MASK = "**********"
_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE|CREDENTIALS?)\Z", re.IGNORECASE)  # of variables
_SHORTEST = 8  # characters: less is no secret, and stands in many words


class Secret:
    """A secret value. Only ``reveal()`` gives it out; everything else shows a mask or raises."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; call this only where it is used, never to build a message."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_MASK})"

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")

    def __iter__(self) -> NoReturn:
        raise TypeError("a Secret cannot be iterated")


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is found: the name of an environment variable. This may be recorded."""

    env: str

    def to_json(self) -> dict[str, str]:
        return {"env": self.env}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> SecretRef:
        return cls(env=data["env"])


def masked(text: str) -> str:
    """A text of which nobody knows what is in it, without the values of variables that are named as secrets are."""
    for name, value in os.environ.items():
        if _NAMES.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, "***")
    return text
