"""Live state: one concurrent bulk read of everything that a target runs."""

from llmctl.live.reading import READ_S, raised_in, read
from llmctl.live.state import LiveState

__all__ = ["READ_S", "LiveState", "raised_in", "read"]
