"""``llmctl`` that sends itself a signal when its log says a certain line, and goes on when the signal was heard.

A signal from another process comes when the machine finds the time, maybe after the step that it was meant for.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from threading import Event
from types import FrameType

from llmctl.cli import main
from llmctl.cli.views.progress import PlainProgress

HEARD_S = 60.0


def interrupt_at(line: str, number: int) -> None:
    """Send the signal the first time that ``line`` is said."""
    heard, sent, say, install = Event(), Event(), PlainProgress._say, signal.signal

    def watched(which: int, handler: Callable[[int, FrameType | None], None]) -> object:
        def handle(received: int, frame: FrameType | None) -> None:
            handler(received, frame)
            heard.set()

        return install(which, handle if callable(handler) else handler)

    def said(self: PlainProgress, text: str) -> None:
        say(self, text)
        if line in text and not sent.is_set():
            sent.set()
            os.kill(os.getpid(), number)
            assert heard.wait(HEARD_S)

    signal.signal = watched  # type: ignore[assignment]
    PlainProgress._say = said  # type: ignore[method-assign]


if __name__ == "__main__":
    interrupt_at(sys.argv[2], int(sys.argv[1]))
    del sys.argv[1:3]
    main()
