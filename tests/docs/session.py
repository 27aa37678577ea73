"""Run the ``$`` commands of a document's ```` ```console ```` blocks in one shell, and hold them to the output shown.

Conventions of the documents:

- A line ``…`` stands for lines that were left out. All others must be there, in order and without a gap.
- A command exits with 0, unless the next one is ``echo $?``, which then shows the code.
- What differs from run to run (revisions, times, ports, figures) is not compared. A revision that a later
  command names is replaced by the one that this run showed in its place, as a reader would do.
- A line is as a terminal shows it in the end: without the time of day and what a plain log says of steps under way.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from threading import Timer
from typing import Self

ELLIPSIS = "…"
_MARK = "command-ended"
_ID = re.compile(r"\b[0-9a-f]{7,64}\b")
_PLAIN_LOG = re.compile(r"^\d\d:\d\d:\d\d ")
_UNDER_WAY = re.compile(r"… |  \w+:\S+  ")  # a step that starts or goes on: a terminal shows it only meanwhile

#: What differs from run to run, and what stands for it. Wide columns may move, so runs of blanks are one.
_MASKS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), mask)
    for pattern, mask in (
        (r"\s+\(\d+\.\d s\)$", ""),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\dZ)?", "<time>"),
        (r"\bin \d+(\.\d)? s\b", "in <seconds>"),
        (r"\b(pid|port) \d+", r"\1 <number>"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
        (r"^(\S+ +)\d+( +running +)\d+ \w+", r"\1<pid>\2<time>"),
        (r"-?\b\d\.\d{3,4}\b", "<figure>"),
        (r"^( *latency_p95_ms .*?) \S+ +\[[^]]*\]", r"\1 <ms>"),
        (r"^    [a-z]+-\d+  .*", "<row>"),  # which rows of a bad model are worst depends on the CPU
        (r"^      (expected|answered)  .*", r"<\1>"),
        (r"\s+", " "),
    )
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a document, and what is shown below it. ``line`` is its own, from 1."""

    document: Path
    line: int
    text: str
    shown: tuple[str, ...]
    may_fail: bool

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did: its exit code, its output, and what does not agree with the document."""

    code: int
    output: tuple[str, ...]
    complaints: tuple[str, ...]


def commands_of(document: Path) -> tuple[Command, ...]:
    """The commands of a document, in order."""
    found: list[tuple[int, str, list[str]]] = []
    fence = ""
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```console" and line.startswith("$ "):
            found.append((number, line.removeprefix("$ "), []))
        elif fence == "```console":
            found[-1][2].append(line)
    checked = {number for number, (_, text, _) in enumerate(found, -1) if text == "echo $?"}
    return tuple(
        Command(document, line, text, tuple(shown), number in checked)
        for number, (line, text, shown) in enumerate(found)
    )


class Shell:
    """One bash for all commands of a document; ends itself after ``seconds``, and is closed by ``with``."""

    def __init__(self, folder: Path, environment: Mapping[str, str], seconds: float) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._timer = Timer(seconds, self._bash.kill)
        self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._bash.kill()
        self._bash.communicate()

    def run(self, text: str) -> tuple[int, tuple[str, ...]]:
        """The exit code and the lines of stdout and stderr together. ``$?`` stays that of the command."""
        stdin, stdout = self._bash.stdin, self._bash.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f'{{ {text}\n}} </dev/null; __code=$?; printf "\\n%s %d\\n" {_MARK} $__code; (exit $__code)\n')
        stdin.flush()
        lines: list[str] = []
        for line in stdout:
            if line.startswith(_MARK):
                return int(line.split()[1]), tuple(_trimmed(lines))
            lines.append(line.rstrip())
        raise TimeoutError(f"the shell ended in: {text}")


def play(commands: Sequence[Command], shell: Shell) -> Iterator[Outcome]:
    """Run the commands one after the other, and compare."""
    names: dict[str, str] = {}
    for command in commands:
        text = _ID.sub(lambda found: names.get(found[0], found[0]), command.text)
        code, raw = shell.run(text)
        output = tuple(_as_on_a_terminal(raw))
        complaints = [] if code == 0 or command.may_fail else [f"it exits with {code}"]
        yield Outcome(code, output, (*complaints, *compare(command.shown, output, names)))


def compare(shown: Sequence[str], output: Sequence[str], names: dict[str, str]) -> list[str]:
    """What is shown and was not printed so. Adds to ``names`` what each revision shown is called in this run."""
    printed = [_masked(line) for line in output]
    chunks = _chunks(shown)
    at = 0
    for number, chunk in enumerate(chunks):
        wanted = [_masked(line) for line in chunk]
        starts = range(at, len(printed) - len(wanted) + 1)
        if number == len(chunks) - 1:
            starts = starts[-1:]
        if number == 0:
            starts = range(1) if 0 in starts else range(0)
        start = next((s for s in starts if printed[s : s + len(wanted)] == wanted), None)
        if start is None:
            return [_difference(chunk, output[at:])]
        at = start + len(wanted)
        for ours, theirs in zip(chunk, output[start:at], strict=True):
            for mine, real in zip(_ID.findall(ours), _ID.findall(theirs), strict=True):
                if names.setdefault(mine, real) != real:
                    return [f"{mine} stood for {names[mine]} before, and for {real} in: {ours}"]
    return []


def _difference(chunk: Sequence[str], output: Sequence[str]) -> str:
    """The first line of a chunk that is not printed; else what is printed and not shown."""
    printed = {_masked(line) for line in output}
    missing = next((line for line in chunk if _masked(line) not in printed), None)
    if missing is not None:
        return f"it does not print: {missing}"
    wanted = {_masked(line) for line in chunk}
    extra = next((line for line in output if _masked(line) not in wanted), "the same lines in another order")
    return f"where no line is left out, it prints: {extra}"


def _chunks(shown: Sequence[str]) -> list[list[str]]:
    """The lines between those that say that something was left out; the outer ones may be empty."""
    chunks: list[list[str]] = [[]]
    for line in shown:
        if line.strip() == ELLIPSIS:
            chunks.append([])
        else:
            chunks[-1].append(line)
    return chunks


def _masked(line: str) -> str:
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return _ID.sub("<id>", line).strip()


def _as_on_a_terminal(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        text = _PLAIN_LOG.sub("", line)
        if text == line or not _UNDER_WAY.match(text):
            yield text


def _trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at both ends: a document shows none there."""
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def rewritten(text: str, commands: Sequence[Command], outcomes: Sequence[Outcome]) -> str:
    """The document's text with the output of every command that does not agree as it is now."""
    lines = text.splitlines()
    for command, outcome in reversed(list(zip(commands, outcomes, strict=True))):
        if outcome.complaints:
            here = slice(command.line, command.line + len(command.shown))
            lines[here] = _shortened(command.shown, outcome.output)
    return "\n".join(lines) + "\n"


def _shortened(shown: Sequence[str], output: Sequence[str]) -> Iterator[str]:
    """The output, without what was left out before. Where other lines changed too, all is shown: shorten it by hand."""
    match = SequenceMatcher(None, [_masked(line) for line in shown], [_masked(line) for line in output], autojunk=False)
    for tag, first, last, start, end in match.get_opcodes():
        if tag != "equal" and shown[first:last] == (ELLIPSIS,):
            yield ELLIPSIS
        else:
            yield from output[start:end]
