"""The providers of plug-ins' kinds on the local target."""

from __future__ import annotations

import traceback

from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError, ProviderError
from llmctl.core.plugins import Place, plugin_of
from llmctl.core.protocols import Op, Provider
from llmctl.core.resources import Key, Live, Reading
from llmctl.providers.local.layout import Layout


def provider_of(kind: str, place: Place, layout: Layout) -> Provider[Json]:
    """The provider of a plug-in's kind; raises ``LlmctlError`` when there is none for this place."""
    try:
        provider = plugin_of(kind).provider(place)
    except LlmctlError:
        raise
    except Exception as error:  # noqa: BLE001 - a package of somebody else may fail in any way
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise ProviderError(
            f"the kind {kind!r} raised {type(error).__name__} when it was asked for its provider",
            detail=f"Raised in {frame.name}, {frame.filename}:{frame.lineno}.",
            hint="This is a defect of the package that provides the kind; please report it.",
        ) from None
    return _NothingYet(provider, layout) if layout.is_copy else provider


class _NothingYet:
    """In the copy of a project nothing is there yet: what the copied folder says is about the other one.

    The folder is taken away when the target is started.
    """

    def __init__(self, provider: Provider[Json], layout: Layout) -> None:
        self._provider = provider
        self._layout = layout

    def read_all(self) -> Reading[Json]:
        return Reading() if self._layout.is_copy else self._provider.read_all()

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        return self._provider.create(op, key, want)

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        return self._provider.update(op, key, was, want)

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        self._provider.delete(op, key, was)
