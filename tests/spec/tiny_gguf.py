"""Writes GGUF files that are valid and tiny, by hand."""

from __future__ import annotations

import struct


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _pair(key: str, value: str | int | list[str]) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", 8) + _text(value)
    if isinstance(value, int):
        return _text(key) + struct.pack("<II", 4, value)
    items = b"".join(_text(item) for item in value)
    return _text(key) + struct.pack("<IIQ", 9, 8, len(value)) + items


def tiny_gguf(
    *,
    adapter: bool = False,
    architecture: str | None = "llama",
    context: int = 256,
    version: int = 3,
    extra: dict[str, str | int | list[str]] | None = None,
    tensors: tuple[tuple[str, int], ...] = (("a.weight", 8), ("b.weight", 40)),
) -> bytes:
    """A whole file with float32 tensors of the given lengths."""
    values: dict[str, str | int | list[str]] = {"tokenizer.ggml.tokens": ["a", "b", "é"], **(extra or {})}
    if architecture is not None:
        values["general.architecture"] = architecture
        values[f"{architecture}.context_length"] = context
    if adapter:
        values["general.type"] = "adapter"
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    header += b"".join(_pair(key, value) for key, value in values.items())
    data = b""
    for name, length in tensors:
        header += _text(name) + struct.pack("<IQIQ", 1, length, 0, len(data))
        data += b"\0" * (-(-length * 4 // 32) * 32)
    padding = -len(header) % 32
    return header + b"\0" * padding + data
