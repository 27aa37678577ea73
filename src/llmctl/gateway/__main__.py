"""``python -m llmctl.gateway``: one gateway process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llmctl.core.errors import LlmctlError
from llmctl.core.process import die_with_parent
from llmctl.gateway.server import Settings, run


def _settings() -> Settings:
    parser = argparse.ArgumentParser(prog="python -m llmctl.gateway", description="Serves llmctl's routes.")
    parser.add_argument("--dir", required=True, type=Path, help="folder with config.json and secrets.json")
    parser.add_argument("--port", required=True, type=_port, help="TCP port for clients; 0 takes any free one")
    parser.add_argument("--admin-socket", required=True, type=Path, help="path of the unix socket for llmctl")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    given = parser.parse_args()
    return Settings(given.dir, given.host, given.port, given.admin_socket)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def main() -> int:
    """Serve until stopped; 1 with a message on stderr when it cannot start."""
    settings = _settings()
    die_with_parent()
    try:
        run(settings)
    except LlmctlError as error:
        hint = f" {error.hint}" if error.hint else ""
        print(f"llmctl gateway: error: {error.summary}.{hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
