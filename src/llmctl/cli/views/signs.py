"""The signs that views use, and what stands for them where the output's encoding has none."""

from __future__ import annotations

import codecs

from llmctl.core.steps import Action

#: action: sign and colour
OF_ACTION = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("±", "yellow"),
    Action.DELETE: ("-", "red"),
    Action.ADOPT: ("=", "cyan"),
    Action.RESTORE: ("↺", "cyan"),
    Action.MOVE: (">", "cyan"),
    Action.NOOP: (" ", "white"),
}

FALLBACK = "llmctl-signs"  # the name of the error handler, for `reconfigure(errors=…)`

_ASCII = {
    "✓": "ok", "✗": "x", "▼": "v", "±": "*", "↺": "@", "↶": "<", "→": "->", "≥": ">=", "≤": "<=", "…": "...",
    "·": ".", "∞": "inf", "×": "x", "’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-",
}  # fmt: skip


def _encode(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error(FALLBACK, _encode)
