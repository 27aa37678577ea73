"""The generated pages of the documentation: commands, the reference of ``llmops.yaml``, errors.

``python -m tools.docs`` writes them; ``tests/docs/test_generated.py`` holds the files to what is made here.
"""

from __future__ import annotations

from tools.docs import commands, errors, reference


def pages() -> dict[str, str]:
    """Every generated page: its path below ``docs/`` and its text."""
    return {**commands.pages(), "reference.md": reference.reference(), "errors.md": errors.catalogue()}
