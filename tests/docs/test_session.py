"""The comparison itself: it must find what is not true."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.docs.session import Command, Outcome, Shell, commands_of, compare, play, rewritten

OUTPUT = ("plan: serial 1", "step one@0123456789abcdef  (0.1 s)", "step two  45 ms", "done")


def _played(folder: Path, text: str) -> tuple[tuple[Command, ...], list[Outcome]]:
    document = folder / "page.md"
    document.write_text(f"# Page\n\n```console\n{text}```\n")
    commands = commands_of(document)
    with Shell(folder, os.environ, 30) as shell:
        return commands, list(play(commands, shell))


@pytest.mark.parametrize(
    "shown",
    [
        OUTPUT,
        ("…", "done"),
        ("plan: serial 1", "…"),
        ("…", "step two  45 ms", "…"),
        ("plan: serial 1", "step one@fedcba9876543210  (7.9 s)", "…", "done"),
    ],
)
def test_true_output_is_accepted(shown: tuple[str, ...]) -> None:
    assert compare(shown, OUTPUT, {}) == []


@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        (("plan: serial 2", "…"), "it does not print: plan: serial 2"),
        (("plan: serial 1", "done"), "where no line is left out, it prints: step one"),
        (("…", "done", "…", "step two  45 ms", "…"), "it does not print: step two  45 ms"),
        (("…", "step two  45 ms"), "where no line is left out, it prints: plan: serial 1"),
        ((), "where no line is left out, it prints: plan: serial 1"),
    ],
)
def test_untrue_output_is_found(shown: tuple[str, ...], complaint: str) -> None:
    assert [text.startswith(complaint) for text in compare(shown, OUTPUT, {})] == [True]


def test_one_revision_cannot_stand_for_two() -> None:
    names = {"aaaaaaa1": "bbbbbbb1"}
    assert compare(["runs aaaaaaa1"], ["runs ccccccc1"], names) != []


def test_a_revision_that_was_shown_is_replaced_by_the_real_one(tmp_path: Path) -> None:
    text = "$ echo made 12345678; touch 12345678\nmade 12345678\n$ ls -d 12345678\n12345678\n"
    _, same = _played(tmp_path, text)
    _, other = _played(
        tmp_path, text.replace("\nmade 12345678", "\nmade abcdef12").replace("12345678\n12", "abcdef12\n12")
    )
    assert [outcome.complaints for outcome in (*same, *other)] == [(), (), (), ()]


def test_a_command_that_fails_is_found_unless_its_code_is_shown(tmp_path: Path) -> None:
    _, outcomes = _played(tmp_path, "$ false\n$ cd / && false\n$ echo $?\n1\n$ pwd\n/\n$ false\n$ echo $?\n2\n")
    assert [len(outcome.complaints) for outcome in outcomes] == [1, 0, 0, 0, 0, 1]


def test_what_changed_is_rewritten_and_what_was_left_out_stays_out(tmp_path: Path) -> None:
    commands, outcomes = _played(tmp_path, "$ seq 6\n1\n…\n5\nsix\n$ echo same\nsame\n")
    text = rewritten((tmp_path / "page.md").read_text(), commands, outcomes)
    assert "$ seq 6\n1\n…\n5\n6\n$ echo same\nsame\n" in text
