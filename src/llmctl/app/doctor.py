"""Use case: is this machine ready, and is the project? Every check is a value; none raises, none changes anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path

import llmctl
from llmctl import record, spec
from llmctl.app.checks import Check, Level, Surroundings
from llmctl.app.local import elsewhere, outdated
from llmctl.app.planning import moved_port
from llmctl.app.preflight import why_engine_cannot_load
from llmctl.app.sharing import remotes
from llmctl.app.signing import signing
from llmctl.app.validate import validate
from llmctl.app.workspace import Workspace
from llmctl.core import plugins
from llmctl.core.errors import InvalidInput, LlmctlError, RecordError
from llmctl.core.kinds import BY_NAME
from llmctl.providers.local.layout import Layout, check_owner
from llmctl.providers.local.wire import free_port, holder, is_free
from llmctl.record.git import MINIMUM, NO_REPOSITORY, require_version
from llmctl.spec.messages import NONE_ADDS_IT
from llmctl.spec.source import display_path

PYTHON = (3, 11)
ENGINE = (2026, 10)
_LITTLE = 1_000_000_000  # bytes free: less is worth a word
_SOCKET_PATH = 104  # bytes that macOS allows; Linux allows 108
_CLOCK_S = 60.0  # clocks of machines that share a record may differ by this much


def doctor(file: str | None, environment: str | None) -> tuple[Check, ...]:
    """Check this machine and, where there is an ``llmops.yaml``, the project in all its environments or one."""
    around = _surroundings(file, environment)
    checks: list[tuple[str, Callable[[Surroundings], Check]]] = [
        ("python", _python),
        ("engine", _engine),
        ("plug-ins", _plugins),
        ("git", _git),
        ("identity", _identity),
        ("signing", signing),
        ("repository", _repository),
        ("remote", remotes),
        ("file", lambda around: around.file),
        ("variables", _variables),
        ("permissions", _permissions),
        ("disk", _disk),
        ("sockets", _sockets),
        ("ports", _ports),
        ("gateway", _gateway),
        ("clock", _clock),
        ("locks", _locks),
        ("pulumi", _pulumi),
    ]
    return tuple(_guarded(name, partial(check, around)) for name, check in checks)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except LlmctlError as error:
        return Check(name, Level.FAILED, error.summary, error.diagnostics()[0].hint)
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, Level.FAILED, str(error), "Check the permissions of what is named.")


def _surroundings(file: str | None, environment: str | None) -> Surroundings:
    here = Path.cwd()
    try:
        path = spec.find_file(file, here)
    except InvalidInput as error:
        if file is not None:
            return Surroundings(here, Check("file", Level.FAILED, error.summary, error.findings[0].hint))
        text = "there is no llmops.yaml here, so the machine is checked alone"
        return Surroundings(here, Check("file", Level.OK, text, "`llmctl init` starts a project."))
    try:
        document = spec.load(path)
        names = [spec.environment_name(document, environment)] if environment else list(document.environments)
        workspaces = tuple(Workspace(document, document.environments[name]) for name in names)
        warnings = validate(document, environment)
        resolved = tuple(spec.resolve(document, name) for name in names)
    except LlmctlError as error:
        errors = [finding for finding in error.diagnostics() if finding.is_error]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        where = f"{errors[0].where}: " if errors[0].where else ""
        remedy = ("" if more else errors[0].hint) or "`llmctl validate` shows it in its place."
        found = Check("file", Level.FAILED, f"{where}{errors[0].summary}{more}", remedy)
        foreign = next((f"{d.where}: {d.summary}" for d in errors if NONE_ADDS_IT in d.hint), "")
        return Surroundings(Path(os.path.abspath(path)).parent, found, foreign=foreign)
    if warnings:
        found = Check("file", Level.WARNING, warnings[0].summary, "`llmctl validate` shows where.")
    else:
        found = Check("file", Level.OK, f"{display_path(path)} is valid ({', '.join(names)})")
    return Surroundings(document.root, found, workspaces, resolved)


def _python(_: Surroundings) -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON:
        return Check("python", Level.FAILED, version, "Install Python 3.11 or newer, and llmctl with it.")
    return Check("python", Level.OK, f"{version} ({sys.executable})")


def _engine(around: Surroundings) -> Check:
    """The version of xllamacpp, and whether it can be loaded: it needs libgomp."""
    used = {
        r.spec["engine"] for each in around.resolved for a, r in each.desired.resources.items() if a.kind == "endpoint"
    }
    bad = Level.WARNING if used and "llama.cpp" not in used else Level.FAILED
    try:
        version = metadata.version("xllamacpp")
    except metadata.PackageNotFoundError:
        return Check("engine", bad, "xllamacpp is not installed", "Install llmctl again: pip install llmctl.")
    needed = ".".join(map(str, ENGINE))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < ENGINE:
        return Check("engine", bad, f"xllamacpp {version} is too old", f"pip install 'xllamacpp>={needed}'")
    if reason := why_engine_cannot_load():
        what, _, remedy = reason.partition("; ")
        return Check("engine", bad, f"xllamacpp {version} cannot be loaded: {what}", remedy)
    return Check("engine", Level.OK, f"xllamacpp {version}, and its libraries load")


def _plugins(around: Surroundings) -> Check:
    """The kinds that other packages add. One that fails stops the commands for projects that use any."""
    found, usable = plugins.look()
    names = ", ".join(f"{each.kind} ({each.package} {each.version})" for each in found if not each.problem)
    for each in found:
        if each.problem:
            what = f"{each.kind} ({each.package} {each.version}) cannot be used: {' '.join(each.problem.split())}"
            return Check("plug-ins", Level.WARNING, f"{what}; usable: {names or 'none'}", each.remedy)
    if missing := _missing(around, {*BY_NAME, *usable}):
        remedy = "Install the package that provides it; its entry point is in the group `llmctl.kinds`."
        return Check("plug-ins", Level.FAILED, f"{missing}; installed: {names or 'none'}", remedy)
    return Check("plug-ins", Level.OK, names or "none is installed, and none is needed")


def _missing(around: Surroundings, known: Collection[str]) -> str:
    """What the record or the file needs that no package has; "" for nothing. Of a record that cannot be read
    other checks tell."""
    with suppress(RecordError):
        repository = record.open_repository(around.folder)
        projects = {w.environment.name: w.document.project for w in around.workspaces}
        for name in projects or record.recorded_environments(repository):
            state = record.Reader(repository, name).state()
            address = next((a for a in sorted(state.resources) if a.kind not in known), None)
            if address and projects.get(name) in (None, state.project):
                return (
                    f"no installed package provides the kind {address.kind!r} of {address}, recorded in llmctl/{name}"
                )
    return f"{around.foreign}; no installed package adds such a section" if around.foreign else ""


def _git(around: Surroundings) -> Check:
    require_version(around.git)
    version = around.git.line("version").removeprefix("git version ")
    return Check("git", Level.OK, f"{version}; {'.'.join(map(str, MINIMUM))} or newer is needed")


def _identity(around: Surroundings) -> Check:
    who = around.git.line("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]
    around.git.line("var", "GIT_AUTHOR_IDENT")
    return Check("identity", Level.OK, who)


def _repository(around: Surroundings) -> Check:
    try:
        repository = record.open_repository(around.folder)
    except RecordError as error:
        if error.summary == NO_REPOSITORY and not around.workspaces:
            return Check("repository", Level.OK, "this folder is in none; a project needs one")
        raise
    for workspace in around.workspaces:
        repository.require_not_checked_out(workspace.environment.name)
    git = repository.git
    branch = git.line("symbolic-ref", "--quiet", "--short", "HEAD", accept=(0, 1))
    said = [str(repository.work_tree), f"on branch {branch}" if branch else "HEAD is detached, which is no harm"]
    if repository.algorithm != "sha1":
        said.append(f"{repository.algorithm} objects")
    for name in ("index.lock", "HEAD.lock"):
        path = Path(git.line("rev-parse", "--path-format=absolute", "--git-path", name))
        if path.exists():
            remedy = f"llmctl works all the same. When no git runs: rm {path}"
            return Check("repository", Level.WARNING, f"git was interrupted and left {name}", remedy)
    if git.line("rev-parse", "--is-shallow-repository") == "true":
        remedy = "`git fetch --unshallow` brings the whole history."
        return Check("repository", Level.WARNING, "a shallow clone: old entries of the record may be missing", remedy)
    return Check("repository", Level.OK, ", ".join(said))


def _variables(around: Surroundings) -> Check:
    """The variables that hold secrets. One that stands for other text is missed by the check of the file."""
    users: dict[str, list[str]] = {}
    for resolved in around.resolved:
        for address, reference in resolved.secrets:
            users.setdefault(reference.env, []).append(str(address))
    unset = sorted(name for name in users if not os.environ.get(name))
    if unset:
        text = f"not set: {', '.join(f'{name} (for {users[name][0]})' for name in unset)}"
        return Check("variables", Level.FAILED, text, f"export {unset[0]}=…")
    text = f"set: {', '.join(sorted(users))}" if users else "no secret is needed"
    return Check("variables", Level.OK, text)


def _permissions(around: Surroundings) -> Check:
    """Nameless files are made and vanish at once: a read-only file system looks writable otherwise."""
    folders = [around.folder, *(Layout.of(w.root, w.environment.name).state for w in around.workspaces)]
    folders += [w.repository.common_dir / "objects" for w in around.recorded]
    for folder in folders:
        try:
            if folder.exists():
                tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            remedy = "Make it writable for you, or work in a copy of the project."
            return Check("permissions", Level.FAILED, f"{folder} cannot be written: {reason}", remedy)
    return Check("permissions", Level.OK, f"{around.folder} can be written")


def _disk(around: Surroundings) -> Check:
    free = shutil.disk_usage(around.folder).free
    need = sum(_to_store(around))
    text = f"{_size(free)} free under {around.folder}"
    if free < need:
        found = f"{text}; storing the project's files takes {_size(need)}"
        return Check("disk", Level.FAILED, found, "Make room: an apply copies them to .llmctl.")
    if free - need < _LITTLE:
        return Check("disk", Level.WARNING, text, "Make room: logs, the record and new models need some.")
    return Check("disk", Level.OK, text)


def _to_store(around: Surroundings) -> Iterator[int]:
    """The sizes of all files that an apply would copy, in bytes."""
    for workspace, resolved in zip(around.workspaces, around.resolved, strict=True):
        stored = workspace.target.artifacts.list()
        files: dict[str, int] = {}
        for resource in resolved.desired.resources.values():
            for each in resource.spec.get("files", ()):
                files[each["digest"]] = each["bytes"]
            if "digest" in resource.spec:
                files[resource.spec["digest"]] = resource.spec["bytes"]
        yield from (size for digest, size in files.items() if digest not in stored)


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _sockets(around: Surroundings) -> Check:
    """The path of a Unix socket is short, and the folder of the sockets must be ours."""
    names = [(w.root, w.environment.name) for w in around.workspaces] or [(around.folder, "dev")]
    folders = [Layout.of(root, name).runtime for root, name in names]
    for folder in folders:
        length = len(os.fsencode(folder / "supervisor.sock.1234567"))
        if length > _SOCKET_PATH:
            remedy = "Set XDG_RUNTIME_DIR to a folder of yours with a short path."
            return Check("sockets", Level.FAILED, f"{folder} is too long: {length} of {_SOCKET_PATH} bytes", remedy)
        if folder.is_dir():
            check_owner(folder)
        elif not os.access(folder.parent, os.W_OK | os.X_OK):
            remedy = "Set XDG_RUNTIME_DIR to a folder of yours with a short path."
            return Check("sockets", Level.FAILED, f"{folder.parent} cannot be written", remedy)
    return Check("sockets", Level.OK, f"in {folders[0].parent}, with paths short enough")


def _ports(around: Surroundings) -> Check:
    said = []
    for workspace in around.workspaces:
        port = workspace.environment.gateway_port
        if not port:
            continue
        if workspace.target.port_is_taken():
            text = f"port {port} of environment {workspace.environment.name} is taken by {holder(port)}"
            return Check("ports", Level.FAILED, text, "End that process, or choose another `gateway.port`.")
        said.append(f"{port} {'is free' if is_free(port) else 'serves'} ({workspace.environment.name})")
    free_port()
    return Check("ports", Level.OK, ", ".join(said) or "there are free ones on 127.0.0.1")


def _gateway(around: Surroundings) -> Check:
    """What a plan warns of, where a gateway runs, and what other work trees of the repository run."""
    said, repositories = [], around.recorded
    for workspace in around.workspaces:
        reading = workspace.target.gateway.read()
        if reading.unreadable:
            remedy = "`llmctl logs` may say why; `llmctl local stop` and then `llmctl local start` renew it."
            return Check("gateway", Level.WARNING, f"{workspace.environment.name}: {reading.unreadable}", remedy)
        notes = [*outdated(reading), *moved_port(workspace, reading)]
        notes += elsewhere(workspace) if workspace in repositories else ()
        if notes:
            return Check("gateway", Level.WARNING, notes[0].summary, notes[0].hint)
        if workspace.target.exists():
            said.append(f"{workspace.environment.name} {'serves' if reading.running else 'is stopped'}")
    return Check("gateway", Level.OK, ", ".join(said) or "nothing is applied here yet")


def _clock(around: Surroundings) -> Check:
    """The lock's lease goes by the clock, and so does what an auditor reads."""
    now = time.time()
    remedy = "Set the clock (`timedatectl set-ntp true`); leases of locks go by it."
    for workspace in around.recorded:
        for entry in workspace.reader.entries(limit=1):
            ahead = datetime.fromisoformat(entry.time).timestamp() - now
            if ahead > _CLOCK_S:
                text = (
                    f"the newest entry of llmctl/{workspace.environment.name} is {ahead / 60:.0f} minutes ahead of it"
                )
                return Check("clock", Level.FAILED, text, remedy)
    if Path(llmctl.__file__).stat().st_mtime - now > 24 * 3600:
        return Check("clock", Level.FAILED, "it stands before the day on which llmctl was installed", remedy)
    return Check("clock", Level.OK, datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC"))


def _locks(around: Surroundings) -> Check:
    """Locks of llmctl and of git, and an apply that never ended."""
    for workspace in around.recorded:
        name = workspace.environment.name
        left = [*workspace.repository.common_dir.glob(f"refs/*/llmctl/{name}.lock")]
        left += workspace.repository.common_dir.glob(f"refs/llmctl/{name}/**/*.lock")
        if left:
            text = f"git was interrupted and left {left[0]}"
            return Check("locks", Level.FAILED, text, f"When no git runs: rm {left[0]}")
        lock = record.Lock(workspace.repository, name).peek()
        if lock is not None and not lock.abandoned:
            remedy = f"Wait for it; if it hangs: `llmctl unlock --force -e {name}`."
            return Check("locks", Level.WARNING, f"{name} is locked by {lock.describe()}", remedy)
        if found := record.find_interrupted(workspace.repository, name):
            remedy = "The next `llmctl apply` records what it did, and goes on."
            return Check("locks", Level.WARNING, found.describe(), remedy)
        if lock is not None:
            remedy = "The next command takes it over."
            return Check("locks", Level.WARNING, f"{name} has a lock that was left by {lock.describe()}", remedy)
    return Check("locks", Level.OK, "none is held, and no apply was interrupted")


def _pulumi(_: Surroundings) -> Check:
    path = shutil.which("pulumi")
    return Check("pulumi", Level.OK, path or "not found; only the target aws, not served yet, needs it")
