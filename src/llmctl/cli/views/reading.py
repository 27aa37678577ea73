"""A large file is read: said on a terminal when it takes more than a moment, and gone again afterwards."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

AFTER_S = 1.0


@contextmanager
def told(name: str, size: int) -> Iterator[None]:
    """Say on stderr, which must be a terminal, that a file of so many bytes is being read."""
    amount = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    text = f"reading {name} ({amount}) …"[: shutil.get_terminal_size().columns - 1]
    shown = []

    def show() -> None:
        shown.append(text)
        print(text, end="", file=sys.stderr, flush=True)

    timer = Timer(AFTER_S, show)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for text in shown:
            print(f"\r{' ' * len(text)}\r", end="", file=sys.stderr, flush=True)
