"""Rows of datasets: a streaming reader for JSON Lines and CSV, and the checks over rows.

Findings name lines and columns and never repeat a value: rows may be confidential.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NoReturn

from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.spec.files import Files, Form
from llmctl.spec.source import display_path

FORMATS = {".jsonl": "jsonl", ".csv": "csv"}

Row = dict[str, Json]

_LONG = 64  # characters of a value that is kept as it is


def dataset_rows(path: Path, format: str) -> Iterator[tuple[int, Row]]:
    """The rows of a ``jsonl`` or ``csv`` file as ``(line number from 1, row)``, read as they are asked for.

    Values of CSV rows are text. Raises ``InvalidInput`` naming file and line of a row that is not a JSON
    object, not UTF-8, or that does not fit the CSV header; ``ValueError`` for another format.
    """
    if format == "jsonl":
        return _jsonl_rows(path)
    if format == "csv":
        return _csv_rows(path)
    raise ValueError(f"format {format!r} is not one of jsonl, csv")


def _refuse(path: Path, line: int, summary: str, hint: str, column: int = 1) -> NoReturn:
    where = SourceRange(display_path(path), line, column)
    raise InvalidInput([Diagnostic(summary, where=where, hint=hint)]) from None


def _unreadable(path: Path, error: OSError) -> NoReturn:
    _refuse(path, 1, f"the file cannot be read: {(error.strerror or 'unknown reason').lower()}", "Check the path.")


def _not_finite(text: str) -> NoReturn:
    raise ValueError(text)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    hint = 'Each line holds one JSON object, such as {"question": "…", "answer": "…"}.'
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                try:
                    row = json.loads(line.decode(), parse_constant=_not_finite)
                except json.JSONDecodeError as error:
                    _refuse(path, number, f"the row is not JSON: {error.msg}", hint, error.colno)
                except UnicodeDecodeError:
                    _refuse(path, number, "the row is not UTF-8 text", "Save the file as UTF-8.")
                except (ValueError, RecursionError):
                    _refuse(path, number, "the row holds a number that is not finite, or nests too deep", hint)
                if not isinstance(row, dict):
                    _refuse(path, number, "the row is not a JSON object", hint)
                yield number, row
    except OSError as error:
        _unreadable(path, error)


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    number = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, None)
            if not header:
                _refuse(path, 1, "the file has no header", "Its first line must name the columns.")
            if len(set(header)) != len(header) or "" in header:
                _refuse(path, 1, "the header has a column without a name, or one twice", "Give each column a name.")
            number = reader.line_num + 1
            for values in reader:
                if values and len(values) != len(header):
                    summary = f"the row does not fit the header: {len(values)} of {len(header)} values"
                    _refuse(path, number, summary, "Put values that contain `,` in double quotes.")
                if values:
                    yield number, dict(zip(header, values, strict=True))
                number = reader.line_num + 1
    except UnicodeDecodeError:
        _refuse(path, number, "the file is not UTF-8 text from about here on", "Save the file as UTF-8.")
    except csv.Error as error:
        _refuse(path, number, f"the row is not CSV: {error}", "Put values in double quotes, and double those inside.")
    except OSError as error:
        _unreadable(path, error)


@dataclass
class Fault:
    """How often something is wrong with a column, and where first."""

    count: int = 0
    line: int = 0
    other: int = 0  # the line that repeats

    def seen(self, line: int, other: int = 0) -> None:
        if not self.count:
            self.line, self.other = line, other
        self.count += 1


@dataclass
class Survey:
    """What one pass over a dataset found. Faults are by column."""

    rows: int = 0
    present: dict[str, int] = field(default_factory=dict)  # rows that have the column
    missing: dict[str, Fault] = field(default_factory=dict)
    mistyped: dict[str, Fault] = field(default_factory=dict)
    null: dict[str, Fault] = field(default_factory=dict)
    repeated: dict[str, Fault] = field(default_factory=dict)


def survey(
    path: Path,
    format: str,
    *,
    columns: Mapping[str, str],
    unique: tuple[str, ...] = (),
    not_null: tuple[str, ...] = (),
    as_read: bool = False,
) -> Survey:
    """Look at every row once. ``columns`` maps names that every row must have to their types.

    The text of a CSV value counts as the number or boolean that it spells, unless ``as_read``. Memory grows
    with the number of different values in ``unique`` columns only. Raises ``InvalidInput`` for a file that
    cannot be read as rows.
    """
    found = Survey()
    first_lines: dict[str, dict[str | bytes, int]] = {column: {} for column in unique}
    of_type = _csv_type if format == "csv" and not as_read else _json_type
    for line, row in dataset_rows(path, format):
        found.rows += 1
        for column in row:
            found.present[column] = found.present.get(column, 0) + 1
        for column, kind in columns.items():
            if column not in row:
                found.missing.setdefault(column, Fault()).seen(line)
            elif row[column] is not None and not of_type(row[column], kind):
                found.mistyped.setdefault(column, Fault()).seen(line)
        for column in not_null:
            # One that `columns` asks for and that is not there at all is counted as missing.
            absent = column not in row and column not in columns
            if absent or (column in row and row[column] in ((None, "") if format == "csv" else (None,))):
                found.null.setdefault(column, Fault()).seen(line)
        for column, lines in first_lines.items():
            if column in row and (first := lines.setdefault(_key(path, line, row[column]), line)) != line:
                found.repeated.setdefault(column, Fault()).seen(line, first)
    return found


def _survey_of(data: Json) -> Survey:
    faults = {
        field: {column: Fault(**fault) for column, fault in data[field].items()}
        for field in ("missing", "mistyped", "null", "repeated")
    }
    return Survey(int(data["rows"]), dict(data["present"]), **faults)


_SURVEY = Form(asdict, _survey_of)


def surveyed(
    files: Files,
    path: Path,
    format: str,
    *,
    columns: Mapping[str, str],
    unique: tuple[str, ...] = (),
    not_null: tuple[str, ...] = (),
    as_read: bool = False,
) -> Survey:
    """``survey``, once for all gates and environments that ask the same of a file; the result is shared."""
    what = ("survey", format, tuple(columns.items()), unique, not_null, as_read)

    def look() -> Survey:
        return survey(path, format, columns=columns, unique=unique, not_null=not_null, as_read=as_read)

    try:
        return files.once(path, what, look, _SURVEY)
    except OSError as error:
        _unreadable(path, error)


def _key(path: Path, line: int, value: Json) -> str | bytes:
    """Equal for equal values, whatever their type; long ones as a digest, so that a large file needs little memory."""
    try:
        text = "s" + value if isinstance(value, str) else "j" + json.dumps(value, sort_keys=True)
    except RecursionError:
        _refuse(path, line, "the row nests too deep", "Flatten it.")
    return text if len(text) <= _LONG else blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _json_type(value: Json, kind: str) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, list if kind == "list" else dict)


def _csv_type(value: Json, kind: str) -> bool:
    if kind == "string":
        return True
    if kind == "boolean":
        return value in ("true", "false")
    if kind != "number":
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def input_keys(path: Path, format: str, columns: tuple[str, ...]) -> Iterator[tuple[int, tuple[str | bytes, ...]]]:
    """For every row that has all these columns its line and their values, without regard to case and outer space."""
    for line, row in dataset_rows(path, format):
        if all(column in row for column in columns):
            values = (row[column] for column in columns)
            yield (
                line,
                tuple(_key(path, line, v.strip().casefold() if isinstance(v, str) else v) for v in values),
            )
