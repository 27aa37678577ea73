"""Writing the record: a commit for each of many changes, and what it takes on disk before `git gc`.

    python benchmarks/record.py [--changes 1000] [--among 10000] [--history 10000] [--resources 1000] [--quick]

First one apply of so many changes among so many resources, from `Attempt.begin` to the end of `close`. Its peers do
the same on the same record in the same run: `git fast-import` gets the same messages and files as one stream, and
where commits are signed, `git commit-tree -S` makes each commit, of trees that are there already. Then a history of
so many changes in two shapes, in few large applies and in applies of one change each, every one with its lock; its
peer is what `git gc` makes of the same objects. Sizes are those of .git as `du` counts them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import records

from llmctl.record import Lock, Repository
from llmctl.record.repository import branch

REF = branch(records.ENV)
LARGE = 10  # applies of the history in large applies


def cpu() -> float:
    """User and system seconds of this process and of those that it waited for."""
    return sum(os.times()[:4])


def fast_import(repository: Repository, names: list[str]) -> float:
    """The seconds that `git fast-import` takes for the same commits on another branch."""
    git = repository.work_tree
    stream = [b"feature done\n"]
    parent = records.git(git, "rev-parse", f"{names[0]}^")
    for name in names:
        message = records.git(git, "log", "-1", "--format=%B", name).encode()
        changed = records.git(git, "diff-tree", "-r", "--no-commit-id", "--name-only", name).split()
        stream.append(b"commit refs/heads/peer\ncommitter Peer <peer@example.invalid> 1790000000 +0000\n")
        stream.append(b"data %d\n%s\n" % (len(message), message))
        stream += [f"from {parent}\n".encode()] if name == names[0] else []
        for path in changed:
            data = records.git(git, "cat-file", "blob", f"{name}:{path}").encode()
            stream.append(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data))
    stream.append(b"done\n")
    begun = time.perf_counter()
    command = ["git", "-c", "core.fsync=committed", "fast-import", "--quiet", "--force"]
    subprocess.run(command, cwd=git, input=b"".join(stream), check=True)
    return time.perf_counter() - begun


def commit_tree(repository: Repository, names: list[str]) -> float:
    """The seconds that `git commit-tree -S` takes for commits of the same trees."""
    trees = records.git(repository.work_tree, "log", "--no-walk=unsorted", "--format=%T", *names).split()
    parent = records.git(repository.work_tree, "rev-parse", f"{names[0]}^")
    begun = time.perf_counter()
    for tree in trees:
        parent = records.git(repository.work_tree, "commit-tree", "-S", "-p", parent, "-m", "Change", tree)
    return time.perf_counter() - begun


def burst(folder: Path, changes: int, among: int, signed: bool) -> None:
    repository = records.make_repository(folder, signed=signed)
    records.start_with(repository, among)
    size = records.kilobytes(repository)
    busy = cpu()
    seconds = records.apply(repository, [records.prompt(n * (among // changes), 2) for n in range(changes)])
    busy = cpu() - busy
    grown = (records.kilobytes(repository) - size) / 1000
    names = records.git(repository.work_tree, "rev-list", "--reverse", f"{REF}^1..{REF}^2").split()
    what = f"{changes} changes among {among}, {'signed with SSH' if signed else 'unsigned'}"
    print(
        f"{what:<48}{seconds:8.2f} s ({busy:.2f} s of CPU) {seconds / changes * 1e3:8.2f} ms a commit {grown:6.1f} MB",
        flush=True,
    )
    peer = commit_tree(repository, names) if signed else fast_import(repository, names)
    peers = "peer: git commit-tree -S, the commits alone" if signed else "peer: git fast-import"
    print(f"  {peers:<46}{peer:8.2f} s {peer / changes * 1e3:8.2f} ms a commit, ours {seconds / peer:.2f} of it")


def history(folder: Path, applies: int, changes: int, resources: int) -> None:
    repository = records.make_repository(folder)
    lock, peak, begun = Lock(repository, records.ENV), 0, time.perf_counter()
    for number in range(applies):
        first = number * changes
        changed = [records.prompt(n % resources, n // resources + 1) for n in range(first, first + changes)]
        with lock.acquire("bench"):
            records.apply(repository, changed)
        if number % 64 == 62:  # an upkeep follows
            peak = max(peak, records.kilobytes(repository))
    gone = (time.perf_counter() - begun) / applies * 1e3
    size = records.kilobytes(repository)
    what = f"{applies} applies of {changes}, over {resources} resources"
    print(f"{what:<48}{size / 1e3:8.1f} MB {max(peak, size) / 1e3:8.1f} MB at most {gone:8.1f} ms an apply", flush=True)
    records.git(repository.work_tree, "gc", "-q", "--prune=now")
    least = records.kilobytes(repository)
    print(
        f"  {'peer: after git gc --prune=now':<46}{least / 1e3:8.1f} MB, ours {size / least:.1f} times that", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=1000, help="of the burst")
    parser.add_argument("--among", type=int, default=10_000, help="resources that are there before the burst")
    parser.add_argument("--history", type=int, default=10_000, help="changes in all; 0 leaves the sizes out")
    parser.add_argument("--resources", type=int, default=1000, help="of the history")
    parser.add_argument("--quick", action="store_true", help="a tenth of each: a minute")
    asked = parser.parse_args()
    part = 10 if asked.quick else 1
    changes, among, resources = asked.changes // part, asked.among // part, asked.resources // part
    with tempfile.TemporaryDirectory() as scratch:
        for signed in (False, True) if shutil.which("ssh-keygen") else (False,):
            burst(Path(scratch) / f"burst-{signed}", changes, among, signed)
        if total := asked.history // part:
            history(Path(scratch) / "large", LARGE, total // LARGE, resources)
            history(Path(scratch) / "small", total, 1, resources)


if __name__ == "__main__":
    main()
