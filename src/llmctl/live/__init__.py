"""Live state: one concurrent bulk read of everything that a target runs."""

from llmctl.live.reading import READ_S, nonsense_in, raised_in, read
from llmctl.live.state import LiveState

__all__ = ["READ_S", "LiveState", "nonsense_in", "raised_in", "read"]
