"""Hooks of mkdocs: the navigation has every command, and what lies outside of ``docs/`` becomes text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_COMMAND = re.compile(r"\]\(([a-z]+)\.md\)")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)#]*)[^)]*\)")


def on_config(config: Any) -> Any:
    """Adds the page of each command below their list, in its order."""
    listed = _COMMAND.findall((Path(config.docs_dir) / "commands" / "index.md").read_text())
    for entry in config.nav:
        if "Commands" in entry:
            entry["Commands"] += [{name: f"commands/{name}.md"} for name in listed]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``[the example](../examples/)`` becomes ``the example (`examples/` in the repository)``."""
    return _OUTSIDE.sub(_as_text, markdown)


def _as_text(link: re.Match[str]) -> str:
    text, path = link[1], link[2]
    return text if text.strip("`") == path.strip("/") else f"{text} (`{path}` in the repository)"
