"""The real command on a real terminal: what a person sees, and types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

COLUMNS = 80
DEADLINE_S = 60.0


def on_terminal(
    folder: Path,
    env: Mapping[str, str],
    *arguments: str,
    answer: bytes = b"",
    until: bytes = b"[y/N]: ",
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[int, str]:
    """Run ``llmctl`` on a terminal of 80 columns; when it shows ``until``, do what is to happen ``meanwhile`` and
    type the answer. Returns the exit code and all that it showed."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "llmctl", *arguments],
        cwd=folder,
        env={**env, "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        # The terminal is to be the controlling one, so that its Ctrl-C becomes a signal.
        preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)),
    )
    os.close(slave)
    shown, asked, deadline = b"", False, time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    data = os.read(master, 65536)
                except OSError:  # the other side is closed
                    break
                shown += data
                if not data:
                    break
            if not asked and until in shown:
                asked = True
                meanwhile()
                os.write(master, answer)
        return process.wait(DEADLINE_S), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(master)
