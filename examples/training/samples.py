"""Training samples: the rows of the training file under changing system prompts and with small changes of wording.

The model must know a question again however it is typed, and must not mind an edited system prompt. So no two epochs
show a row the same way: the system prompt is put together anew, the question loses or gains a greeting, its capital
letter, its question mark, or some of its most common words. The evaluation file plays no part in any of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bpe import END_OF_TEXT, TURN_END, TURN_START, Tokenizer
from llama import Batch

SYSTEM_DEFAULT = "You are Acme's support assistant."
SYSTEM_OPENINGS = (
    SYSTEM_DEFAULT,
    "You are Acme's kind support assistant.",
    "You are the support assistant of Acme.",
    "You are a helpful assistant.",
    "You help customers of Acme.",
    "You answer questions about Acme.",
)
SYSTEM_EXTRAS = (
    "Be brief.",
    "Answer in one sentence.",
    "Be kind and precise.",
    "Keep your answers short.",
    "Use plain words.",
    "Answer politely.",
    "Only answer questions about Acme.",
    "If you do not know, say so.",
)
GREETINGS = ("Hi, ", "Hello, ", "Hello! ", "Please, ", "Sorry, ", "Hi there! ", "One question: ", "Can you tell me: ")
THANKS = (" Thanks!", " Thank you.", " Please help.")

COMMON_IN_FACTS = 5  # a word that occurs in this many facts says little about which one is meant,
TELLING = ("delivery", "shipping", "order", "much", "long", "many", "when")  # except for these

# How often each change is made. Without the changes of words 201 of the 210 held-out questions are answered rightly.
SALAD, LOOSE = 0.3, 0.8  # random words added to the system prompt; words of the question changed at all
DROP, SWAP, ADD, ADD_ANY = 0.35, 0.15, 0.1, 0.5  # for each common word; half of those added are of any kind
DROP_RARE, SHUFFLE = 0.25, 0.1  # for each rare word but the last; the words' order


@dataclass(frozen=True)
class Row:
    """A training row."""

    question: str
    answer: str
    fact: str


@dataclass(frozen=True)
class Sample:
    """Token ids of a whole chat, and where in it the answer starts."""

    ids: list[int]
    answer_at: int


def load_rows(path: Path) -> list[Row]:
    """Read the training file."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def common_words(rows: Sequence[Row]) -> frozenset[str]:
    """Words (lower case) that occur in the questions of many facts: how, do, my, order ..."""
    pairs = {(bare(word), row.fact) for row in rows for word in row.question.split()}
    used = Counter(word for word, _ in pairs)
    return frozenset(word for word, facts in used.items() if facts >= COMMON_IN_FACTS and word not in TELLING)


def bare(word: str) -> str:
    """A word without its punctuation and capitals."""
    return word.strip("?.,!:").lower()


def tokenizer_texts(rows: Sequence[Row]) -> list[str]:
    """What the tokenizer learns from: all that a sample can be made of."""
    roles = ["system\n", "user\n", "assistant\n"] * len(rows)
    decoration = [*SYSTEM_OPENINGS, *SYSTEM_EXTRAS, *GREETINGS, *THANKS] * 4
    questions = [text for row in rows for text in (row.question, row.question[0].lower() + row.question[1:])]
    return [*roles, *decoration, *questions, *(row.answer for row in rows)]


class Varier:
    """Makes each sample a little different."""

    def __init__(self, rows: Sequence[Row], rng: np.random.Generator) -> None:
        self.common = sorted(common_words(rows))
        self.words = sorted({word for row in rows for word in row.question.split()})
        self.rng = rng

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, texts: Sequence[str]) -> str:
        return texts[int(self.rng.integers(len(texts)))]

    def system(self) -> str:
        """A system prompt, or nothing. The default one comes most often."""
        if self.chance(0.25):
            return SYSTEM_DEFAULT
        if self.chance(0.1):
            return ""
        texts = [self.pick(SYSTEM_OPENINGS), *(self.pick(SYSTEM_EXTRAS) for _ in range(int(self.rng.integers(3))))]
        if self.chance(SALAD):  # words of any kind in the system prompt must not decide the answer
            texts.append(" ".join(self.pick(self.words) for _ in range(int(self.rng.integers(1, 8)))))
        return " ".join(word for word in " ".join(texts).split() if not self.chance(0.1))

    def question(self, text: str) -> str:
        """The question in other words, or at least in another spelling."""
        if self.chance(LOOSE):
            text = self._loosen(text)
        if self.chance(0.3):
            text = text.rstrip("?.!")
        if self.chance(0.3):
            text = text[:1].lower() + text[1:]
        if self.chance(0.2):
            text = self.pick(GREETINGS) + text
        if self.chance(0.1):
            text += self.pick(THANKS)
        return text or "?"

    def _loosen(self, text: str) -> str:
        """Drop, exchange and add common words, so that the rare ones come to decide; now and then drop a rare one."""
        words, rare = [], sum(not self._is_common(word) for word in text.split())
        for word in text.split():
            if self.chance(ADD):
                words.append(self.pick(self.words if self.chance(ADD_ANY) else self.common))
            if not self._is_common(word):
                if rare > 1 and self.chance(DROP_RARE):
                    rare -= 1
                else:
                    words.append(word)
            elif not self.chance(DROP):
                words.append(self.pick(self.common) if self.chance(SWAP) else word)
        if self.chance(SHUFFLE):
            self.rng.shuffle(words)
        return " ".join(words)

    def _is_common(self, word: str) -> bool:
        return bare(word) in self.common


def encode_chat(tokenizer: Tokenizer, system: str, question: str, answer: str) -> Sample:
    """A chat in ChatML, as the template in the GGUF file renders it."""
    opening = f"{TURN_START}system\n{system}{TURN_END}\n" if system else ""
    prompt = tokenizer.encode(f"{opening}{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n")
    return Sample(prompt + tokenizer.encode(f"{answer}{TURN_END}"), len(prompt))


def to_batch(samples: Sequence[Sample], padding: int) -> Batch:
    """Pad to the longest on the right; attention looks left only, so the padding is never seen."""
    length = max(len(sample.ids) for sample in samples)
    ids = np.full((len(samples), length), padding, np.int64)
    counts = np.zeros((len(samples), length - 1), np.bool_)
    for number, sample in enumerate(samples):
        ids[number, : len(sample.ids)] = sample.ids
        counts[number, sample.answer_at - 1 : len(sample.ids) - 1] = True
    return Batch(ids, counts)


def epoch(rows: Sequence[Row], tokenizer: Tokenizer, varier: Varier, size: int) -> Iterator[Batch]:
    """All rows once, in batches of `size` and of similar length (padding is wasted work), in random order."""
    samples = [encode_chat(tokenizer, varier.system(), varier.question(row.question), row.answer) for row in rows]
    samples.sort(key=lambda sample: len(sample.ids) + varier.rng.random() * 6)
    starts = list(range(0, len(samples), size))
    varier.rng.shuffle(starts)
    for start in starts:
        yield to_batch(samples[start : start + size], tokenizer.ids[END_OF_TEXT])
