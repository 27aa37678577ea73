"""The contract of ``core.protocols.Provider`` as tests. Every provider, ours or a plug-in's, passes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Event
from time import monotonic

import pytest

from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, Interrupted, LeaseLost, ProviderError
from llmctl.core.protocols import Op, Provider
from llmctl.core.resources import ALL, Key


class ProviderContract:
    """Override the fixtures. ``provider`` starts with nothing live and cleans up after each test."""

    @pytest.fixture
    def provider(self) -> Provider[Json]:
        """The provider under test; nothing is live yet."""
        raise NotImplementedError

    @pytest.fixture
    def key(self) -> Key:
        """A name with the revision that ``want`` has when it is read back."""
        raise NotImplementedError

    @pytest.fixture
    def want(self) -> Json:
        """What ``create`` gets for ``key``."""
        raise NotImplementedError

    @pytest.fixture
    def other_key(self) -> Key:
        """The same name with another revision."""
        raise NotImplementedError

    @pytest.fixture
    def other_want(self) -> Json:
        """What ``create`` gets for ``other_key``."""
        raise NotImplementedError

    @pytest.fixture
    def changed_want(self) -> Json:
        """``want`` with another operating field: the same revision."""
        raise NotImplementedError

    @pytest.fixture
    def op(self) -> Op:
        """The circumstances of an effect that may be made; half a minute is allowed for it."""
        return Op("contract", monotonic() + 30)

    @pytest.fixture
    def secrets(self) -> tuple[str, ...]:
        """Secret values that pass through the provider; none may be read back."""
        return ()

    @pytest.fixture
    def broken_reading(self) -> Callable[[], AbstractContextManager[None]]:
        """Makes reading fail while its block runs. Left as it is, that test is skipped."""
        pytest.skip("this provider has no way to break its reading")

    def test_nothing_is_found_at_first(self, provider: Provider[Json]) -> None:
        reading = provider.read_all()
        assert not reading.found
        assert not reading.unreadable

    def test_what_was_created_is_read_back(self, provider: Provider[Json], key: Key, want: Json, op: Op) -> None:
        created = provider.create(op, key, want)
        read = provider.read_all()
        assert not read.unreadable
        assert set(read.found) == {key}
        found = read.found[key]
        assert (found.key, found.revision, found.healthy) == (key, key.revision, True)
        assert (found.state, found.outputs) == (created.state, created.outputs)

    def test_creating_again_adopts(self, provider: Provider[Json], key: Key, want: Json, op: Op) -> None:
        first = provider.create(op, key, want)
        again = provider.create(op, key, want)
        assert (again.revision, again.state, again.outputs) == (first.revision, first.state, first.outputs)
        assert set(provider.read_all().found) == {key}

    def test_two_revisions_are_live_at_once(
        self, provider: Provider[Json], key: Key, want: Json, other_key: Key, other_want: Json, op: Op
    ) -> None:
        first = provider.create(op, key, want)
        provider.create(op, other_key, other_want)
        found = provider.read_all().found
        assert {k: live.revision for k, live in found.items()} == {k: k.revision for k in (key, other_key)}
        assert found[key].outputs == first.outputs

    def test_deleting_takes_away_that_revision_alone(
        self, provider: Provider[Json], key: Key, want: Json, other_key: Key, other_want: Json, op: Op
    ) -> None:
        live = provider.create(op, key, want)
        provider.create(op, other_key, other_want)
        provider.delete(op, key, live)
        found = provider.read_all().found
        assert set(found) == {other_key}
        assert found[other_key].healthy

    def test_deleting_what_is_gone_is_done(self, provider: Provider[Json], key: Key, want: Json, op: Op) -> None:
        live = provider.create(op, key, want)
        provider.delete(op, key, live)
        provider.delete(op, key, live)
        assert not provider.read_all().found

    def test_it_can_be_created_after_it_was_deleted(
        self, provider: Provider[Json], key: Key, want: Json, op: Op
    ) -> None:
        provider.delete(op, key, provider.create(op, key, want))
        assert provider.create(op, key, want).revision == key.revision
        assert provider.read_all().found[key].healthy

    def test_operating_fields_change_in_place(
        self, provider: Provider[Json], key: Key, want: Json, changed_want: Json, op: Op
    ) -> None:
        before = provider.create(op, key, want)
        provider.update(op, key, before, changed_want)
        after = provider.read_all().found[key]
        assert after.state != before.state
        assert (after.revision, after.outputs) == (before.revision, before.outputs)

    def test_updating_what_has_moved_is_refused(
        self, provider: Provider[Json], key: Key, want: Json, changed_want: Json, op: Op
    ) -> None:
        planned = provider.create(op, key, want)
        provider.update(op, key, planned, changed_want)
        with pytest.raises(Conflict):
            provider.update(op, key, planned, want)
        with pytest.raises(Conflict):
            provider.update(op, key, replace(planned, revision="0" * 16), want)
        assert provider.read_all().found[key].state != planned.state

    def test_deleting_what_has_moved_is_refused(
        self, provider: Provider[Json], key: Key, want: Json, changed_want: Json, op: Op
    ) -> None:
        planned = provider.create(op, key, want)
        provider.update(op, key, planned, changed_want)
        with pytest.raises(Conflict):
            provider.delete(op, key, planned)
        assert provider.read_all().found[key].healthy

    def test_updating_what_is_gone_is_refused(
        self, provider: Provider[Json], key: Key, want: Json, changed_want: Json, op: Op
    ) -> None:
        planned = provider.create(op, key, want)
        provider.delete(op, key, planned)
        with pytest.raises(Conflict):
            provider.update(op, key, planned, changed_want)
        assert not provider.read_all().found

    def test_nothing_is_created_once_it_may_not_be(self, provider: Provider[Json], key: Key, want: Json) -> None:
        for stopped, error in _stopped_ops():
            with pytest.raises(error):
                provider.create(stopped, key, want)
        assert not provider.read_all().found

    def test_nothing_is_changed_once_it_may_not_be(
        self, provider: Provider[Json], key: Key, want: Json, changed_want: Json, op: Op
    ) -> None:
        live = provider.create(op, key, want)
        for stopped, error in _stopped_ops():
            with pytest.raises(error):
                provider.update(stopped, key, live, changed_want)
            with pytest.raises(error):
                provider.delete(stopped, key, live)
        found = provider.read_all().found[key]
        assert (found.state, found.outputs) == (live.state, live.outputs)

    def test_unreadable_is_never_absent(
        self,
        provider: Provider[Json],
        key: Key,
        want: Json,
        op: Op,
        broken_reading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        provider.create(op, key, want)
        with broken_reading():
            reading = provider.read_all()
        assert key in reading.unreadable or ALL in reading.unreadable
        assert all(reason.summary for reason in reading.unreadable.values())
        assert provider.read_all().found[key].healthy

    def test_what_is_read_back_is_json_and_holds_no_secret(
        self, provider: Provider[Json], key: Key, want: Json, op: Op, secrets: tuple[str, ...]
    ) -> None:
        created = provider.create(op, key, want)
        for live in (created, provider.read_all().found[key]):
            text = json.dumps([live.state, live.outputs, live.detail]) + repr(live)
            assert not [secret for secret in secrets if secret in text]


def _stopped_ops() -> list[tuple[Op, type[Exception]]]:
    cancelled = Event()
    cancelled.set()

    def lease_lost() -> None:
        raise LeaseLost("the lock was taken over")

    return [
        (Op("cancelled", monotonic() + 30, cancelled=cancelled), Interrupted),
        (Op("late", monotonic() - 1), ProviderError),
        (Op("lost", monotonic() + 30, check_lease=lease_lost), LeaseLost),
    ]
