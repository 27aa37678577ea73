"""The CEL engine: compile once, execute often.

``import cel`` runs its package, which imports a whole REPL (177 ms); its extension alone takes 14 ms, so
the extension is found beside the package and loaded under its own name.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Protocol

from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError

#: What compiling and executing can raise, as the extension translates its errors.
ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class Program(Protocol):
    """A compiled expression."""

    def execute(self, context: dict[str, Json]) -> object: ...

    def variables(self) -> list[str]: ...


class NotCel(ValueError):
    """An expression does not parse; the message is CEL's own, with its caret."""


@lru_cache(maxsize=1)
def _extension() -> ModuleType:
    try:
        package = find_spec("cel")
        places = list(package.submodule_search_locations or ()) if package else []
        found = PathFinder.find_spec("cel.cel", places)
        if found is None or found.loader is None:
            return importlib.import_module("cel")
        module = module_from_spec(found)
        found.loader.exec_module(module)
    except ImportError as error:
        raise LlmctlError(
            "policies cannot be evaluated: the CEL library does not load",
            detail=str(error),
            hint="Run `pip install common-expression-language`.",
        ) from None
    return module


@lru_cache(maxsize=1024)
def compiled(source: str) -> Program:
    """Compile a CEL expression; raises ``NotCel`` when it does not parse."""
    try:
        program: Program = _extension().compile(source)
    except ERRORS as error:
        text = str(error).removeprefix(f"Failed to parse expression '{source}': ")
        raise NotCel(text.replace("ERROR: <input>:", "at line:column ")) from None
    return program
