from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.approving import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Of approvals; other tests have a world of their own."""
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("LLMCTL_ENV", "LLMCTL_FILE", "LLMCTL_ALLOWED_SIGNERS", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    return World(tmp_path, monkeypatch)
