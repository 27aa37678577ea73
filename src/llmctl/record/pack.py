"""A git pack in memory: objects whole, or as what differs from an object before them.

An apply that changes a thousand resources writes a thousand trees of a thousand entries, each one entry away
from the one before: whole they are tens of megabytes, as differences a few hundred kilobytes.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

_TYPES = {"commit": 1, "tree": 2, "blob": 3}
_REF_DELTA = 7
_CHAIN = 50  # as git itself has it: a longer chain of differences is slow to read
_INSERT = 127  # bytes that one insertion can hold


@dataclass
class Pack:
    """A pack in the making. An object is kept whole until another one is told by what differs from it."""

    algorithm: str  # of ids: "sha1" or "sha256"
    _encoded: dict[str, bytes] = field(default_factory=dict)
    _whole: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # content, and the length of its chain

    def __len__(self) -> int:
        return len(self._encoded)

    def add(self, name: str, kind: str, data: bytes, base: str) -> None:
        """Take an object by its id. ``base`` is the id of a like one, "" for none; one that is not at hand is not used.

        Nor is one for what is empty, such as the tree when all that a first apply made is taken back: git refuses a
        difference of less than four bytes.
        """
        if name in self._encoded:
            return
        before, chain = self._whole.pop(base, (b"", _CHAIN))
        if data and chain < _CHAIN:
            change = delta(before, data)
            head, body, chain = _header(_REF_DELTA, len(change)) + bytes.fromhex(base), change, chain + 1
        else:
            head, body, chain = _header(_TYPES[kind], len(data)), data, 0
        self._encoded[name] = head + zlib.compress(body, 1)
        self._whole[name] = data, chain

    def encoded(self) -> bytes:
        """The pack with all that was taken, in that order."""
        head = b"PACK" + struct.pack(">II", 2, len(self._encoded))
        pack = b"".join((head, *self._encoded.values()))
        return pack + hashlib.new(self.algorithm, pack, usedforsecurity=False).digest()


def delta(base: bytes, target: bytes) -> bytes:
    """What makes ``target`` of ``base``: the same beginning, something else, the same end."""
    one, other = len(base), len(target)
    start = _longest(min(one, other), lambda low, high: base[low:high] == target[low:high])
    end = _longest(
        min(one, other) - start, lambda low, high: base[one - high : one - low] == target[other - high : other - low]
    )
    out = _size(one) + _size(other) + _copy(0, start)
    middle = target[start : other - end]
    for at in range(0, len(middle), _INSERT):
        piece = middle[at : at + _INSERT]
        out += bytes([len(piece)]) + piece
    return out + _copy(one - end, end)


def _longest(most: int, same: Callable[[int, int], bool]) -> int:
    """For how many bytes two texts are the same: halved again and again, since comparing slices is fast."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if same(low, middle):
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
