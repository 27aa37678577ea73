"""The contract of ``core.protocols.Provider`` as tests. Every provider, ours or a plug-in's, passes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from threading import Event
from time import monotonic

import pytest

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import Conflict, Interrupted, LeaseLost, ProviderError
from llmctl.core.plugins import Declared, Imports
from llmctl.core.protocols import Op, Provider
from llmctl.core.resources import ALL, Key, Live, Reading


class ProviderContract:
    """Subclass it, override the fixtures, and pytest runs every test of the contract against your provider.

    A kind whose revisions live side by side, as endpoints do, has keys ``name@revision``. A kind with one live
    thing a name, which is what plug-ins have, has keys ``name`` and says in ``revision`` what is read back::

        from llmctl.testing import ProviderContract

        KIND = Kind("index", "indexes", Role.RESOURCE, serving=("dimensions",))

        class TestIndexes(ProviderContract):
            @pytest.fixture
            def provider(self, tmp_path):
                return IndexProvider(tmp_path)                 # nothing is live yet

            @pytest.fixture
            def key(self):
                return Key("docs")

            @pytest.fixture
            def want(self):
                return {"dimensions": 8, "owner": "ann"}

            @pytest.fixture
            def revision(self, want):
                return KIND.revision(want)

            @pytest.fixture
            def other_key(self):
                return Key("images")                           # another thing beside it

            @pytest.fixture
            def other_want(self):
                return {"dimensions": 4, "owner": "ann"}

            @pytest.fixture
            def other_revision(self, other_want):
                return KIND.revision(other_want)

            @pytest.fixture
            def changed_want(self):
                return {"dimensions": 8, "owner": "bob"}       # an operating field: the same revision

            @pytest.fixture
            def replaced_want(self):
                return {"dimensions": 16, "owner": "ann"}      # a serving field: another revision, in place

            @pytest.fixture
            def replaced_revision(self, replaced_want):
                return KIND.revision(replaced_want)

            @pytest.fixture
            def broken_reading(self, provider):                # a context manager, see below
                return provider.unplugged

    ``provider`` starts with nothing live and cleans up after each test. Tests whose fixture is left as it is
    (``replaced_want``, ``refused_want``, ``broken_reading``) are skipped, and say so: a provider that can be
    unreadable should have the last one.

    What the tests hold a provider to, in words:

    * what was created is read back, with its revision, its outputs and its state; twice the same creates once;
    * ``update`` and ``delete`` are guarded by ``was``, the thing as it was read: what has changed since is a
      ``Conflict``, and stays; what is gone already is deleted;
    * what cannot be read is listed under ``unreadable``, by its key or by ``ALL``, and never left out;
    * ``op.guard()`` is called before every effect: after Ctrl-C, beyond the deadline and without the lock nothing
      is changed;
    * answers are well formed, are JSON, and hold no secret; failures are errors of ``llmctl.core.errors``;
    * a provider that has ``Imports`` too gives the spec from which exactly what is there would be made.
    """

    @pytest.fixture
    def provider(self) -> Provider[Json]:
        """The provider under test; nothing is live yet."""
        raise NotImplementedError

    @pytest.fixture
    def key(self) -> Key:
        """Where ``want`` lives: a name, with the revision of ``want`` if revisions live side by side."""
        raise NotImplementedError

    @pytest.fixture
    def want(self) -> Json:
        """What ``create`` gets for ``key``."""
        raise NotImplementedError

    @pytest.fixture
    def revision(self, key: Key) -> str:
        """The revision of ``want`` as it is read back: the key's own, unless a name has one live thing."""
        return key.revision

    @pytest.fixture
    def other_key(self) -> Key:
        """The same name with another revision, or another name if a name has one live thing."""
        raise NotImplementedError

    @pytest.fixture
    def other_want(self) -> Json:
        """What ``create`` gets for ``other_key``."""
        raise NotImplementedError

    @pytest.fixture
    def other_revision(self, other_key: Key) -> str:
        """The revision of ``other_want`` as it is read back."""
        return other_key.revision

    @pytest.fixture
    def changed_want(self) -> Json:
        """``want`` with another operating field: the same revision."""
        raise NotImplementedError

    @pytest.fixture
    def replaced_want(self) -> Json:
        """``want`` with another serving field, where a name has one live thing: another revision, in place."""
        pytest.skip("its revisions live side by side")

    @pytest.fixture
    def replaced_revision(self) -> str:
        """The revision of ``replaced_want``."""
        pytest.skip("its revisions live side by side")

    @pytest.fixture
    def refused_want(self) -> Json:
        """What the system behind the provider refuses to make under ``key``."""
        pytest.skip("nothing is named that this provider's system would refuse")

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
        """Makes reading fail while its block runs: the network is down, a file is damaged."""
        pytest.skip("this provider has no way to break its reading")

    def test_nothing_is_found_at_first(self, provider: Provider[Json]) -> None:
        reading = provider.read_all()
        assert not reading.found
        assert not reading.unreadable

    def test_what_was_created_is_read_back(
        self, provider: Provider[Json], key: Key, want: Json, revision: str, op: Op
    ) -> None:
        created = provider.create(op, key, want)
        read = provider.read_all()
        assert not read.unreadable
        assert set(read.found) == {key}
        found = read.found[key]
        assert (found.key, found.revision, found.healthy) == (key, revision, True)
        assert (found.state, found.outputs) == (created.state, created.outputs)

    def test_creating_again_adopts(self, provider: Provider[Json], key: Key, want: Json, op: Op) -> None:
        first = provider.create(op, key, want)
        again = provider.create(op, key, want)
        assert (again.revision, again.state, again.outputs) == (first.revision, first.state, first.outputs)
        assert set(provider.read_all().found) == {key}

    def test_two_are_live_at_once(
        self,
        provider: Provider[Json],
        key: Key,
        want: Json,
        revision: str,
        other_key: Key,
        other_want: Json,
        other_revision: str,
        op: Op,
    ) -> None:
        first = provider.create(op, key, want)
        provider.create(op, other_key, other_want)
        found = provider.read_all().found
        assert {k: live.revision for k, live in found.items()} == {key: revision, other_key: other_revision}
        assert found[key].outputs == first.outputs

    def test_deleting_takes_away_that_one_alone(
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
        self, provider: Provider[Json], key: Key, want: Json, revision: str, op: Op
    ) -> None:
        provider.delete(op, key, provider.create(op, key, want))
        assert provider.create(op, key, want).revision == revision
        assert provider.read_all().found[key].healthy

    def test_operating_fields_change_in_place(
        self, provider: Provider[Json], key: Key, want: Json, changed_want: Json, op: Op
    ) -> None:
        before = provider.create(op, key, want)
        updated = provider.update(op, key, before, changed_want)
        after = provider.read_all().found[key]
        assert after.state != before.state
        assert (after.revision, after.outputs) == (before.revision, before.outputs)
        assert (updated.key, updated.revision, updated.state) == (key, after.revision, after.state)

    def test_serving_fields_change_in_place_where_a_name_has_one_live_thing(
        self,
        provider: Provider[Json],
        key: Key,
        want: Json,
        revision: str,
        replaced_want: Json,
        replaced_revision: str,
        op: Op,
    ) -> None:
        updated = provider.update(op, key, provider.create(op, key, want), replaced_want)
        found = provider.read_all().found
        assert {k: live.revision for k, live in found.items()} == {key: replaced_revision}
        assert updated.revision == replaced_revision != revision

    def test_what_its_system_refuses_is_said_and_leaves_nothing(
        self, provider: Provider[Json], key: Key, refused_want: Json, op: Op
    ) -> None:
        with pytest.raises(ProviderError) as refused:
            provider.create(op, key, refused_want)
        assert refused.value.summary
        assert not [live for live in provider.read_all().found.values() if live.healthy]

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

    def test_what_can_be_imported_would_be_made_just_so(
        self, provider: Provider[Json], key: Key, want: Json, op: Op, secrets: tuple[str, ...]
    ) -> None:
        if not isinstance(provider, Imports):
            pytest.skip("it does not have the capability `Imports`")
        with pytest.raises(ProviderError):
            provider.read_spec(key)
        made = provider.create(op, key, want)
        said = provider.read_spec(key)
        assert isinstance(said, Declared)
        assert all(isinstance(need, Address) for need in said.needs)
        text = json.dumps(said.spec)
        assert not [secret for secret in secrets if secret in text]
        again = provider.create(op, key, json.loads(text))
        assert (again.revision, again.state, again.outputs) == (made.revision, made.state, made.outputs)

    def test_answers_are_well_formed(self, provider: Provider[Json], key: Key, want: Json, op: Op) -> None:
        """Apply refuses an answer that is not, and calls it a defect of the provider."""
        created = provider.create(op, key, want)
        reading = provider.read_all()
        assert isinstance(reading, Reading)
        for where, live in ((key, created), *reading.found.items()):
            assert isinstance(live, Live)
            assert live.key == where
            assert isinstance(live.revision, str)
            assert isinstance(live.healthy, bool)
            assert isinstance(live.detail, str)
            assert isinstance(live.outputs, Mapping)
        deleted: object = provider.delete(op, key, created)  # type: ignore[func-returns-value]
        assert deleted is None

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
