"""A byte-level BPE tokenizer of the GPT-2 kind, trained here and understood by llama.cpp (which calls it "gpt2").

Text is cut into words, each word into bytes, each byte is shown as one printable character, and the pairs that occur
most often are merged into longer tokens, again and again. Encoding replays the merges in the order they were learnt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = (END_OF_TEXT, TURN_START, TURN_END)

# llama.cpp's "gpt-2" word rule. Python's `re` has no \p{L}; [^\W\d_] is the same class of letters.
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIALS)) + ")")

Pair = tuple[str, str]


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte 0..255; the table is GPT-2's, and llama.cpp expects just it."""
    shown = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    stand_in = {byte: 256 + position for position, byte in enumerate(hidden)}
    return [chr(stand_in.get(byte, byte)) for byte in range(256)]


SYMBOLS = byte_symbols()


def merge_pair(symbols: tuple[str, ...], pair: Pair) -> tuple[str, ...]:
    """Join each occurrence of `pair` in a word, left to right."""
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)


def learn_merges(words: Counter[tuple[str, ...]], limit: int) -> list[Pair]:
    """Learn up to `limit` merges from counted words. Ties go to the pair that sorts last, so that it is repeatable."""
    counts: Counter[Pair] = Counter()
    for word, number in words.items():
        for pair in pairwise(word):
            counts[pair] += number
    merges: list[Pair] = []
    while len(merges) < limit:
        best = max(counts, key=lambda pair: (counts[pair], pair), default=None)
        if best is None or counts[best] <= 0:
            break
        merges.append(best)
        for word in [word for word in words if best in pairwise(word)]:
            number, merged = words.pop(word), merge_pair(word, best)
            words[merged] += number
            for pair in pairwise(word):
                counts[pair] -= number
            for pair in pairwise(merged):
                counts[pair] += number
    return merges


class Tokenizer:
    """Tokens in id order: 256 bytes, then one for each merge, then the three special ones."""

    def __init__(self, merges: list[Pair]) -> None:
        self.merges = merges
        # Two merges may make the same text; it gets one id.
        self.tokens = list(dict.fromkeys([*SYMBOLS, *(left + right for left, right in merges), *SPECIALS]))
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        self._rank = {pair: number for number, pair in enumerate(merges)}
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> Tokenizer:
        """Learn from `texts` until there are about `vocabulary` tokens."""
        words = Counter(tuple(SYMBOLS[b] for b in word.encode()) for text in texts for word in WORD.findall(text))
        return cls(learn_merges(words, vocabulary - len(SYMBOLS) - len(SPECIALS)))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; the special tokens in it are recognised."""
        ids: list[int] = []
        for part in SPECIAL.split(text):
            if part in SPECIALS:
                ids.append(self.ids[part])
                continue
            for word in WORD.findall(part):
                ids += self._encode_word(word)
        return ids

    def _encode_word(self, word: str) -> list[int]:
        if word not in self._cache:
            symbols = tuple(SYMBOLS[byte] for byte in word.encode())
            while pairs := [pair for pair in pairwise(symbols) if pair in self._rank]:
                symbols = merge_pair(symbols, min(pairs, key=self._rank.__getitem__))
            self._cache[word] = [self.ids[symbol] for symbol in symbols]
        return self._cache[word]
