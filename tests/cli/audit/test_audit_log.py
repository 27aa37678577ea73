"""``llmctl audit log``: every entry is there and marked, and filters narrow together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.audit.conftest import ENTRIES, Ask

OPEN = "BREAK-GLASS of serial 28 is STILL OPEN: INC-2203: the prices were wrong, and the gate's data too"


def serials(ask: Ask, *options: str) -> list[int]:
    done = ask("log", "--json", *options)
    assert (done.code, done.err) == (0, "")
    return [entry["serial"] for entry in done.json()["entries"]]


def test_the_newest_come_first_and_it_says_that_there_are_more(ask: Ask) -> None:
    assert serials(ask) == list(range(ENTRIES, ENTRIES - 20, -1))
    assert serials(ask, "-n", "3") == [28, 27, 26]
    assert serials(ask, "-n", "0") == serials(ask, "--all") == list(range(ENTRIES, 0, -1))
    assert ask("log", "-n", "3").out.endswith("\n… older ones are there: -n 6, or --all\n")
    assert "older ones" not in ask("log", "--all").out


def test_what_went_another_way_is_marked(ask: Ask) -> None:
    shown = ask("log", "--all").out
    lines = shown.splitlines()

    def of(serial: int) -> list[str]:
        at = next(n for n, line in enumerate(lines) if line.startswith(f"{serial:>4}  "))
        return [lines[at][24:], *(line for line in lines[at + 1 : at + 4] if line.startswith("      "))]

    assert lines[0] == "llmctl/prod, newest first, times in UTC"
    assert of(28)[0] == "applied      Ada Lovelace: apply: route.support v16, prompt.answer v16"
    assert of(28)[1] == "      BREAK-GLASS, STILL OPEN: INC-2203: the prices were wrong, and the gate's data too"
    assert of(17)[1].startswith("      BREAK-GLASS, reconciled since: INC-2187")
    assert of(19)[1:3] == ["      reconciles the break-glass of serial 17", "      gate faq PASS"]
    assert of(19)[3] == "      approved by bob@acme.example, chiara@acme.example"
    assert of(5)[0].startswith("failed       ")
    assert of(5)[1] == "      gate faq FAIL"
    assert of(6)[1] == "      gate faq INCONCLUSIVE"
    assert of(8)[0].startswith("rolled back  Ada Lovelace: rollback to serial ")
    assert of(11)[0] == "interrupted  acme-ci: apply interrupted"
    assert of(13)[0] == "applied      Ada Lovelace: import dataset.prices"
    assert of(15)[0] == "applied      Ada Lovelace: state rm dataset.price-list"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--outcome", "failed"], {5, 6}),
        (["--outcome", "failed", "--outcome", "interrupted"], {5, 6, 11}),
        (["--action", "state rm"], {15}),
        (["--action", "unreject", "--action", "import"], {9, 13}),
        (["--actor", "CHIARA"], {6, 14}),
        (["--actor", "chiara@", "--outcome", "failed"], {6}),
        (["--text", "inc-2187"], {17}),
        (["--text", "moved to another team"], {15}),
        (["--text", "rename"], {14}),  # the reason of a change
        (["--resource", "dataset.prices"], {13, 14}),
        (["--resource", "dataset.price-list"], {14, 15}),
        (["--resource", "dataset.price*"], {13, 14, 15}),
        (["--resource", "model"], {1, 21}),
        (["--resource", "model", "--resource", "dataset"], {1, 13, 14, 15, 21}),
        (["--resource", "endpoint.support"], {1, 2, 23}),  # restored after drift, so that nothing was recorded anew
        (["--resource", "gate.faq", "--outcome", "failed"], {5, 6}),
        (["--resource", "gate", "--text", "INC-"], {17, 28}),  # skipped in an emergency
        (["--resource", "prompt.answer", "--outcome", "interrupted"], {11}),  # taken back again
        (["--resource", "route", "--action", "unreject"], {9}),
        (["--since", "2026-01-01", "--until", "2026-01-02"], {25}),
        (["--since", "2026-01", "--outcome", "applied"], {25, 26, 27, 28}),
        (["--until", "2025-11-22"], {1}),
        (["--until", "2025-11-22T02:20:34Z"], {1}),
        (["--until", "2025-11-22T02:20:33"], set()),
        (["--since", "2025-11-22 02:20:35", "--until", "2025-11-23"], {2}),
        (["--since", "2025-11-22T04:20:34+02:00", "--until", "2025-11-22"], {1}),
        (["--since", "30000d", "--resource", "policy"], {1}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_filters_narrow_together(ask: Ask, options: list[str], found: set[int]) -> None:
    assert set(serials(ask, "--all", *options)) == found


@pytest.mark.parametrize("line", ["log --until 2025-12", "show 3", "diff 3 4", "blame model.support-tiny"])
def test_an_open_break_glass_is_in_every_answer(ask: Ask, line: str) -> None:
    assert ask(*line.split()).out.splitlines().count(OPEN) == 1


@pytest.mark.parametrize("line", ["log", "show 28"])
def test_it_is_said_once_where_it_is_shown_anyway(ask: Ask, line: str) -> None:
    shown = ask(*line.split()).out
    assert (shown.count(OPEN), shown.count("STILL OPEN")) == (0, 1)


def test_a_limit_counts_what_matches(ask: Ask) -> None:
    assert serials(ask, "--outcome", "failed", "-n", "1") == [6]
    assert ask("log", "--outcome", "failed", "-n", "1").out.splitlines()[0] == (
        "llmctl/prod, newest first, times in UTC; outcome failed"
    )


def test_nothing_found_is_said_with_the_filters(ask: Ask) -> None:
    done = ask("log", "--actor", "zoe", "--since", "2026-01-01")
    assert done.code == 0
    assert done.out.splitlines() == [
        "no entry of llmctl/prod matches since 2026-01-01 00:00 UTC, actor 'zoe'",
        "the record has 28 entries, from 2025-11-22 02:20 to 2026-01-07 14:35 UTC",
        OPEN,
    ]
    assert "\ndid you mean `prompt.answer`?\n" in ask("log", "--resource", "prompt.anser").out
    found = ask("log", "--json", "--actor", "zoe").json()
    assert (found["entries"], found["filters"]) == ([], {"actor": "zoe", "limit": 20})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "gestern"], "--since: 'gestern' is no moment"),
        (["--since", "2026-13-01"], "is no moment"),
        (["--until", "soon"], "is no moment"),
        (["--since", "2026-02-01", "--until", "2026-01-01"], "the period from 2026-02-01 until 2026-01-01 is empty"),
        (["--action", "aply"], "did you mean `apply`?"),
        (["--outcome", "ok"], "there are: aborted, applied"),
        (["--resource", "Prompt Answer"], "'Prompt Answer' names no resource"),
        (["--resource", "prompt.(.*)+$"], "names no resource"),
        (["-n", "-1"], "invalid value for '-n'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_filter_that_means_nothing_is_explained(ask: Ask, options: list[str], said: str) -> None:
    done = ask("log", *options)
    assert done.code == 1
    assert said in done.err
    assert "help:" in done.err


def test_json_has_what_the_lines_say(ask: Ask) -> None:
    found = ask("log", "--json", "--all").json()
    assert (found["format"], found["environment"]) == (1, "prod")
    assert [broken["serial"] for broken in found["open_break_glass"]] == [28]
    by = {entry["serial"]: entry for entry in found["entries"]}
    assert by[17]["break_glass"].startswith("INC-2187")
    assert (by[16]["break_glass"], by[19]["reconciles"]) == (None, ["17"])
    assert re.fullmatch(r"bob@acme\.example SHA256:\S+", by[19]["approvals"][0])
    assert by[14]["resources"] == ["dataset.price-list", "dataset.prices"]


@pytest.mark.parametrize("line", ["log --all", "show 13", "show 25", "diff 24 25", "blame prompt.answer"])
def test_steering_characters_do_not_reach_the_terminal(ask: Ask, line: str) -> None:
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ask(*line.split()).out)


def test_a_repository_without_a_record(run: Ask, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    done = run(tmp_path, "log", "--since", "7d")
    assert done.code == 1
    assert "no environment has a record in this repository" in done.err
