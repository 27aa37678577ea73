"""``llmctl audit export``: the complete population of a period, harmless whatever texts it holds."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmctl.cli.views.audit_table import COLUMNS, cell
from tests.cli.audit.conftest import ENTRIES, Ask
from tests.record.population import HOSTILE

_VOID = {"meta", "br"}
_DANGEROUS = ("script", "iframe", "object", "embed", "img", "link", "svg", "form", "base", "video", "audio")


class Page(HTMLParser):
    """A page taken apart: well-formed, its attributes, and its text by packet."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.packets: dict[str, str] = {}
        self.text = ""
        self._packet = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "article":
            self._packet = dict(attrs)["id"] or ""
            self.packets[self._packet] = ""
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "article":
            self._packet = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
            if self._packet:
                self.packets[self._packet] += data


@pytest.fixture
def page(ask: Ask) -> Page:
    done = ask("export")
    assert (done.code, done.err) == (0, "")
    return Page(done.out)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


# -- the page -----------------------------------------------------------------------------------


def test_the_page_needs_nothing_else_and_runs_nothing(page: Page) -> None:
    assert not [tag for tag in _DANGEROUS if page.tags[tag]]
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "srcset", "action", "background", "poster")
        if name == "href":
            assert tag == "a"
            assert value.startswith(("#", "https://ci.acme.example/"))
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'")


def test_hostile_text_is_only_text(page: Page, ask: Ask) -> None:
    raw = ask("export").out
    assert "<script" not in raw
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", raw)
    harmless = re.sub("[\x07\u202e\u202c]", "\N{REPLACEMENT CHARACTER}", HOSTILE)
    assert harmless in page.packets["s25"]
    assert harmless in page.packets["s13"]


def test_every_entry_has_a_packet_and_every_link_a_place(page: Page) -> None:
    assert list(page.packets) == [f"s{n}" for n in range(1, ENTRIES + 1)]
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in page.attributes if name == "href" and value.startswith("#")}
    assert targets <= set(ids)
    assert {f"s{n}" for n in range(1, ENTRIES + 1)} <= targets


def test_the_page_says_what_it_is_and_how_to_check_it(page: Page, acme: Path) -> None:
    command = ["git", "rev-parse", "llmctl/prod"]
    head = subprocess.run(command, cwd=acme, capture_output=True, text=True, check=True).stdout.strip()
    assert "Change record of acme-support, environment prod" in page.text
    assert "28 of the 28 in the record: serials 1 to 28, none left out" in page.text
    assert f"llmctl audit verify -e prod --expect-head {head}" in page.text
    for title in ("Break-glass, still open (1)", "Break-glass, reconciled (1)", "Failed (2)", "Interrupted (1)"):
        assert title in page.text
    assert "Rolled back (1)" in page.text


@pytest.mark.parametrize(
    ("serial", "said"),
    [
        (5, ["acme-ci <ci@acme.example> on runner-3", "2025-11-28T23:42:50Z", "messages changed"]),
        (5, ["-Name your source. (edition 4)", "+Answer in the customer's language.", "(tried, and taken back)"]),
        (5, ["v3 → v4 866e2c2f → b842d999", "(planned, and not reached)", "sha256:43bfcdf8"]),
        (5, ["exact_match ≥ 0.95", "0.810", "0.759 … 0.853", "95 %", "210", "FAIL", "rows that fail: row-000"]),
        (5, ["https://ci.acme.example/llm/runs/4005", "2 given, 2 required", "ada@acme.example", "4.200"]),
        (6, ["INCONCLUSIVE, 489 samples would settle it", "Chiara Müller"]),
        (8, ["complaints about tone, ticket 7", "rejected until it is allowed again"]),
        (9, ["allowed again", "with changes that were not committed"]),
        (11, ["was begun, and nobody knows its outcome"]),
        (14, ["dataset.price-list", "renamed from dataset.prices"]),
        (17, ["BREAK-GLASS", "skipped: 2 approvals, gate.faq", "Reconciled by serial 19", "0 given, 2 required"]),
        (19, ["Reconciles", "the break-glass of serial 17"]),
        (21, ["Proven in staging: serial 60", "✗ waived", "waived until 2026-12-31 by chiara@acme.example"]),
        (23, ["restored after drift: no process serves it"]),
        (28, ["BREAK-GLASS, OPEN", "Still open: no apply has reconciled it."]),
    ],
)
def test_a_packet_answers_from_the_page_alone(page: Page, serial: int, said: list[str]) -> None:
    text = " ".join(page.packets[f"s{serial}"].split())
    for words in said:
        assert words in text


# -- the table ----------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_change(ask: Ask) -> None:
    done = ask("export", "--format", "csv")
    found = rows(done.out)
    assert done.out.split("\r\n")[0] == ",".join(COLUMNS)
    assert [int(n) for n in dict.fromkeys(row["serial"] for row in found)] == list(range(1, ENTRIES + 1))
    assert len([row for row in found if row["serial"] == "1"]) == 8
    failed = [row for row in found if row["serial"] == "5"]
    assert [(row["resource"], row["state"]) for row in failed] == [
        ("prompt.answer", "taken back"),
        ("route.support", "not reached"),
    ]
    assert failed[0]["gates"].startswith("faq FAIL (exact_match min 0.95: 0.8095")
    (alone,) = [row for row in found if row["serial"] == "9"]
    assert (alone["resource"], alone["action"]) == ("", "unreject")
    broken = next(row for row in found if row["serial"] == "17")
    assert (broken["break_glass_state"], broken["approvals_required"]) == ("reconciled by 19", "2")


def test_no_cell_is_a_formula(ask: Ask) -> None:
    found = rows(ask("export", "--format", "csv").out)
    values = [value for row in found for value in row.values()]
    assert not [value for value in values if re.match(r"\s*[=+\-@]", value)]
    assert any(value.startswith("'=HYPERLINK") for value in values)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "＝1", "|cmd", "%0A"])
def test_what_a_spreadsheet_would_calculate_is_defused(text: str) -> None:
    assert cell(text).startswith("'")
    assert not set("\r\n\t\0") & set(cell(text))
    assert cell(f"a{text}")[0] == "a"
    assert len(cell(text * 40_000)) < 32_767


# -- the rest -----------------------------------------------------------------------------------


def test_json_has_every_packet_as_show_has_it(ask: Ask) -> None:
    found = ask("export", "--format", "json").json()
    assert (found["format"], found["kind"], found["environment"]) == (1, "llmctl audit export", "prod")
    assert [entry["serial"] for entry in found["entries"]] == list(range(1, ENTRIES + 1))
    assert found["entries"][16] == ask("show", "17", "--json").json()
    assert found["figures"]["broken"] == [17, 28]
    assert found["figures"]["still_open"] == [28]
    assert (found["entries_in_record"], found["missing_serials"], found["since"]) == (28, [], None)


def test_a_period_is_named_with_what_it_leaves_out(ask: Ask) -> None:
    page = Page(ask("export", "--since", "2025-12", "--until", "2025-12").out)
    assert list(page.packets) == [f"s{n}" for n in range(7, 25)]
    assert "18 of the 28 in the record: serials 7 to 24, none left out" in page.text
    assert "from 2025-12-01 00:00 to before 2026-01-01 00:00" in page.text
    assert "Break-glass of serial 28, in another period, still open" in page.text
    none = ask("export", "--since", "2030-01-01")
    assert none.code == 0
    assert "none of the 28 entries of the record lies in this period" in Page(none.out).text
    assert rows(ask("export", "--format", "csv", "--since", "2030-01-01").out) == []
    assert ask("export", "--since", "never").code == 1


def test_a_file_is_written_whole_and_only_over_another_export(ask: Ask, tmp_path: Path) -> None:
    for form in ("html", "csv", "json"):
        out = tmp_path / f"audit.{form}"
        done = ask("export", "--format", form, "--out", str(out))
        assert (done.code, done.out) == (0, "")
        assert done.err.startswith(f"{out}: 28 entries of llmctl/prod, head ")
    assert (tmp_path / "audit.csv").read_bytes()[:3] == b"\xef\xbb\xbf"  # so that spreadsheets take it for UTF-8
    assert ask("export", "--out", str(tmp_path / "audit.csv")).code == 0
    assert (tmp_path / "audit.csv").read_text().startswith("<!doctype html>")
    (tmp_path / "empty").touch()
    assert ask("export", "--out", str(tmp_path / "empty")).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"audit.html", "audit.csv", "audit.json", "empty"}


def test_a_file_of_the_users_is_left_alone(ask: Ask, tmp_path: Path) -> None:
    mine = tmp_path / "notes.html"
    mine.write_text("<!doctype html><p>mine")
    done = ask("export", "--out", str(mine))
    assert done.code == 1
    assert "exists and is no audit export; it is not replaced" in done.err
    assert mine.read_text() == "<!doctype html><p>mine"
    for bad in (tmp_path / "no" / "audit.html", tmp_path):
        done = ask("export", "--out", str(bad))
        assert done.code == 1
        assert str(bad) in done.err


def test_a_pipe_that_closes_early_is_no_defect(acme: Path) -> None:
    line = f"{sys.executable} -m llmctl audit export --format csv | head -n 1"
    done = subprocess.run(["bash", "-c", line], cwd=acme, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("environment,serial")
    assert "Traceback" not in done.stderr
