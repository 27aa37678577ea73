"""A small reader for GGUF headers: is the file whole, is it a model or an adapter, what is it made for.

It reads the header alone and never the weights. The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Union

_MAGIC = b"GGUF"
_LFS_POINTER = b"version https://git-lfs"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_MAX_DIMENSIONS = 4
_MAX_NESTING = 4  # of arrays in arrays; no writer makes any
_MAX_TEXT = 1 << 16  # bytes; longer text (chat templates) is passed over

#: Values in a block: {ggml type: bytes of a block}
_BLOCK_BYTES: dict[int, dict[int, int]] = {
    1: {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2},
    32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 20: 18, 39: 17},
    64: {40: 36},
    128: {41: 18},
    256: {10: 84, 11: 110, 12: 144, 13: 176, 14: 210, 15: 292, 16: 66, 17: 74, 18: 98, 19: 50, 21: 110, 22: 82}
    | {23: 136, 29: 56, 34: 54, 35: 66},
}
_BLOCKS = {kind: (block, width) for block, widths in _BLOCK_BYTES.items() for kind, width in widths.items()}

Value = Union[str, int, float, bool, None]


class GgufError(ValueError):
    """The file cannot be used; the message says why, in the user's words, and ``hint`` what to do."""

    def __init__(self, message: str, hint: str = "Copy or download the file again, and compare its checksum.") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a header says. ``context`` is the trained context in tokens, 0 when it is not said."""

    architecture: str
    is_adapter: bool
    context: int
    tensors: int
    splits: int  # files that the model is split into; 0 or 1 for a whole one


def read_header(path: Path) -> GgufHeader:
    """Read and check the header. Raises ``GgufError`` for a file that llama.cpp could not load, ``OSError``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(_LFS_POINTER))
        if start == _LFS_POINTER:
            raise GgufError("it is a pointer of Git LFS and not the file itself", "Fetch the file: git lfs pull")
        if not start:
            raise GgufError("it is empty")
        if start[:4] != _MAGIC:
            raise GgufError("it is not a GGUF file (it does not start with the bytes `GGUF`)")
        if size < 24:
            raise GgufError("it is cut off in its header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, size).header()


class _Reader:
    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 4

    def header(self) -> GgufHeader:
        version = self._number("<I")
        if version not in (2, 3):
            order = " with the byte order of another machine" if version & 0xFFFF == 0 else ""
            hint = "Convert the model anew with the present tools of llama.cpp."
            raise GgufError(f"it has GGUF version {version}{order}; versions 2 and 3 are read", hint)
        tensors, count = self._number("<Q"), self._number("<Q")
        values: dict[str, Value] = {}
        for _ in range(count):
            key = self._text() or ""
            values[key] = self._value(self._number("<I"), 0)
        self._check_tensors(tensors, values.get("general.alignment", 32))
        architecture = values.get("general.architecture")
        if not isinstance(architecture, str):
            raise GgufError("its header does not say the architecture (`general.architecture`)")
        context, splits = values.get(f"{architecture}.context_length"), values.get("split.count")
        return GgufHeader(
            architecture=architecture,
            is_adapter=values.get("general.type") == "adapter",
            context=context if isinstance(context, int) else 0,
            tensors=tensors,
            splits=splits if isinstance(splits, int) else 0,
        )

    def _advance(self, length: int) -> int:
        """Pass over bytes and return where they began."""
        start, end = self._at, self._at + length
        if end > self._size:
            raise GgufError("it is cut off or corrupt: its header goes on after the end of the file")
        self._at = end
        return start

    def _number(self, form: str) -> int:
        return int(struct.unpack_from(form, self._data, self._advance(struct.calcsize(form)))[0])

    def _text(self) -> str | None:
        length = self._number("<Q")
        start = self._advance(length)
        return None if length > _MAX_TEXT else self._data[start : start + length].decode("utf-8", "replace")

    def _value(self, kind: int, depth: int) -> Value:
        if form := _SCALARS.get(kind):
            value: Value = struct.unpack_from(form, self._data, self._advance(struct.calcsize(form)))[0]
            return value
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY or depth >= _MAX_NESTING:
            raise GgufError("its header is corrupt: it holds a value of an unknown type")
        inner, count = self._number("<I"), self._number("<Q")
        if form := _SCALARS.get(inner):
            self._advance(struct.calcsize(form) * count)
            return None
        for _ in range(count):
            if inner == _STRING:
                self._advance(self._number("<Q"))
            else:
                self._value(inner, depth + 1)
        return None

    def _check_tensors(self, count: int, alignment: Value) -> None:
        """Every tensor's data must lie inside of the file."""
        if count == 0:
            raise GgufError("it holds no tensors")
        ends: list[tuple[int, str]] = []
        for _ in range(count):
            name = self._text() or "?"
            dimensions = self._number("<I")
            if not 1 <= dimensions <= _MAX_DIMENSIONS:
                raise GgufError(f"its header is corrupt: a tensor with {dimensions} dimensions")
            values = 1
            for _ in range(dimensions):
                values *= self._number("<Q")
            block, width = _BLOCKS.get(self._number("<I"), (1, 0))  # of a type not known: only where it begins
            ends.append((self._number("<Q") + values // block * width, name))
        if not isinstance(alignment, int) or isinstance(alignment, bool) or alignment <= 0:
            raise GgufError("its header is corrupt: `general.alignment` is not a positive number")
        start = -(-self._at // alignment) * alignment
        end, name = max(ends)
        if start + end > self._size:
            missing = start + end - self._size
            raise GgufError(f"it is cut off: {missing} bytes are missing at its end (tensor {name[:60]})")
