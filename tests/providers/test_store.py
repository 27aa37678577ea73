from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmctl.core.digests import digest_bytes
from llmctl.core.errors import Conflict, ProviderError
from llmctl.providers.local import LocalTarget

DATA = b"weights" * 1000
DIGEST = digest_bytes(DATA)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(DATA)
    return path


def _writable(path: Path) -> Path:
    path.chmod(0o644)
    return path


def test_content_is_kept_by_digest_and_read_only(target: LocalTarget, source: Path) -> None:
    store = target.artifacts
    assert not store.has(DIGEST)
    assert store.list() == frozenset()
    store.put_file(source, DIGEST)
    assert store.has(DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA
    assert stat.S_IMODE(store.path(DIGEST).stat().st_mode) == 0o444
    assert store.list() == {DIGEST}
    assert store.put_bytes(b"row") == digest_bytes(b"row")
    assert store.list() == {DIGEST, digest_bytes(b"row")}
    store.delete(DIGEST)
    store.delete(DIGEST)
    assert not store.has(DIGEST)


def test_content_that_is_not_what_was_planned_is_refused_and_leaves_nothing(target: LocalTarget, source: Path) -> None:
    with pytest.raises(Conflict, match="not what was planned"):
        target.artifacts.put_file(source, digest_bytes(b"something else"))
    assert list((target.state_folder / "artifacts").iterdir()) == []


def test_what_is_missing_or_truncated_is_said_and_stored_again(target: LocalTarget, source: Path) -> None:
    store = target.artifacts
    with pytest.raises(ProviderError, match="not in the artifact store"):
        store.path(DIGEST)
    store.put_file(source, DIGEST)
    _writable(store.path(DIGEST)).write_bytes(DATA[:-1])
    assert not store.has(DIGEST)
    assert store.list() == frozenset()
    with pytest.raises(ProviderError, match="damaged"):
        store.path(DIGEST)
    store.put_file(source, DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA


def test_storing_again_replaces_content_of_the_same_size_that_was_changed(target: LocalTarget, source: Path) -> None:
    store = target.artifacts
    store.put_file(source, DIGEST)
    _writable(store.path(DIGEST)).write_bytes(b"X" + DATA[1:])
    assert store.has(DIGEST)
    store.put_file(source, DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA


def test_many_threads_may_store_the_same(target: LocalTarget, source: Path) -> None:
    store = target.artifacts
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(store.put_file, source, DIGEST) for _ in range(32)]:
            future.result()
    assert store.path(DIGEST).read_bytes() == DATA
    assert len(list((target.state_folder / "artifacts").iterdir())) == 1


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "*" * 64])
def test_what_is_no_digest_is_refused(target: LocalTarget, digest: str) -> None:
    with pytest.raises(ProviderError, match="not a digest"):
        target.artifacts.has(digest)


def test_a_folder_that_cannot_be_made_is_explained(project: Path, target: LocalTarget) -> None:
    (project / ".llmctl").write_text("in the way")
    with pytest.raises(ProviderError, match="cannot store content"):
        target.artifacts.put_bytes(b"row")
    (project / ".llmctl").unlink()
