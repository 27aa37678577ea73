"""Many prompts: plan and apply beside `terraform` with as many resources of like text, in the same run.

    python benchmarks/scale.py [--runs 3] [--plan 1000 5000 10000] [--apply 1000]

Makes a project of N prompts in a temporary git repository, applies it to this machine, and measures a plan with
nothing to do, live reads included: of files that did not change since the last command ("plan"), and of a file
that was written anew and so is read and resolved again ("anew"). Terraform gets N `terraform_data` resources
that hold the same text, and a state in which they exist; its columns stay empty without `terraform` on the
PATH, and above 5,000 resources, where it takes half a minute a plan. Wall seconds are medians of runs taken in
turns; CPU is user + system of the command and of all processes that it waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

LLMCTL = str(Path(sys.executable).with_name("llmctl"))
TERRAFORM = shutil.which("terraform")
PEER_LIMIT = 5000
SETTLED_S = 2.5  # a file that was just written could be written again with the same time, and is not relied on
IDENTITY = {
    f"GIT_{role}_{what}": "bench@example.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


class Cost(NamedTuple):
    """What one command took: seconds, and the process's largest resident memory in MB."""

    wall: float
    cpu: float
    memory: float


def run(command: list[str], folder: Path) -> Cost:
    """Run to the end; stops the benchmark when the command fails."""
    begun = time.perf_counter()
    with open(os.devnull, "w") as null:
        process = subprocess.Popen(command, cwd=folder, stdout=null, stderr=null, env={**os.environ, **IDENTITY})
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited {process.returncode}")
    return Cost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def prompt(number: int) -> dict[str, object]:
    system = f"You are assistant number {number}. Answer briefly, and say where you know it from."
    return {
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": "{{ question }}"}],
        "variables": {"question": "string"},
        "parameters": {"temperature": 0, "max_tokens": 96},
    }


def write_llmctl(folder: Path, count: int) -> None:
    """A project in a git repository, as a person would lay it out: one file, block style."""
    lines = ["apiVersion: llmctl/v1", "project: scale", "environments: {dev: {target: local}}", "prompts:"]
    for number in range(count):
        shape = prompt(number)
        lines += [f"  p{number:05}:", "    messages:"]
        lines += [f"      - {json.dumps(message)}" for message in shape["messages"]]  # type: ignore[attr-defined]
        lines += [f"    {key}: {json.dumps(shape[key])}" for key in ("variables", "parameters")]
    folder.mkdir(parents=True)
    (folder / "llmops.yaml").write_text("\n".join(lines) + "\n")
    (folder / ".gitignore").write_text(".llmctl/\n")
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "scale"], cwd=folder, check=True, env={**os.environ, **IDENTITY})


def write_terraform(folder: Path, count: int, *, applied: bool) -> None:
    """Resources with the same text and, for a plan, the state that an apply of them leaves."""
    folder.mkdir(parents=True)
    texts = [json.dumps(prompt(number)) for number in range(count)]
    blocks = (
        f'resource "terraform_data" "p{number:05}" {{\n  input = {json.dumps(text)}\n}}\n'
        for number, text in enumerate(texts)
    )
    (folder / "main.tf").write_text("".join(blocks))
    resources = [
        {
            "mode": "managed",
            "type": "terraform_data",
            "name": f"p{number:05}",
            "provider": 'provider["terraform.io/builtin/terraform"]',
            "instances": [
                {
                    "schema_version": 0,
                    "attributes": {
                        "id": f"{number:08}-0000-0000-0000-000000000000",
                        "input": {"value": text, "type": "string"},
                        "output": {"value": text, "type": "string"},
                        "triggers_replace": None,
                    },
                }
            ],
        }
        for number, text in enumerate(texts)
    ]
    if applied:
        state = {"version": 4, "terraform_version": "1.11.4", "serial": 1, "lineage": "bench", "resources": resources}
        (folder / "terraform.tfstate").write_text(json.dumps(state))
    run([str(TERRAFORM), "init"], folder)


def size(folder: Path) -> float:
    """Megabytes that a folder's files take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def show(what: str, count: int, ours: list[Cost], theirs: list[Cost], more: str = "") -> None:
    wall = statistics.median(cost.wall for cost in ours)
    peer = statistics.median(cost.wall for cost in theirs) if theirs else 0.0
    columns = f"{peer:>11.2f} {wall / peer:>6.2f}" if theirs else f"{'':>11} {'':>6}"
    cpu, memory = (statistics.median(figure) for figure in zip(*((c.cpu, c.memory) for c in ours), strict=True))
    print(f"{what:<6} {count:>7} {wall:>9.2f} {columns} {cpu:>6.2f} {memory:>7.0f}  {more}", flush=True)


def plans(root: Path, count: int, runs: int) -> None:
    project, peer = root / f"plan-{count}", root / f"terraform-plan-{count}"
    write_llmctl(project, count)
    run([LLMCTL, "apply", "--yes"], project)
    beside = TERRAFORM and count <= PEER_LIMIT
    if beside:
        write_terraform(peer, count, applied=True)
    plan, ours, anew, theirs = [LLMCTL, "plan", "--detailed-exitcode"], [], [], []
    try:
        time.sleep(SETTLED_S)
        for _ in range(runs + 1):
            ours.append(run(plan, project))
            if beside:
                theirs.append(run([str(TERRAFORM), "plan", "-detailed-exitcode"], peer))
        for _ in range(runs):
            os.utime(project / "llmops.yaml")
            anew.append(run(plan, project))
    finally:
        run([LLMCTL, "destroy", "--yes"], project)
    show("plan", count, ours[1:], theirs[1:])
    show("anew", count, anew, theirs[1:])


def applies(root: Path, count: int, runs: int) -> None:
    ours, theirs, growth = [], [], []
    for number in range(runs):
        project, peer = root / f"apply-{number}", root / f"terraform-apply-{number}"
        write_llmctl(project, count)
        before = size(project / ".git")
        ours.append(run([LLMCTL, "apply", "--yes"], project))
        growth.append(size(project / ".git") - before)
        run([LLMCTL, "destroy", "--yes"], project)
        if TERRAFORM:
            write_terraform(peer, count, applied=False)
            theirs.append(run([TERRAFORM, "apply", "-auto-approve"], peer))
    show("apply", count, ours, theirs, f"the record grew by {max(growth):.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--plan", type=int, nargs="*", default=[1000, 5000, 10000])
    parser.add_argument("--apply", type=int, nargs="*", default=[1000])
    asked = parser.parse_args()
    print(f"{'':<6} {'prompts':>7} {'seconds':>9} {'terraform':>11} {'ratio':>6} {'CPU s':>6} {'MB':>7}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for count in asked.plan:
            plans(Path(folder), count, asked.runs)
        for count in asked.apply:
            applies(Path(folder), count, max(1, asked.runs - 2))


if __name__ == "__main__":
    main()
