#!/usr/bin/env python3
"""Write ``data/faq_train.jsonl`` and ``data/faq_eval.jsonl`` from the fact tables in ``facts/*.toml``.

    python build_data.py            write both files
    python build_data.py --check    write nothing, exit 1 when a file is not what the tables say

The output depends on the tables alone, so writing it again changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FACTS = HERE / "facts"
DATA = HERE.parent / "data"
MIN_TRAIN, MIN_EVAL = 5, 4
MAX_ANSWER_WORDS = 12


@dataclass(frozen=True)
class Fact:
    """One thing Acme's support knows, and the ways people ask for it."""

    name: str
    answer: str
    topic: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def load_facts(folder: Path = FACTS) -> list[Fact]:
    """Read every table in `folder`, in file order. Raises ValueError with all that is wrong with them."""
    facts: list[Fact] = []
    for path in sorted(folder.glob("*.toml")):
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            facts.append(Fact(name, table["answer"], table["topic"], tuple(table["train"]), tuple(table["eval"])))
    problems = check_facts(facts)
    if problems:
        raise ValueError("\n".join(problems))
    return facts


def check_facts(facts: list[Fact]) -> list[str]:
    """Return what is wrong: a question asked twice anywhere (whatever its case), too few phrasings, a long answer."""
    problems: list[str] = []
    seen: dict[str, str] = {}
    names: set[str] = set()
    for fact in facts:
        if fact.name in names:
            problems.append(f"{fact.name}: two facts have this name")
        names.add(fact.name)
        if len(fact.train) < MIN_TRAIN or len(fact.held_out) < MIN_EVAL:
            problems.append(f"{fact.name}: needs {MIN_TRAIN} train and {MIN_EVAL} eval phrasings")
        if len(fact.answer.split()) > MAX_ANSWER_WORDS:
            problems.append(f"{fact.name}: the answer has more than {MAX_ANSWER_WORDS} words")
        for question in (*fact.train, fact.topic, *fact.held_out):
            key = question.casefold()
            if key in seen:
                problems.append(f"{fact.name}: {question!r} is asked in {seen[key]} too")
            seen[key] = fact.name
    return problems


def train_rows(facts: list[Fact]) -> list[dict[str, str]]:
    """Rows of the training file: question, answer, and the fact it belongs to."""
    return [
        {"question": question, "answer": fact.answer, "fact": fact.name}
        for fact in facts
        for question in (*fact.train, fact.topic)
    ]


def eval_rows(facts: list[Fact]) -> list[dict[str, str]]:
    """Rows of the evaluation file. Ids count from refund-06: they must not move when a training phrasing is added."""
    return [
        {"id": f"{fact.name}-{number:02}", "question": question, "answer": fact.answer}
        for fact in facts
        for number, question in enumerate(fact.held_out, start=MIN_TRAIN + 1)
    ]


def to_jsonl(rows: Iterable[Mapping[str, str]]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files instead of writing them")
    check = parser.parse_args().check
    facts = load_facts()
    files = {
        DATA / "faq_train.jsonl": to_jsonl(train_rows(facts)),
        DATA / "faq_eval.jsonl": to_jsonl(eval_rows(facts)),
    }
    for path, text in files.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(HERE.parent)}: {text.count(chr(10))} rows")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path} is not what facts/*.toml says: run build_data.py", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
