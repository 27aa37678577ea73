from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import psutil
import pytest

from llmctl.core.digests import Json, digest_file
from llmctl.core.protocols import Op
from llmctl.core.resources import Environment
from llmctl.providers.local import LocalTarget
from llmctl.providers.local.layout import Layout
from tests.providers.fake_api import FakeApi

MODELS = Path(__file__).parents[2] / "examples" / "models"


def new_op(seconds: float = 30.0) -> Op:
    return Op("test", monotonic() + seconds)


@pytest.fixture
def op() -> Op:
    return new_op()


def model_spec(root: Path, name: str = "support-tiny.gguf", adapter: str = "") -> Json:
    """The resolved spec of a model whose files lie in ``root``, as the spec room makes it."""
    paths = [name, adapter] if adapter else [name]
    files = [{"path": p, "digest": digest_file(root / p), "bytes": (root / p).stat().st_size} for p in paths]
    adapters = [{"digest": file["digest"], "scale": 1.0} for file in files[1:]]
    weights = {"digest": files[0]["digest"], "adapters": adapters}
    return {"source": name, "license": "Apache-2.0", "api_key": None, "weights": weights, "files": files}


def endpoint_spec(weights: Json, **changes: Json) -> Json:
    spec = {
        "model": "support-tiny",
        "model_revision": "0123456789abcdef",
        "engine": "llama.cpp",
        "context": 256,
        "options": {"slots": 2, "threads": 1},
        "replicas": {"min": 1, "max": 1},
        "weights": weights,
        "api_key": None,
    }
    return {**spec, **changes}


def external_spec(url: str) -> Json:
    """A hosted endpoint whose key is in ``TEST_API_KEY``."""
    weights = {"remote": "openai:gpt-4.1-mini"}
    spec = endpoint_spec(weights, engine="external", model="hosted", context=None, options={"base_url": url})
    return {**spec, "api_key": {"env": "TEST_API_KEY"}}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that has a path below ``folder`` in its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and only not reaped yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def listening() -> set[tuple[str, int]]:
    """TCP ports that somebody listens on."""
    connections = psutil.net_connections("tcp")
    return {(c.laddr.ip, c.laddr.port) for c in connections if c.laddr and c.status == psutil.CONN_LISTEN}


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Poll for something that another process does."""
    end = monotonic() + seconds
    while not true():
        if monotonic() > end:
            return False
        sleep(0.01)
    return True


def end(target: LocalTarget) -> None:
    """Destroy a target and make sure, whatever happened, that no process of it is left."""
    folder = target.state_folder
    runtime = Layout(folder).runtime
    try:
        target.destroy(new_op(60))
    finally:
        for process in processes_of(folder):
            process.kill()
        shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(MODELS / "support-tiny.gguf", root)
    return root


@pytest.fixture
def target(project: Path) -> Iterator[LocalTarget]:
    """A target that was not started yet."""
    made = LocalTarget(project, "acme", Environment("dev", "local"))
    yield made
    end(made)


@pytest.fixture
def started(target: LocalTarget) -> LocalTarget:
    target.start(new_op())
    return target


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shared")
    for name in ("support-tiny.gguf", "support-tiny-early.gguf", "tone-lora.gguf"):
        shutil.copy(MODELS / name, root)
    return root


@pytest.fixture(scope="module")
def shared(shared_project: Path) -> Iterator[LocalTarget]:
    """A started target that the tests of a module share; each leaves no endpoint behind."""
    made = LocalTarget(shared_project, "acme", Environment("dev", "local"))
    made.start(new_op())
    yield made
    end(made)


@pytest.fixture
def clean(shared: LocalTarget) -> Iterator[LocalTarget]:
    yield shared
    for kind, provider in shared.providers.items():
        for key, live in provider.read_all().found.items():
            provider.delete(new_op(), key, live)
        assert not provider.read_all().found, kind


@pytest.fixture
def api() -> Iterator[FakeApi]:
    made = FakeApi()
    yield made
    made.close()
