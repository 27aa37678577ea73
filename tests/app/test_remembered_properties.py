"""Whatever happens to a project between two commands, what is remembered is what a fresh look finds."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from llmctl import spec
from llmctl.app import remembered
from llmctl.app.validate import checked
from llmctl.app.workspace import open_workspace
from llmctl.core import plugins
from llmctl.core.errors import LlmctlError
from tests.spec.project import FULL, make_project
from tests.spec.test_fuzz import LINES, PIECES

#: An hour ago, as the time of change of what counts as settled.
OLD = time.time() - 3600

TEXT = (
    FULL.replace("limitations: many", "limitations: '${env:LIMITS}'")
    .replace("include: [", "include: [parts/prompts.yaml, ")
    .replace("until: 2999-01-31", "until: 2031-05-05")
    .replace("card: {intended_use: tests,", "card: {intended_use: '${file:texts/tone.txt}',")
)
OTHERS = [
    TEXT,
    "# one line more\n" + TEXT,
    TEXT.replace("  prod: {", "  # prod: {"),
    TEXT.replace("Be ${file:texts/tone.txt}.", "Be ${env:TONE}"),
    TEXT.replace("data/eval.jsonl", "data/../data/eval.jsonl"),
    TEXT.replace("replicas: {min: 2, max: 2}", "replicas: {min: 1, max: 1}"),
    TEXT.replace("hyperparameters: {rank: 8}", "hyperparameters: {rank: 8.0, deep: [[[{a: 1e300}]], 0x10, -0.0, é]}"),
    TEXT.replace("require: resource", "require: 'resource").replace('"Apache-2.0"]', '"MIT"]\''),
    TEXT.replace("resource: model.tiny, until", "resource: model.gone, until"),
    TEXT.replace("exact_match: {min: 0.95}", "exact_match: {min: 0.9999}"),
    TEXT.replace("from: route.help", "from: route.assist"),
]
#: Files whose text may become another of the same length, and what may stand there.
SWAPS = {
    "texts/tone.txt": ["polite\n", "polise\n", "${env:A"],
    "schemas/answer.json": ['{"type": "object", "required": ["answer"]}', '{"type": "objekt", "required": ["answer"]}'],
    "parts/prompts.yaml": [
        "prompts:\n  short:\n    messages: [{role: system, content: Be brief.}]\n",
        "prompts:\n  short:\n    messages: [{role: system, content: Be broad.}]\n",
        "prompts:\n  shirt:\n    messages: [{role: system, content: Be brief.}]\n",
    ],
}
FILES = [*SWAPS, "llmops.yaml", "data/eval.jsonl", "data/train.jsonl", "models/tiny.gguf", "parts/more/routes.yaml"]
FOLDERS = ["data", "parts", "parts/more", "texts", "models"]


class Clock(datetime):
    """Today, some days later."""

    days = 0

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Clock:
        return super().now(tz) + timedelta(days=cls.days)


@dataclass
class Project:
    """A folder, and how the next command looks at it."""

    base: Path
    root: Path
    environ: pytest.MonkeyPatch
    explicit: str | None = None
    environment: str | None = "dev"
    hits: int = 0
    _names: Iterator[int] = field(default_factory=count)

    def new(self, name: str) -> Path:
        return self.base / f"{name}{next(self._names)}"

    def settle(self) -> None:
        """As if nothing had changed for a while; the clock of files ticks only every few milliseconds."""
        for path in self.root.rglob("*"):
            if path.is_file() and path.stat().st_mtime > OLD + 60:
                os.utime(path, (OLD, OLD))
        time.sleep(0.012)

    def check(self) -> None:
        """Two commands find what a fresh look finds, each with its own process."""
        fresh = self._outcome(self._fresh)
        for _ in range(2):
            plugins.installed.cache_clear()
            assert self._outcome(self._remembered) == fresh

    def is_remembered(self) -> bool:
        return remembered.recall(spec.find_file(self.explicit, Path.cwd()), self.environment) is not None

    def _fresh(self) -> tuple[spec.Document, spec.Resolved]:
        document = spec.load(spec.find_file(self.explicit, Path.cwd()))
        return document, checked(document, spec.environment_name(document, self.environment))

    def _remembered(self) -> tuple[spec.Document, spec.Resolved]:
        workspace = open_workspace(self.explicit, self.environment)
        self.hits += workspace._known is not None
        assert workspace.environment == workspace.document.environments[workspace.resolved.desired.environment.name]
        return workspace.document, workspace.resolved

    def _outcome(self, look: Callable[[], tuple[spec.Document, spec.Resolved]]) -> str:
        """All of it as text: places, types, and the order of maps count too."""
        plugins.installed.cache_clear()
        try:
            document, resolved = look()
        except LlmctlError as error:
            return repr(error.diagnostics())
        about = (document.project, document.owner, document.environments, document.path, document.root, document.files)
        return repr((about, resolved))


Step = Callable[[Project], None]


def _write(root: Path, name: str, data: bytes, how: str) -> None:
    """Change a file: in its place, by another that takes its place, and with its size and time as they were."""
    path = root / name
    if path.is_dir() or not path.parent.is_dir():
        return
    was = path.stat() if path.exists() else None
    if how == "replace":
        (path.parent / ".new").write_bytes(data)
        (path.parent / ".new").replace(path)
    else:
        path.write_bytes(data)
    if was is not None and how != "fresh":
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


HOWS = st.sampled_from(["in place", "replace", "fresh"])


def _write_main(text: str, how: str) -> Step:
    return lambda project: _write(project.root, "llmops.yaml", text.encode(), how)


def _swap(name: str, which: int, how: str) -> Step:
    texts = SWAPS[name]
    return lambda project: _write(project.root, name, texts[which % len(texts)].encode(), how)


def _break_line(index: int, piece: str) -> Step:
    lines = TEXT.splitlines()[: len(LINES)]
    key, _, _ = lines[index].partition(": ")
    lines[index] = f"{key}: {piece}"
    return _write_main("\n".join(lines), "in place")


def _set(name: str, value: str | None) -> Step:
    if value is None:
        return lambda project: project.environ.delenv(name, raising=False)
    return lambda project: project.environ.setenv(name, value)


def _go(where: str, explicit: str | None) -> Step:
    """Run the next commands in another folder, with or without ``-f``."""

    def go(project: Project) -> None:
        folder = project.base if where == "outside" else project.root / where
        if folder.is_dir():
            os.chdir(folder)
            outside = where == "outside" and explicit is None
            project.explicit = (
                os.path.relpath(project.root / (explicit or "llmops.yaml")) if outside or explicit else None
            )

    return go


def _choose(environment: str | None) -> Step:
    def choose(project: Project) -> None:
        project.environment = environment

    return choose


def _link_file(name: str, inside: bool, kind: str) -> Step:
    """A file becomes a link to itself elsewhere, or gets a second name."""

    def link(project: Project) -> None:
        path, to = project.root / name, project.root / "kept" if inside else project.base
        if not path.is_file() or path.is_symlink():
            return
        to.mkdir(exist_ok=True)
        other = to / project.new("file").name
        if kind == "hard":
            os.link(path, other)
            path.unlink()
            os.link(other, path)
        else:
            path.rename(other)
            path.symlink_to(other if inside else os.path.relpath(other, path.parent))

    return link


def _move_folder(name: str, inside: bool) -> Step:
    """A folder becomes a link to where it went; one that is a link gets another target with the same files."""

    def move(project: Project) -> None:
        folder = project.root / name
        if not folder.is_dir():
            return
        to = project.root / project.new("moved").name if inside else project.new("away")
        if folder.is_symlink():
            here = folder.resolve()
            folder.unlink()
        else:
            here = folder
        here.rename(to)
        folder.symlink_to(to)

    return move


def _put_back(project: Project) -> None:
    """A project with all its files again; what is remembered stays."""
    for name in FOLDERS:
        folder = project.root / name
        if folder.is_symlink():
            folder.unlink()
    for name in FILES:
        path = project.root / name
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    make_project(project.root, TEXT)


def _drop(name: str, how: str) -> Step:
    def drop(project: Project) -> None:
        path = project.root / name
        if not path.is_file():
            return
        path.unlink()
        if how == "folder":
            path.mkdir()

    return drop


def _add_part(project: Project) -> None:
    name = project.new("part").name
    _write(project.root, f"parts/more/{name}.yaml", f"prompts:\n  {name}: {{messages: []}}\n".encode(), "fresh")


def _touch(name: str) -> Step:
    def touch(project: Project) -> None:
        if (project.root / name).is_file():
            (project.root / name).touch()

    return touch


def _damage(how: str) -> Step:
    """What is remembered is gone, cut, or that of another environment."""

    def damage(project: Project) -> None:
        cache = project.root / ".llmctl" / ".cache"
        kept = sorted(cache.glob("resolved*.json")) if cache.is_dir() else []
        if how == "gone":
            shutil.rmtree(cache, ignore_errors=True)
        for path in kept if how != "gone" else []:
            data = path.read_bytes()
            for other in ("dev", "prod"):
                (cache / f"resolved.{other}.json").write_bytes(data if how == "mixed" else data[:-9])

    return damage


def _pass_days(days: int) -> Step:
    def later(_: Project) -> None:
        Clock.days = days

    return later


def _copy(keep_old: bool) -> Step:
    """The folder is copied with all that is remembered and all times, and the next command runs in the copy."""

    def copy(project: Project) -> None:
        copied = project.new("copy")
        shutil.copytree(project.root, copied, symlinks=True)
        if keep_old:
            project.root = copied
        else:
            os.chdir(project.base)
            project.root.rename(project.new("old"))
            copied.rename(project.root)
        os.chdir(project.root)
        project.explicit = None

    return copy


def _second_file(text: str) -> Step:
    return lambda project: _write(project.root, "other.yaml", text.encode(), "fresh")


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(_write_main, st.sampled_from(OTHERS), HOWS),
    st.builds(_swap, st.sampled_from(sorted(SWAPS)), st.integers(0, 2), HOWS),
    st.builds(_break_line, st.integers(0, len(LINES) - 1), PIECES),
    st.builds(
        _set, st.sampled_from(["LIMITS", "TONE", "OTHER"]), st.sampled_from(["few", "ma\ny", "\udcff", "", None])
    ),
    st.builds(
        _go,
        st.sampled_from([".", "data", "parts/more", "outside"]),
        st.sampled_from([None, "llmops.yaml", "other.yaml"]),
    ),
    st.builds(_choose, st.sampled_from(["dev", "prod", "stage", "", None])),
    st.builds(_link_file, st.sampled_from(FILES), st.booleans(), st.sampled_from(["hard", "soft"])),
    st.builds(_move_folder, st.sampled_from(FOLDERS), st.booleans()),
    st.builds(_drop, st.sampled_from(FILES), st.sampled_from(["gone", "folder"])),
    st.builds(_touch, st.sampled_from(FILES)),
    st.builds(_damage, st.sampled_from(["gone", "cut", "mixed"])),
    st.builds(_pass_days, st.sampled_from([0, 1, 4000])),
    st.builds(_copy, st.booleans()),
    st.builds(_second_file, st.sampled_from(OTHERS)),
    st.just(_add_part),
    st.just(_put_back),
)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Files count as settled by their time of change, which can be set; the time of their inodes cannot."""
    monkeypatch.setattr("llmctl.spec.files.is_settled", lambda stamp: stamp[1] < time.time_ns() - 2_000_000_000)
    monkeypatch.setattr("llmctl.spec.rules.datetime", Clock)
    monkeypatch.setattr("llmctl.app.remembered.datetime", Clock)
    here = os.getcwd()
    yield monkeypatch
    os.chdir(here)
    plugins.installed.cache_clear()


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
@given(steps=st.lists(st.tuples(STEPS, st.booleans()), min_size=3, max_size=8))
@example(steps=[(_go("data", None), True), (_go(".", None), True), (_go("outside", "llmops.yaml"), True)])
@example(steps=[(_write_main(OTHERS[2], "in place"), True), (_choose("prod"), True), (_choose(None), True)])
@example(steps=[(_move_folder("data", inside=True), True), (_move_folder("data", inside=False), True)])
@example(steps=[(_swap("texts/tone.txt", 1, "replace"), True), (_swap("texts/tone.txt", 2, "in place"), False)])
def test_what_is_remembered_is_what_a_fresh_look_finds(
    tmp_path: Path, world: pytest.MonkeyPatch, steps: list[tuple[Step, bool]]
) -> None:
    base = tmp_path / f"{time.time_ns()}"
    (base / "project" / ".llmctl").mkdir(parents=True)
    project = Project(base, base / "project", world)
    make_project(project.root, TEXT)
    for name, value in {"LIMITS": "few", "TONE": "kind", "OPENAI_API_KEY": "canary"}.items():
        world.setenv(name, value)
    Clock.days = 0
    os.chdir(project.root)
    project.settle()
    project.check()
    assert project.is_remembered()
    for step, settled in steps:
        step(project)
        if settled:
            project.settle()
        project.check()
    event(f"remembered {project.hits} times")
    os.chdir(tmp_path)
    shutil.rmtree(base)
