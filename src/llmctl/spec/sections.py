"""Which section of the file belongs to which kind. Installed packages are asked only about what is not built in."""

from __future__ import annotations

from llmctl.core import plugins
from llmctl.core.errors import LlmctlError
from llmctl.core.kinds import KINDS
from llmctl.core.plugins import KindPlugin
from llmctl.spec.models import FileShape, ResourceShape

KIND_OF_SECTION = {kind.section: kind.name for kind in KINDS}


def known_sections() -> tuple[str, ...]:
    """Every section that entries may stand in; asks the installed packages."""
    return (*KIND_OF_SECTION, *(plugin.kind.section for plugin in plugins.installed().values()))


def plugin_in(section: str) -> KindPlugin | None:
    """The plug-in that a section belongs to; raises ``LlmctlError`` for one that cannot be used."""
    if section in FileShape.known_keys():
        return None
    plugin = plugins.plugin_in(section)
    if plugin is not None and not (isinstance(plugin.entry, type) and issubclass(plugin.entry, ResourceShape)):
        detail = "The shape of its entries is no subclass of llmctl.spec.ResourceShape."
        raise LlmctlError(f"the kind {plugin.kind.name!r} cannot be used", detail=detail, hint="Repair its package.")
    return plugin


def kind_in(section: str) -> str | None:
    """The kind whose entries stand in a section; ``None`` for any other key."""
    if section in KIND_OF_SECTION:
        return KIND_OF_SECTION[section]
    plugin = plugin_in(section)
    return plugin.kind.name if plugin else None
