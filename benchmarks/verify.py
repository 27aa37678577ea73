"""How long `audit verify` takes on a record of signed commits, against git's own check of one commit.

    python benchmarks/verify.py [--commits 10000] [--applies 10] [--resources 1000] [--sample 20]

The record is made anew in a temporary folder. Printed are seconds of the wall clock, of this process and of the git
processes that it started (on a busy machine the first says little), and the ratio to `git verify-commit`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from records import ENV, commits, fill, git, make_repository

from llmctl.app.verifying import judge
from llmctl.record import Repository, open_repository, verify
from llmctl.record.repository import branch
from llmctl.record.signers import Signers
from llmctl.record.verifying.signing import Demand


def measure(repository: Repository) -> tuple[float, float, float]:
    """Seconds of one verification: wall clock, this process, its children."""
    before, begun = os.times(), time.perf_counter()
    demand = Demand(Signers.load(repository, None, None), unsigned=True)
    found = verify(repository, ENV, expect_head=None, judge=judge, demand=demand)
    wall, after = time.perf_counter() - begun, os.times()
    assert found.ok, found.findings[:3]
    own = after.user + after.system - before.user - before.system
    git_s = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, own, git_s


def gits_own(folder: Path, sample: int) -> float:
    """Seconds of `git verify-commit` for one commit, over so many of the record."""
    names = git(folder, "rev-list", f"--max-count={sample}", branch(ENV)).split()
    begun = time.perf_counter()
    for name in names:
        subprocess.run(["git", "verify-commit", name], cwd=folder, stderr=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - begun) / len(names)


def main() -> None:
    """Make the record, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("commits", 10_000), ("applies", 10), ("resources", 1000), ("sample", 20), ("times", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-") as base:
        folder = Path(base) / "project"
        made = make_repository(folder, signed=True)
        fill(made, applies=asked.applies, changes=asked.commits // asked.applies, resources=asked.resources)
        print(f"{commits(made)} signed commits, {asked.applies} applies, {asked.resources} resources")
        wall, own, git_s = min(measure(open_repository(folder)) for _ in range(asked.times))
        print(f"audit verify       {wall:6.2f} s  ({own:.2f} s here, {git_s:.2f} s in git)")
        each = gits_own(folder, asked.sample)
        print(f"git verify-commit  {each * 1000:6.1f} ms each, {each * commits(made):.0f} s for all of them")
        print(f"ratio              {each * commits(made) / wall:6.0f}")


if __name__ == "__main__":
    main()
