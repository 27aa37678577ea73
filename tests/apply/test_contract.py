"""The shipped contract suite: kept by a provider that is right, and broken, each at one test, by ones that are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from threading import Event
from time import monotonic
from typing import Any

import pytest

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError
from llmctl.core.kinds import Kind, Role
from llmctl.core.protocols import Op, Provider
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.testing import ProviderContract
from tests.apply.fakes import MemoryProvider

INDEX = Kind("index", "indexes", Role.RESOURCE, ("dimensions",))
WANT = {"dimensions": 8, "owner": "ann"}
CHANGED = {"dimensions": 8, "owner": "bob"}
DOCS = Key("docs")


@dataclass
class Indexes(MemoryProvider):
    """One live thing a name, in memory. It has room for 100 dimensions."""

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        if want["dimensions"] > 100:
            raise ProviderError("there is room for 100 dimensions")
        return super().create(op, key, want)


def indexes(made: type[MemoryProvider] = Indexes) -> MemoryProvider:
    return made("index", revision_of=lambda _, want: INDEX.revision(want))


class TestIndexes(ProviderContract):
    @pytest.fixture
    def provider(self) -> Provider[Json]:
        return indexes()

    @pytest.fixture
    def key(self) -> Key:
        return DOCS

    @pytest.fixture
    def want(self) -> Json:
        return WANT

    @pytest.fixture
    def revision(self, want: Json) -> str:
        return INDEX.revision(want)

    @pytest.fixture
    def other_key(self) -> Key:
        return Key("images")

    @pytest.fixture
    def other_want(self) -> Json:
        return {"dimensions": 4, "owner": "ann"}

    @pytest.fixture
    def other_revision(self, other_want: Json) -> str:
        return INDEX.revision(other_want)

    @pytest.fixture
    def changed_want(self) -> Json:
        return CHANGED

    @pytest.fixture
    def replaced_want(self) -> Json:
        return {"dimensions": 16, "owner": "ann"}

    @pytest.fixture
    def replaced_revision(self, replaced_want: Json) -> str:
        return INDEX.revision(replaced_want)

    @pytest.fixture
    def refused_want(self) -> Json:
        return {"dimensions": 101, "owner": "ann"}

    @pytest.fixture
    def broken_reading(self, provider: MemoryProvider) -> Callable[[], AbstractContextManager[None]]:
        return lambda: broken(provider)


@contextmanager
def broken(provider: MemoryProvider) -> Iterator[None]:
    provider.answer = lambda verb, made: Reading(unreadable={ALL: Diagnostic("down")}) if verb == "read" else made
    yield
    provider.answer = lambda _, made: made


class Unguarded(Indexes):
    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        return super().create(replace(op, cancelled=Event()), key, want)


class Blind(Indexes):
    def _unmoved(self, key: Key, was: Live[Json]) -> Live[Json] | None:  # noqa: ARG002
        return self.found.get(key)


class Twice(Indexes):
    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        made = super().create(op, key, want)
        if len(self.calls) > 1:
            self.found[Key(f"{key.name}-2")] = replace(made, key=Key(f"{key.name}-2"))
        return made


class Once(Indexes):
    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        if key not in self.found:
            raise ProviderError("there is no such index")
        super().delete(op, key, was)


class Mute(Indexes):
    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Any:
        super().update(op, key, was, want)


@pytest.mark.parametrize(
    ("wrong", "test", "given"),
    [
        (Unguarded, "test_nothing_is_created_once_it_may_not_be", {}),
        (Blind, "test_updating_what_has_moved_is_refused", {"changed_want": CHANGED}),
        (Blind, "test_deleting_what_has_moved_is_refused", {"changed_want": CHANGED}),
        (Twice, "test_creating_again_adopts", {}),
        (Once, "test_deleting_what_is_gone_is_done", {}),
        (Mute, "test_operating_fields_change_in_place", {"changed_want": CHANGED}),
    ],
)
def test_a_provider_that_is_wrong_does_not_pass(wrong: type[Indexes], test: str, given: dict[str, Any]) -> None:
    arguments = {"provider": indexes(wrong), "key": DOCS, "want": WANT, **given}
    if "once_it_may_not" not in test:
        arguments["op"] = Op("contract", monotonic() + 30)
    with pytest.raises((AssertionError, AttributeError, ProviderError, pytest.fail.Exception)):
        getattr(ProviderContract(), test)(**arguments)


def test_a_reading_that_leaves_out_what_it_cannot_read_does_not_pass() -> None:
    provider = indexes()

    @contextmanager
    def forgets() -> Iterator[None]:
        provider.answer = lambda verb, made: Reading() if verb == "read" else made
        yield
        provider.answer = lambda _, made: made

    op = Op("contract", monotonic() + 30)
    with pytest.raises(AssertionError):
        ProviderContract().test_unreadable_is_never_absent(provider, DOCS, WANT, op, forgets)


def test_it_needs_nothing_but_pytest_and_the_core() -> None:
    program = """
import sys, llmctl.testing
print(sorted({".".join(name.split(".")[:2]) for name in sys.modules if name.startswith("llmctl.")}))
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "['llmctl.core', 'llmctl.testing']"
