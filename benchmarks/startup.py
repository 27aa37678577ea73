"""CPU time of everyday commands, beside the bare interpreter in the same run.

    python benchmarks/startup.py [--runs 7]

Copies the example to a temporary git repository, applies it there, measures, destroys. CPU is user + system
of the command and of every process that it waited for, as the operating system accounts them; the median counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples"
IDENTITY = {
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@example.invalid",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@example.invalid",
}


def once(command: list[str], cwd: Path) -> tuple[float, float]:
    """CPU seconds and wall seconds of one run; raises when the command fails."""
    begun = time.perf_counter()
    with open(os.devnull, "w") as null:
        process = subprocess.Popen(command, cwd=cwd, stdout=null, stderr=null, env={**os.environ, **IDENTITY})
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited {process.returncode}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    llmctl = [str(Path(sys.executable).with_name("llmctl"))]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "llmctl --help": [*llmctl, "--help"],
        "llmctl validate": [*llmctl, "validate"],
        "llmctl plan (nothing to do)": [*llmctl, "plan"],
        "llmctl status": [*llmctl, "status"],
    }
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(".llmctl", "training"))
        subprocess.run(["git", "init", "-q", str(project)], check=True)
        once([*llmctl, "apply", "--yes"], project)
        try:
            print(f"{'command':<30} {'CPU s':>7} {'wall s':>7} {'CPU ratio':>10}")
            base = 0.0
            for name, command in commands.items():
                once(command, project)
                samples = [once(command, project) for _ in range(runs)]
                cpu, wall = (statistics.median(column) for column in zip(*samples, strict=True))
                base = base or cpu
                print(f"{name:<30} {cpu:>7.3f} {wall:>7.3f} {cpu / base:>9.1f}x")
        finally:
            once([*llmctl, "destroy", "--yes"], project)


if __name__ == "__main__":
    main()
