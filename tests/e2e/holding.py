"""Holds the lock of the environment until it is killed, as an apply that takes long would."""

from __future__ import annotations

import sys
import time

from llmctl.app.workspace import open_workspace
from llmctl.record import Lock

if __name__ == "__main__":
    workspace = open_workspace(None, None)
    with Lock(workspace.repository, workspace.environment.name).acquire(f"llmctl {sys.argv[1]}"):
        print("held", flush=True)
        while True:
            time.sleep(60)
