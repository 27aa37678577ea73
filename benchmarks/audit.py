"""Asking a large record: `audit log`, `show` and `blame` beside plain `git log`, in the same run.

    python benchmarks/audit.py [--commits 10000] [--resources 1000] [--runs 5] [--keep FOLDER]

Makes a record of prompts in a temporary git repository, in the form in which applies write it, once with an
entry for every change ("many") and once with entries of 1,000 changes ("bulk"). Wall seconds are of the whole
command and the median of runs taken in turns, CPU is user + system of it and of the git processes that it waited
for; the ratio is of the CPU to that of `git log --oneline` over the whole record.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import records

from llmctl.core.digests import Json
from llmctl.record.layout import STATE, StateFile, decisions_path, encode, record_path, resource_json
from llmctl.record.messages import compose
from llmctl.record.objects import list_files
from llmctl.record.tree import Tree
from llmctl.record.writing import Batch, store

ENV = records.ENV
BEGUN = 1_790_000_000  # seconds of the first entry; each is an hour after the one before
ACTOR = "Bench <bench@example.invalid>"
_AT_ONCE = 2_000  # commits in one pack


class Writer:
    """Writes entries one after the other, several in a pack."""

    def __init__(self, folder: Path) -> None:
        self.repository = records.make_repository(folder)
        self.batch, self.tree = Batch(self.repository.algorithm), Tree()
        self.count, self.serial = 0, 0
        self.versions: dict[int, int] = {}  # by number of the prompt
        self.head = self._commit([], compose(f"Begin the record of {ENV}", [("Serial", "0")]))

    def entry(self, numbers: list[int]) -> None:
        """One apply that changes these prompts, a commit each, and the merge."""
        self.serial += 1
        common = [("Serial", str(self.serial)), ("Action", "apply"), ("Actor", ACTOR)]
        tip, told = self.head, []
        for number in numbers:
            version = self.versions[number] = self.versions.get(number, 0) + 1
            now = records.prompt(number, version)
            told.append({"address": str(now.address), "action": "update", "reason": "messages changed",
                         "before": "", "after": now.revision})  # fmt: skip
            self._put(record_path(now.address), resource_json(now))
            own = [("Resource", str(now.address)), ("Revision", now.revision)]
            tip = self._commit([tip], compose(f"update {now.address} v{now.version}", [*common, *own]))
        state = StateFile(ENV, "bench", self.serial, self.serial, "", "applied")
        self._put(STATE, state.to_json())
        why = {"action": "apply", "reason": "", "actor": ACTOR, "changes": told, "policies": [], "steps": []}
        self._put(decisions_path(self.serial), why)
        text = compose(f"apply: {told[0]['address']}", [*common[:2], ("Outcome", "applied"), *common[2:]])
        self.head = self._commit([self.head, tip], text)
        if self.count % _AT_ONCE < 2:
            self.flush()

    def flush(self) -> None:
        store(self.repository, self.batch)
        self.repository.git.run("update-ref", f"refs/heads/llmctl/{ENV}", self.head)
        self.tree = Tree(list_files(self.repository, self.head))

    def _put(self, path: str, value: Json) -> None:
        self.tree.put(path, self.batch.add("blob", encode(path, value)))

    def _commit(self, parents: list[str], message: str) -> str:
        moment = f"{BEGUN + 3600 * self.serial} +0000"
        lines = [f"tree {self.tree.write(self.batch)}", *(f"parent {parent}" for parent in parents)]
        lines += [f"author {ACTOR} {moment}", f"committer {ACTOR} {moment}", "", message]
        self.count += 1
        return self.batch.add("commit", "\n".join(lines).encode())


def make(folder: Path, commits: int, resources: int, changes: int) -> Writer:
    """A record of about ``commits`` commits whose entries have ``changes`` changes each."""
    writer, number = Writer(folder), 0
    writer.entry(list(range(resources)))  # the first apply makes them all
    while writer.count < commits:
        writer.entry([(number + n) % resources for n in range(changes)])
        number += changes
    writer.flush()
    return writer


def once(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one run; stops the benchmark when it fails."""
    begun = time.perf_counter()
    with open(os.devnull, "w") as null:
        process = subprocess.Popen(command, cwd=folder, stdout=null)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited {process.returncode}")
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime


def measure(shape: str, writer: Writer, runs: int) -> None:
    llmctl = [str(Path(sys.executable).with_name("llmctl")), "audit"]
    middle = str(max(1, writer.serial // 2))
    commands = {
        "git log --oneline": ["git", "log", "--oneline", f"llmctl/{ENV}"],
        "audit log -n 20": [*llmctl, "log", "-n", "20"],
        "audit log --resource": [*llmctl, "log", "--resource", "prompt.p00007"],
        "audit log --text": [*llmctl, "log", "--text", "nothing of the kind"],
        "audit show": [*llmctl, "show", middle],
        "audit blame": [*llmctl, "blame", "prompt.p00007"],
        "audit diff": [*llmctl, "diff", middle],
    }
    folder = writer.repository.work_tree
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            taken[name].append(once(command, folder))
    medians = {name: tuple(statistics.median(part) for part in zip(*each, strict=True)) for name, each in taken.items()}
    base = medians["git log --oneline"][1]
    print(f"\n{shape}: {writer.count:,} commits, {writer.serial:,} entries, {len(writer.versions):,} resources")
    print(f"{'command':<24} {'wall s':>7} {'CPU s':>7} {'CPU ratio':>10}")
    for name, (wall, cpu) in medians.items():
        print(f"{name:<24} {wall:>7.3f} {cpu:>7.3f} {cpu / base:>10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=10_000)
    parser.add_argument("--resources", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="make the records in this folder and leave them there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for shape, changes in (("many", 1), ("bulk", 1_000)):
            place = (asked.keep or Path(folder)) / shape
            place.parent.mkdir(parents=True, exist_ok=True)
            measure(shape, make(place, asked.commits, asked.resources, changes), asked.runs)


if __name__ == "__main__":
    main()
