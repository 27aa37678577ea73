"""Where the local target keeps things, and how files there are written so that a crash never halves one.

    .llmctl/<env>/
        artifacts/            content by digest
        manifests/<kind>/     one file per dataset, model and prompt revision
        endpoints/            one file per endpoint revision: the truth that programs are rendered from
        gateway/              secrets.json (0600), config.json (the gateway's own), listen.json
        logs/
        kinds/<kind>/         what the kind of a plug-in keeps
        supervisord.conf      rendered; supervisord.pid; runtime.json; lock
    .llmctl/.cache/           what is remembered to be fast, of all environments (``core/cache.py``)

Sockets lie in a short runtime folder outside, because the path of a Unix socket is limited to about
107 bytes. Its name is a digest of the state folder, so that a copied project has another one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.cache import FOLDER, CacheFile
from llmctl.core.digests import Json, pretty_json
from llmctl.core.errors import ProviderError
from llmctl.core.files import sweep, write_atomic
from llmctl.core.kinds import KINDS
from llmctl.core.resources import Key

_OF_ALL = {".gitignore", FOLDER}  # what the environments share, and nobody needs without one
#: Room for "/supervisor.sock.1234567" below the 104 bytes that macOS allows.
_MAX_RUNTIME_PATH = 76
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/_.+-]+\Z")  # goes into supervisord.conf as it is


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one environment. Making one creates nothing."""

    state: Path  # absolute, symlinks resolved

    @classmethod
    def of(cls, root: Path, environment: str) -> Layout:
        return cls(Path(os.path.realpath(root)) / ".llmctl" / environment)

    @property
    def artifacts(self) -> Path:
        return self.state / "artifacts"

    @property
    def manifests(self) -> Path:
        return self.state / "manifests"

    @property
    def endpoints(self) -> Path:
        return self.state / "endpoints"

    @property
    def gateway(self) -> Path:
        return self.state / "gateway"

    @property
    def secrets(self) -> Path:
        return self.gateway / "secrets.json"

    @property
    def listen(self) -> Path:
        return self.gateway / "listen.json"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def kinds(self) -> Path:
        return self.state / "kinds"

    @property
    def conf(self) -> Path:
        return self.state / "supervisord.conf"

    @property
    def pidfile(self) -> Path:
        return self.state / "supervisord.pid"

    @property
    def runtime_note(self) -> Path:
        return self.state / "runtime.json"

    @property
    def lock(self) -> Path:
        return self.state / "lock"

    def found(self, kind: str) -> CacheFile:
        """What the last look at the artifacts of a kind found."""
        return CacheFile(self.state.parent.parent, f"found.{self.state.name}.{kind}.json")

    def endpoint_file(self, key: Key) -> Path:
        return self.endpoints / f"{key}.json"

    def log_file(self, program: str) -> Path:
        return self.logs / f"{program}.log"

    @property
    def runtime(self) -> Path:
        """The folder of the sockets: as noted when it was made, or else where it would be made now.

        The note keeps a shell without ``XDG_RUNTIME_DIR`` from missing what one with it started. A note
        that came along in a copy of the project names another state folder and does not count.
        """
        state, folder = self._noted_runtime()
        return folder if state == self.state else self.fresh_runtime()

    def _noted_runtime(self) -> tuple[Path, Path]:
        """For which state folder a runtime folder was made, and where. A note that is damaged is as good as none."""
        try:
            note = read_json(self.runtime_note, {})
            return Path(note["state"]), Path(note["folder"])
        except (ValueError, KeyError, TypeError):
            return Path(), Path()

    @property
    def is_copy(self) -> bool:
        """Whether this state folder came along in a copy of a project that still has its own: then it says
        nothing about this one."""
        state, _ = self._noted_runtime()
        return state not in (Path(), self.state) and Layout(state)._noted_runtime()[0] == state

    def fresh_runtime(self) -> Path:
        """Where a runtime folder would be made now."""
        name = hashlib.sha256(str(self.state).encode()).hexdigest()[:16]
        base = os.environ.get("XDG_RUNTIME_DIR", "")
        path = Path(base) / f"llmctl-{name}"
        usable = base.startswith("/") and _PLAIN_PATH.match(base) and len(str(path)) <= _MAX_RUNTIME_PATH
        if usable and os.path.isdir(base) and os.access(base, os.W_OK):
            return path
        return Path(f"/tmp/llmctl-{os.geteuid()}-{name}")

    @property
    def supervisor_socket(self) -> Path:
        return self.runtime / "supervisor.sock"

    @property
    def admin_socket(self) -> Path:
        return self.runtime / "admin.sock"

    def make(self) -> None:
        """Create the state folder, readable by its owner alone and kept out of git."""
        for folder in (self.artifacts, self.manifests, self.endpoints, self.gateway, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state.chmod(0o700)
        ignore = self.state.parent / ".gitignore"
        if not ignore.exists():
            write_atomic(ignore, b"*\n", 0o644)

    def sweep(self) -> None:
        """Remove what a crash left half written."""
        own = (self.state, self.artifacts, self.endpoints, self.gateway, *self.manifests.glob("*"))
        for folder in (*own, self.state.parent, self.state.parent / FOLDER):
            sweep(folder)

    def make_runtime(self) -> None:
        """Create the runtime folder and note it. Raises ``ProviderError`` when it belongs to somebody else."""
        folder = self.runtime
        if not folder.is_dir():
            folder = self.fresh_runtime()
        folder.mkdir(mode=0o700, exist_ok=True)
        check_owner(folder)
        folder.chmod(0o700)
        note = {"state": str(self.state), "folder": str(folder)}
        self._remove_runtime_of_old_place()
        if self._noted_runtime() != (self.state, folder):
            write_json(self.runtime_note, note)

    def _remove_runtime_of_old_place(self) -> None:
        """When this folder was moved here, its sockets' old folder is of no use to anybody."""
        state, folder = self._noted_runtime()
        if state != self.state and not state.exists() and folder.name.startswith("llmctl-") and folder.is_dir():
            check_owner(folder)
            shutil.rmtree(folder)

    def remove(self) -> None:
        """Delete everything: the runtime folder, the state folder, and ``.llmctl`` once it is empty.

        A ``.llmctl`` that is a link was made by the user, and stays.
        """
        runtime = self.runtime
        if runtime.is_dir():
            check_owner(runtime)
            shutil.rmtree(runtime)
        self._remove_runtime_of_old_place()
        self.sweep()
        if self.state.is_dir():
            shutil.rmtree(self.state)
        for kind in KINDS:
            self.found(kind.name).forget()
        parent = self.state.parent
        if parent.is_dir() and not parent.is_symlink() and {entry.name for entry in parent.iterdir()} <= _OF_ALL:
            shutil.rmtree(parent)


def check_owner(folder: Path) -> None:
    """Raise unless ``folder`` is a real folder of this user: /tmp is open to everybody."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ProviderError(
            f"{folder} belongs to somebody else",
            detail="The sockets of the local target would lie in it.",
            hint="Have it removed, or set XDG_RUNTIME_DIR to a folder of your own.",
        )


def write_json(path: Path, value: Json, *, durable: bool = True) -> None:
    write_atomic(path, pretty_json(value).encode(), durable=durable)


def read_json(path: Path, default: Json = None) -> Json:
    """The JSON in a file; ``default`` when there is no such file. Raises ``ValueError`` when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return default


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn errors of the file system into a ``ProviderError`` that says what was being done."""
    try:
        yield
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise ProviderError(
            f"cannot {doing}: {error.strerror or error}{where}",
            hint="Check the folder's permissions and the free space on its disk.",
        ) from error
