"""A git pack in memory: objects whole, or as what differs from an object before them.

An apply that changes a thousand resources writes a thousand trees of a thousand entries, each one entry away
from the one before: whole they are tens of megabytes, as differences a few hundred kilobytes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from typing import NamedTuple

_TYPES = {"commit": 1, "tree": 2, "blob": 3}
_REF_DELTA = 7
_CHAIN = 50  # as git itself has it: a longer chain of differences is slow to read
_INSERT = 127  # bytes that one insertion can hold


class Packed(NamedTuple):
    """One object to pack. ``base`` is the id of a like one, "" for none."""

    kind: str
    data: bytes
    base: str = ""


def encode_pack(objects: Mapping[str, Packed], algorithm: str) -> bytes:
    """The pack of ``objects`` (by id), in their order; a base that is not in the pack is not used.

    Nor is one for what is empty, such as the tree when all that a first apply made is taken back: git refuses a
    difference of less than four bytes.
    """
    pack = bytearray(b"PACK" + struct.pack(">II", 2, len(objects)))
    depth: dict[str, int] = {}
    for name, item in objects.items():
        base = item.base if item.data and 0 <= depth.get(item.base, -1) < _CHAIN else ""
        depth[name] = depth[base] + 1 if base else 0
        if base:
            data = delta(objects[base].data, item.data)
            pack += _header(_REF_DELTA, len(data)) + bytes.fromhex(base)
        else:
            data = item.data
            pack += _header(_TYPES[item.kind], len(data))
        pack += zlib.compress(data, 1)
    return bytes(pack + hashlib.new(algorithm, pack, usedforsecurity=False).digest())


def delta(base: bytes, target: bytes) -> bytes:
    """What makes ``target`` of ``base``: the same beginning, something else, the same end."""
    start = _common(base, target)
    shorter = min(len(base), len(target)) - start
    end = _common(base[::-1][:shorter], target[::-1][:shorter])
    out = _size(len(base)) + _size(len(target)) + _copy(0, start)
    middle = target[start : len(target) - end]
    for at in range(0, len(middle), _INSERT):
        piece = middle[at : at + _INSERT]
        out += bytes([len(piece)]) + piece
    return out + _copy(len(base) - end, end)


def _common(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are the same: halved again and again, since comparing slices is fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _copy(offset: int, size: int) -> bytes:
    """Instructions to copy from the base; one copies at most 16 MB."""
    out = b""
    while size:
        piece = min(size, 0xFFFFFF)
        numbers = [*offset.to_bytes(4, "little"), *piece.to_bytes(3, "little")]
        used = [(1 << i, byte) for i, byte in enumerate(numbers) if byte]
        out += bytes([0x80 | sum(bit for bit, _ in used), *(byte for _, byte in used)])
        offset, size = offset + piece, size - piece
    return out


def _size(number: int) -> bytes:
    """A length as deltas write it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _header(kind: int, size: int) -> bytes:
    """Type and length of an object: four bits of the length beside the type, then seven a byte."""
    out = bytearray()
    byte, size = (kind << 4) | (size & 15), size >> 4
    while size:
        out.append(byte | 128)
        byte, size = size & 127, size >> 7
    out.append(byte)
    return bytes(out)
