"""Writing files so that a crash leaves the old content or the new, never half of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llmctl.core.errors import LlmctlError


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace a file atomically and durably. Raises ``LlmctlError`` when the place cannot be written."""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or ".")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise LlmctlError(f"{path} cannot be written: {error.strerror}") from None
