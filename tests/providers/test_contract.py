"""Every provider of the local target against the shipped contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from llmctl.core.digests import Json, digest_file
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import Provider
from llmctl.core.resources import Key
from llmctl.providers.local import LocalTarget
from llmctl.testing import ProviderContract
from tests.providers.conftest import endpoint_spec, external_spec, model_spec
from tests.providers.fake_api import CANARY, FakeApi


def _key(kind: str, spec: Json) -> Key:
    return Key("thing", kind_of(kind).revision(spec))


def _damaged(folder: Path) -> Callable[[], AbstractContextManager[None]]:
    """Damages every file in ``folder`` for a while."""

    @contextmanager
    def damage() -> Iterator[None]:
        before = {path: path.read_bytes() for path in folder.iterdir()}
        for path in before:
            path.write_bytes(b"{ no json")
        yield
        for path, content in before.items():
            path.write_bytes(content)

    return damage


def _unreadable(folder: Path) -> Callable[[], AbstractContextManager[None]]:
    """Puts a folder in the place of every file in ``folder`` for a while: not readable, also for root."""

    @contextmanager
    def block() -> Iterator[None]:
        before = {path: path.read_bytes() for path in folder.iterdir()}
        for path in before:
            path.unlink()
            path.mkdir()
        yield
        for path, content in before.items():
            path.rmdir()
            path.write_bytes(content)

    return block


class _Artifacts(ProviderContract):
    kind = ""

    @pytest.fixture
    def provider(self, target: LocalTarget) -> Provider[Json]:
        return target.providers[self.kind]

    @pytest.fixture
    def root(self, project: Path) -> Path:
        (project / "one.jsonl").write_text('{"question": "a"}\n')
        (project / "two.jsonl").write_text('{"question": "b"}\n')
        return project

    @pytest.fixture
    def spec(self, root: Path) -> Json:
        raise NotImplementedError

    @pytest.fixture
    def other_spec(self, root: Path) -> Json:
        raise NotImplementedError

    @pytest.fixture
    def key(self, spec: Json) -> Key:
        return _key(self.kind, spec)

    @pytest.fixture
    def other_key(self, other_spec: Json) -> Key:
        return _key(self.kind, other_spec)

    @pytest.fixture
    def want(self, spec: Json, root: Path) -> Json:
        return {"spec": spec, "root": str(root)}

    @pytest.fixture
    def other_want(self, other_spec: Json, root: Path) -> Json:
        return {"spec": other_spec, "root": str(root)}

    @pytest.fixture
    def changed_want(self, spec: Json, root: Path) -> Json:
        return {"spec": {**spec, "license": "MIT"}, "root": str(root)}

    @pytest.fixture
    def broken_reading(self, target: LocalTarget) -> Callable[[], AbstractContextManager[None]]:
        return _unreadable(target.state_folder / "manifests" / self.kind)


class TestDatasets(_Artifacts):
    kind = "dataset"

    @pytest.fixture
    def spec(self, root: Path) -> Json:
        return self._spec(root, "one.jsonl")

    @pytest.fixture
    def other_spec(self, root: Path) -> Json:
        return self._spec(root, "two.jsonl")

    def _spec(self, root: Path, name: str) -> Json:
        file = root / name
        digest = {"source": name, "digest": digest_file(file), "bytes": file.stat().st_size, "rows": 1}
        return {"format": "jsonl", "columns": {"question": "string"}, "license": "CC0-1.0", **digest}


class TestModels(_Artifacts):
    kind = "model"

    @pytest.fixture
    def spec(self, root: Path) -> Json:
        return model_spec(root)

    @pytest.fixture
    def other_spec(self, root: Path) -> Json:
        return model_spec(root, "support-tiny.gguf", "one.jsonl")


class TestPrompts(_Artifacts):
    kind = "prompt"

    @pytest.fixture
    def spec(self, root: Path) -> Json:  # noqa: ARG002
        messages = [{"role": "user", "content": "{{ question }}"}]
        return {"messages": messages, "variables": {"question": "string"}, "parameters": {"temperature": 0}}

    @pytest.fixture
    def other_spec(self, spec: Json) -> Json:
        return {**spec, "parameters": {"temperature": 1}}


class TestLlamaEndpoints(ProviderContract):
    @pytest.fixture
    def provider(self, clean: LocalTarget) -> Provider[Json]:
        return clean.providers["endpoint"]

    @pytest.fixture
    def want(self, shared: LocalTarget, shared_project: Path) -> Json:
        spec = model_spec(shared_project)
        shared.artifacts.put_file(shared_project / spec["source"], spec["weights"]["digest"])
        return endpoint_spec(spec["weights"], replicas={"min": 2, "max": 2})

    @pytest.fixture
    def key(self, want: Json) -> Key:
        return _key("endpoint", want)

    @pytest.fixture
    def other_want(self, want: Json) -> Json:
        return {**want, "context": 128}

    @pytest.fixture
    def other_key(self, other_want: Json) -> Key:
        return _key("endpoint", other_want)

    @pytest.fixture
    def changed_want(self, want: Json) -> Json:
        return {**want, "timeouts": {"ready_s": 60.0, "drain_s": 5.0}}

    @pytest.fixture
    def broken_reading(self, shared: LocalTarget) -> Callable[[], AbstractContextManager[None]]:
        return _damaged(shared.state_folder / "endpoints")


class TestExternalEndpoints(ProviderContract):
    @pytest.fixture
    def provider(self, clean: LocalTarget) -> Provider[Json]:
        return clean.providers["endpoint"]

    @pytest.fixture
    def want(self, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Json:
        monkeypatch.setenv("TEST_API_KEY", CANARY)
        return external_spec(api.url)

    @pytest.fixture
    def key(self, want: Json) -> Key:
        return _key("endpoint", want)

    @pytest.fixture
    def other_want(self, want: Json) -> Json:
        return {**want, "model_revision": "fedcba9876543210"}

    @pytest.fixture
    def other_key(self, other_want: Json) -> Key:
        return _key("endpoint", other_want)

    @pytest.fixture
    def changed_want(self, want: Json) -> Json:
        return {**want, "timeouts": {"ready_s": 180.0, "drain_s": 5.0}}

    @pytest.fixture
    def broken_reading(self, shared: LocalTarget) -> Callable[[], AbstractContextManager[None]]:
        return _damaged(shared.state_folder / "endpoints")

    @pytest.fixture
    def secrets(self) -> tuple[str, ...]:
        return (CANARY,)
