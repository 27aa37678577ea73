"""What a user may have meant by a word that is not known."""

from __future__ import annotations

from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> list[str]:
    """Up to three known words that the user may have meant, the likeliest first."""
    # Costs 6 ms to import, and only a file with an error in it needs it.
    from difflib import get_close_matches

    return get_close_matches(word, list(known), n=3, cutoff=0.6)


def suggestion(word: str, known: Iterable[str], what: str) -> str:
    """``did you mean …`` or the list of what there is; ``what`` names it in the plural."""
    names = sorted(known)
    if near := closest(word, names):
        return "did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    return f"{what}: {', '.join(names)}" if names else f"there are no {what} yet"
