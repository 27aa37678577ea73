"""``FtsProvider`` keeps the contract of llmctl."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from llmctl_fts import KIND
from llmctl_fts.provider import FtsProvider

from llmctl.core.errors import ProviderError
from llmctl.core.plugins import Place
from llmctl.core.protocols import Op
from llmctl.core.resources import Key
from llmctl.testing import ProviderContract

ROWS: list[dict[str, Any]] = [
    {"question": "Can I return shoes?", "answer": "Yes."},
    {"question": "Where is my order?", "answer": 42},
]
FAQ = Key("faq")


@dataclass
class Artifacts:
    """As much of llmctl's artifact store as a provider needs."""

    folder: Path

    def add(self, rows: list[dict[str, Any]]) -> str:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        digest = sha256(data).hexdigest()
        (self.folder / digest).write_bytes(data)
        return f"sha256:{digest}"

    def path(self, digest: str) -> Path:
        path = self.folder / digest.removeprefix("sha256:")
        if not path.is_file():
            raise ProviderError(f"there is no artifact {digest}")
        return path


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kinds" / "fts"


@pytest.fixture
def provider(folder: Path, artifacts: Artifacts) -> FtsProvider:
    place = Place("acme", "dev", "local", folder.parent, folder, artifacts)  # type: ignore[arg-type]
    made = KIND.provider(place)
    assert isinstance(made, FtsProvider)
    return made


@pytest.fixture
def want(artifacts: Artifacts) -> dict[str, Any]:
    return {
        "dataset": "faq",
        "dataset_digest": artifacts.add(ROWS),
        "dataset_format": "jsonl",
        "columns": ["question", "answer"],
        "tokenizer": "unicode61",
        "protect": False,
    }


class TestContract(ProviderContract):
    """Every test of the contract, with indexes."""

    @pytest.fixture
    def key(self) -> Key:
        return FAQ

    @pytest.fixture
    def revision(self, want: dict[str, Any]) -> str:
        return KIND.kind.revision(want)

    @pytest.fixture
    def other_key(self) -> Key:
        return Key("answers")

    @pytest.fixture
    def other_want(self, want: dict[str, Any]) -> dict[str, Any]:
        return {**want, "columns": ["answer"]}

    @pytest.fixture
    def other_revision(self, other_want: dict[str, Any]) -> str:
        return KIND.kind.revision(other_want)

    @pytest.fixture
    def changed_want(self, want: dict[str, Any]) -> dict[str, Any]:
        return {**want, "protect": True}

    @pytest.fixture
    def replaced_want(self, want: dict[str, Any]) -> dict[str, Any]:
        return {**want, "tokenizer": "porter"}

    @pytest.fixture
    def replaced_revision(self, replaced_want: dict[str, Any]) -> str:
        return KIND.kind.revision(replaced_want)

    @pytest.fixture
    def refused_want(self, want: dict[str, Any]) -> dict[str, Any]:
        return {**want, "tokenizer": "nonsense"}

    @pytest.fixture
    def broken_reading(self, folder: Path) -> Callable[[], AbstractContextManager[None]]:
        """Another program holds the file."""

        @contextmanager
        def locked() -> Iterator[None]:
            with closing(sqlite3.connect(folder / "faq.sqlite3")) as base:
                base.execute("BEGIN EXCLUSIVE")
                yield

        return locked

    # The contract asks for fixtures of the class; these are those of the module.
    @pytest.fixture
    def provider(self, provider: FtsProvider) -> FtsProvider:
        return provider

    @pytest.fixture
    def want(self, want: dict[str, Any]) -> dict[str, Any]:
        return want


@pytest.fixture
def op() -> Op:
    return Op("test", monotonic() + 30)


def test_the_rows_can_be_searched(provider: FtsProvider, want: dict[str, Any], op: Op) -> None:
    outputs = provider.create(op, FAQ, want).outputs
    with closing(sqlite3.connect(outputs["path"])) as base:
        found = base.execute("SELECT question, answer FROM documents WHERE documents MATCH 'order'").fetchall()
    assert found == [("Where is my order?", "42")]
    assert outputs["rows"] == 2


@pytest.mark.parametrize("damage", ["truncated", "nonsense", "another database", "rows lost", "empty"])
def test_a_damaged_one_is_ill_and_can_be_made_anew(
    provider: FtsProvider, want: dict[str, Any], op: Op, damage: str
) -> None:
    made = provider.create(op, FAQ, want)
    path = Path(made.outputs["path"])
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "nonsense":
        path.write_bytes(b"nonsense" * 1000)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with closing(sqlite3.connect(path)) as base:
            base.execute("DROP TABLE meta" if damage == "another database" else "DELETE FROM documents WHERE rowid = 1")
            base.commit()
    reading = provider.read_all()
    assert not reading.unreadable
    ill = reading.found[FAQ]
    assert not ill.healthy
    assert ill.detail
    assert provider.update(op, FAQ, ill, want) == made
    path.write_bytes(b"nonsense" * 1000)
    provider.delete(op, FAQ, provider.read_all().found[FAQ])
    assert not provider.read_all().found


def test_a_build_that_fails_leaves_the_old_one_and_no_file_behind(
    provider: FtsProvider, want: dict[str, Any], op: Op, folder: Path
) -> None:
    made = provider.create(op, FAQ, want)
    (folder / ".faq.new").write_bytes(b"half of it")  # of a build that was killed
    for bad in ({"dataset_digest": "sha256:" + "0" * 64}, {"tokenizer": "nonsense"}):
        with pytest.raises(ProviderError):
            provider.update(op, FAQ, made, {**want, **bad})
    assert provider.read_all().found == {FAQ: made}
    assert [path.name for path in folder.iterdir()] == ["faq.sqlite3"]
