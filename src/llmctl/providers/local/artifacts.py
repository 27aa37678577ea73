"""Datasets, models and prompts on the local target: content in the store, and a manifest per revision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json, canonical_json, digest_bytes
from llmctl.core.errors import Conflict, ProviderError
from llmctl.core.files import stamp
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import Op
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.providers.local.found import Found, FoundFile
from llmctl.providers.local.launch import Launch, endpoint_files
from llmctl.providers.local.layout import Layout, explained, read_json, write_json
from llmctl.providers.local.lock import StateLock
from llmctl.providers.local.store import FileStore, digest_of

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Content:
    """One piece of an artifact: its digest, and the path it comes from or its bytes."""

    digest: str
    source: str = ""
    data: bytes = b""


def contents(kind: str, spec: Json) -> list[Content]:
    """What an artifact consists of. A hosted model consists of nothing here."""
    if kind == "dataset":
        return [Content(spec["digest"], source=spec["source"])]
    if kind == "model":
        return [Content(file["digest"], source=file["path"]) for file in spec.get("files") or ()]
    data = canonical_json({"kind": kind, **{field: spec.get(field) for field in kind_of(kind).serving}}).encode()
    return [Content(digest_bytes(data), data=data)]


class ArtifactProvider:
    """``core.protocols.Provider`` for one artifact kind.

    ``want`` is ``{"spec": the resolved spec, "root": the folder that relative sources start from}``; the
    state read back is the spec alone. A source is needed only while its content is not in the store.
    """

    def __init__(self, kind: str, layout: Layout, lock: StateLock, store: FileStore) -> None:
        self._kind = kind
        self._layout = layout
        self._lock = lock
        self._store = store
        self._folder = layout.manifests / kind
        basis = list(kind_of(kind).serving)
        self._remembered = FoundFile(layout.found(kind), layout.artifacts, basis)

    def read_all(self) -> Reading[Json]:
        if self._layout.is_copy:
            return Reading()
        try:
            names = sorted(os.listdir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return Reading()
        except OSError as error:
            return Reading(unreadable={ALL: Diagnostic(f"the {self._kind}s cannot be read", detail=str(error))})
        known = self._remembered.load()
        looked: dict[str, Found] = {}
        found: dict[Key, Live[Json]] = {}
        unreadable: dict[Key, Diagnostic] = {}
        for name in names:
            if not name.endswith(".json"):
                continue
            key = Key.parse(name.removesuffix(".json"))
            try:
                artifact = known.get(name)
                if artifact is not None and self._remembered.still(artifact, os.stat(f"{self._folder}/{name}")):
                    looked[name], found[key] = artifact, _live(key, artifact)
                    continue
                live, seen = self._look(key)
            except (ValueError, KeyError, TypeError):
                live, seen = Live(key, None, key.revision, healthy=False, detail="its manifest is damaged"), None
            except (OSError, ProviderError) as error:
                unreadable[key] = Diagnostic(f"{self._kind} {key} cannot be read", detail=f"{self._path(key)}: {error}")
                continue
            if live is not None:
                found[key] = live
            if seen is not None and seen.settled:
                looked[name] = seen
        if looked.keys() != known.keys() or any(looked[name] is not known[name] for name in looked):
            self._remembered.save(looked)
        return Reading(found, unreadable)

    def create(self, op: Op, key: Key, want: Json) -> Live[Json]:
        """Store what is not in the store yet, then the manifest."""
        spec = want["spec"]
        op.guard()
        with explained(f"store {self._kind} {key}"):
            for content in contents(self._kind, spec):
                self._put(op, content, Path(want["root"]))
            return self._write(op, key, spec)

    def update(self, op: Op, key: Key, was: Live[Json], want: Json) -> Live[Json]:
        """Operating fields alone: the content of a revision never changes."""
        op.guard()
        with explained(f"update {self._kind} {key}"):
            if self._unmoved(key, was) is None:
                raise Conflict(f"{self._kind} {key} is gone", hint="Plan again.")
            return self._write(op, key, want["spec"])

    def delete(self, op: Op, key: Key, was: Live[Json]) -> None:
        """Remove the manifest, and the content that nothing else needs."""
        op.guard()
        with explained(f"delete {self._kind} {key}"):
            if self._unmoved(key, was) is None:
                return
            with self._lock.held():
                path = self._path(key)
                unused = {content.digest for content in contents(self._kind, was.state)} - self._needed(besides=path)
                path.unlink(missing_ok=True)
                for digest in unused:
                    self._store.delete(digest)

    def _put(self, op: Op, content: Content, root: Path) -> None:
        if self._store.verified(content.digest):
            return
        op.guard()
        if not content.source:
            self._store.put_bytes(content.data, durable=False)  # it can be made again from the record
            return
        source = root / content.source
        if not source.is_file():
            raise ProviderError(
                f"{content.source} does not exist, and its content is not in the artifact store",
                detail=f"Needed is {content.digest}, from {source}.",
                hint="Bring the file back, for example with git, or name another source.",
            )
        op.progress(f"storing {content.source}")
        try:
            self._store.put_file(source, content.digest)
        except Conflict as error:
            summary = f"{content.source} changed after the plan was made"
            raise Conflict(summary, detail=error.detail, hint="Plan again.") from None

    def _write(self, op: Op, key: Key, spec: Json) -> Live[Json]:
        manifest = {"format": FORMAT, "key": str(key), "spec": spec}
        path = self._path(key)
        with self._lock.held():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists() or _parsed(path) != manifest:
                op.guard()
                write_json(path, manifest, durable=False)  # a damaged one is seen, and made again
        live = self._read(key)
        if live is None:
            raise ProviderError(f"{self._kind} {key} was written and is gone again", detail=str(path))
        return live

    def _read(self, key: Key) -> Live[Json] | None:
        return self._look(key)[0]

    def _look(self, key: Key) -> tuple[Live[Json] | None, Found | None]:
        """What is there, read anew, or None; and what to remember of it when it is whole."""
        path = self._path(key)
        try:
            status = path.stat()  # before it is read: what is written afterwards has another one
        except FileNotFoundError:
            return None, None
        manifest = read_json(path)
        if manifest is None:
            return None, None
        if manifest["format"] != FORMAT:
            raise ProviderError(f"its format is {manifest['format']}, this llmctl knows {FORMAT}")
        spec = manifest["spec"]
        revision, parts = kind_of(self._kind).revision(spec), contents(self._kind, spec)
        files = [self._store.sound(content.digest) for content in parts]
        whole = [(where[0], stamp(where[1])) for where in files if where is not None]
        if len(whole) == len(parts):
            seen = Found(stamp(status), spec, revision, whole)
            return _live(key, seen), seen
        lacking = [content for content, where in zip(parts, files, strict=True) if where is None]
        damaged = "damaged" if any(self._store.has(content.digest) for content in lacking) else "missing"
        detail = f"content {damaged}: {', '.join(content.source or content.digest[:19] for content in lacking)}"
        outputs = {"digests": [content.digest for content in parts]}
        return Live(key, spec, revision, healthy=False, detail=detail, outputs=outputs), None

    def _unmoved(self, key: Key, was: Live[Json]) -> Live[Json] | None:
        """What is there now, or None; raises ``Conflict`` when it is no longer ``was``."""
        try:
            now = self._read(key)
        except (ValueError, KeyError, TypeError) as error:
            raise Conflict(f"{self._kind} {key} cannot be read any more", detail=str(error)) from None
        if now is not None and (now.revision != was.revision or now.state != was.state):
            raise Conflict(f"{self._kind} {key} is no longer what was read", hint="Plan again.")
        return now

    def _needed(self, besides: Path) -> set[str]:
        """All content that another manifest or an endpoint needs. Raises when one cannot be read: then nothing goes."""
        needed: set[str] = set()
        for kind, spec in self._specs(besides):
            needed.update(content.digest for content in contents(kind, spec))
        endpoints, damaged = endpoint_files(self._layout)
        if damaged:
            raise ProviderError("an endpoint cannot be read, so no content is deleted", detail=str([*damaged.values()]))
        for endpoint in endpoints:
            if endpoint.is_process:
                needed.update(Launch.from_spec(endpoint.key, endpoint.spec).digests)
        return needed

    def _specs(self, besides: Path) -> Iterator[tuple[str, Json]]:
        for path in self._layout.manifests.glob("*/*.json"):
            if path == besides:
                continue
            manifest = _parsed(path)
            if manifest is None:
                raise ProviderError("a manifest cannot be read, so no content is deleted", detail=str(path))
            yield path.parent.name, manifest["spec"]

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key}.json"


def _live(key: Key, artifact: Found) -> Live[Json]:
    digests = [digest_of(path) for path, _ in artifact.contents]
    return Live(key, artifact.spec, artifact.revision, detail=f"{len(digests)} stored", outputs={"digests": digests})


def _parsed(path: Path) -> dict[str, Json] | None:
    """A manifest, or None when it is damaged."""
    try:
        manifest = read_json(path)
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) and "spec" in manifest else None
