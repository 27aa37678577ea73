"""Packages that are installed for a test alone: a folder on the path, with what pip would leave behind."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "plugin"
EXAMPLE_SOURCE = EXAMPLE / "src"


def install(site: Path, package: str, entry_points: str) -> Path:
    """Note a package with its entry points of the group ``llmctl.kinds`` in ``site``; returns ``site``."""
    info = site / f"{package.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[llmctl.kinds]\n{entry_points}\n")
    return site


def install_example(site: Path) -> Path:
    """The same for ``examples/plugin``, whose code is found in ``EXAMPLE_SOURCE``."""
    return install(site, "llmctl-fts", "fts = llmctl_fts:KIND")
