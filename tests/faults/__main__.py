"""``python -m tests.faults``: every fault at every point of every operation, and the report of it."""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from pathlib import Path
from threading import Event

import click

from tests.faults.operations import OPERATIONS
from tests.faults.points import MODES
from tests.faults.report import losses, summary, table
from tests.faults.sweep import Results, Which, sweep


@click.command()
@click.option("--results", type=click.Path(path_type=Path), default=Path("build/faults"), show_default=True)
@click.option("--operation", "operations", multiple=True, type=click.Choice(list(OPERATIONS)), help="Only this one.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), help="Only this one.")
@click.option("--point", default="", help="Only points with this in their names.")
@click.option("--every", is_flag=True, help="Also what is proved to be the same as another trial.")
@click.option("--resume", is_flag=True, help="Only what was not tried yet, not met, or lost.")
@click.option("--sample", default=0, help="So many of each operation, from everywhere; 0 for all.")
@click.option("--jobs", default=2, show_default=True, help="Projects at once.")
@click.option("--report-only", is_flag=True, help="Only the report of what was done.")
def command(
    results: Path,
    operations: tuple[str, ...],
    modes: tuple[str, ...],
    point: str,
    every: bool,
    resume: bool,
    sample: int,
    jobs: int,
    report_only: bool,
) -> None:
    """Break each operation of the example at each of its points, and look at what becomes of it."""
    kept = Results(results.absolute())
    chosen = operations or tuple(OPERATIONS)
    if not report_only:
        if not resume:
            kept.clear()
        stop = Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        which = Which(modes or MODES, point, every=every, resume=resume, sample=sample)
        sweep(kept, chosen, which, _say, jobs=jobs, stop=stop)
    (kept.folder / "report.json").write_text(summary(kept, chosen))
    (kept.folder / "report.md").write_text(table(kept, chosen))
    click.echo(table(kept, chosen))
    lost = losses(kept, chosen)
    for line in lost:
        click.echo(line)
    sys.exit(1 if lost else 0)


def _say(text: str) -> None:
    click.echo(f"{datetime.now():%H:%M:%S} {text}", err=True)  # noqa: DTZ005 - for who watches it


if __name__ == "__main__":
    command()
