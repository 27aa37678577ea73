"""What a file resolved to is kept between commands: the same answers without reading, and never a stale one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from llmctl import spec
from llmctl.app import remembered
from llmctl.app.validate import checked
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core import plugins
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.spec import datasets
from llmctl.spec.project import digest_of
from tests.spec.project import FULL, make_project

CANARY = "canary-6d1f"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that uses all that a file can, an hour old, of which something was applied."""
    text = FULL.replace("limitations: many", "limitations: '${env:LIMITS}'")
    made = make_project(tmp_path, text + "\n# " + "x" * 80)
    (tmp_path / ".llmctl").mkdir()
    monkeypatch.setenv("LIMITS", "few")
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.chdir(tmp_path)
    plugins.installed.cache_clear()  # as in a new process
    _age(tmp_path)
    # The time of the inode cannot be set: files count as fresh for two seconds, whatever their other times are.
    monkeypatch.setattr("llmctl.spec.files.is_settled", lambda stamp: stamp[1] < time.time_ns() - 2_000_000_000)
    return made


def _age(folder: Path) -> None:
    for path in (p for p in folder.rglob("*") if p.is_file()):
        os.utime(path, (time.time() - 3600, time.time() - 3600))


def _open(file: Path, environment: str = "dev") -> Workspace:
    return open_workspace(str(file), environment)


def _plan_once(file: Path) -> spec.Resolved:
    found = _open(file).resolved
    assert _is_kept(file)
    return found


def _is_kept(file: Path, environment: str = "dev") -> bool:
    return remembered.recall(file, environment) is not None


def _fresh(file: Path) -> spec.Resolved:
    return checked(spec.load(file), "dev")


def test_the_whole_of_it_comes_back_as_it_was_without_reading(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _plan_once(file)
    document = spec.load(file)

    def refuse(*_: object) -> None:
        raise AssertionError("the file was read again")

    with monkeypatch.context() as patched:
        patched.setattr("llmctl.spec.document.load", refuse)
        again = _open(file)
        assert again.resolved == first
        assert {a: r.where for a, r in again.resolved.desired.resources.items()} == {
            a: r.where for a, r in first.desired.resources.items()
        }
        assert replace(again.document, warnings=document.warnings) == document
    port = ("environments", "prod", "promote_from")
    assert spec.place(again.document, port) == spec.place(document, port) is not None


def test_what_is_kept_is_what_a_fresh_look_finds_for_each_environment(file: Path) -> None:
    for environment in ("dev", "prod", "dev"):
        assert _open(file, environment).resolved == checked(spec.load(file), environment)
        assert _is_kept(file, environment)
    assert open_workspace(str(file), "prod").environment.promote_from == "dev"


def test_a_file_with_one_environment_needs_no_name(tmp_path: Path, file: Path) -> None:
    file.write_text(file.read_text().replace("  prod: {", "  # prod: {"))
    _age(tmp_path)
    first = open_workspace(None, None).resolved
    assert remembered.recall(file, None) is not None
    assert open_workspace(None, None).resolved == open_workspace(None, "dev").resolved == first
    with pytest.raises(InvalidInput, match="there is no environment 'prod'"):
        open_workspace(None, "prod")


@pytest.mark.parametrize("environment", [None, "../dev", "stage"])
def test_an_environment_that_is_not_there_is_told_as_ever(file: Path, environment: str | None) -> None:
    _plan_once(file)
    with pytest.raises(InvalidInput):
        open_workspace(str(file), environment)


def _edit(path: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new, 1))

    return change


CHANGES: dict[str, Callable[[Path], object]] = {
    "a word of the main file": _edit("llmops.yaml", "${file:texts/tone.txt}", "very ${file:texts/tone.txt}"),
    "a comment that moves every line": _edit("llmops.yaml", "apiVersion", "# more\napiVersion"),
    "an included file": lambda root: _append(root / "parts/prompts.yaml", "\n# more\n"),
    "a text": lambda root: (root / "texts/tone.txt").write_text("short and plain"),
    "a dataset": lambda root: _append(root / "data/eval.jsonl", '{"question": "new", "answer": "A9.", "id": 9}\n'),
    "a model's weights": lambda root: _append(root / "models/tiny.gguf", "\0"),
    "one file more for a glob": lambda root: _new(root / "parts/more/zz.yaml", "prompts: {}\n"),
    "one file less for a glob": lambda root: sorted((root / "parts/more").glob("*.yaml"))[0].unlink(),
    "a file that became a link": lambda root: _link(root / "texts/tone.txt"),
    "a file that is gone": lambda root: (root / "texts/tone.txt").unlink(),
    "a schema of a gate": lambda root: _append(root / "schemas/answer.json", " "),
    "a folder that became a link": lambda root: _moved_away(root / "data", root / "rows"),
    "a folder that became a link out of the project": lambda root: _moved_away(root / "data", root.parent / "rows"),
    "texts that went where none are read": lambda root: _moved_away(root / "texts", root / ".llmctl" / "texts"),
    "a glob's match that became a folder": lambda root: _to_folder(root / "parts/more/routes.yaml"),
}


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def _new(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, (1, 1))


def _moved_away(folder: Path, to: Path) -> None:
    """The files in it stay what they are, with all their times."""
    folder.rename(to)
    folder.symlink_to(to)


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path) -> None:
    other = path.with_name("other.txt")
    other.write_text(path.read_text())
    os.utime(other, (path.stat().st_mtime, path.stat().st_mtime))
    path.unlink()
    path.symlink_to(other.name)


def _outcome(look: Callable[[], spec.Resolved]) -> object:
    try:
        return look()
    except InvalidInput as error:
        return error.findings


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_change_is_seen(file: Path, change: str) -> None:
    _plan_once(file)
    CHANGES[change](file.parent)
    assert not _is_kept(file)
    assert _outcome(lambda: _open(file).resolved) == _outcome(lambda: _fresh(file))


@pytest.mark.parametrize("change", ["a word of the main file", "a text", "an included file"])
def test_a_change_is_seen_though_size_and_times_were_put_back(file: Path, change: str) -> None:
    _plan_once(file)
    before = {path: path.stat() for path in file.parent.rglob("*") if path.is_file()}
    CHANGES[change](file.parent)
    for path, was in before.items():
        os.truncate(path, was.st_size)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert not _is_kept(file)
    assert _outcome(lambda: _open(file).resolved) == _outcome(lambda: _fresh(file))


@pytest.mark.parametrize("value", ["many", "", None])
def test_a_variable_that_changed_is_seen(file: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    _plan_once(file)
    if value is None:
        monkeypatch.delenv("LIMITS")
    else:
        monkeypatch.setenv("LIMITS", value)
    assert not _is_kept(file)
    assert _outcome(lambda: _open(file).resolved) == _outcome(lambda: _fresh(file))


def test_a_variable_that_the_file_does_not_read_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plan_once(file)
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    assert _is_kept(file)


def test_places_are_named_from_where_the_command_runs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plan_once(file)
    monkeypatch.chdir(file.parent / "data")
    assert not _is_kept(file)
    where = open_workspace(None, "dev").resolved.desired.resources.popitem()[1].where  # type: ignore[attr-defined]
    assert where.file == str(file)


def test_another_day_or_another_llmctl_reads_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plan_once(file)
    for name in ("_llmctl_itself", "_today"):
        with monkeypatch.context() as patched:
            patched.setattr(remembered, name, lambda: "other")
            assert not _is_kept(file)
    assert _is_kept(file)


def test_an_edited_source_of_llmctl_counts_as_another_one(tmp_path: Path) -> None:
    """As after an upgrade, or while it is worked on."""
    home = tmp_path / "llmctl"
    subprocess.run(["cp", "-r", str(Path(remembered.__file__).parents[1]), str(home)], check=True)
    program = "from llmctl.app import remembered; print(remembered._llmctl_itself())"

    def said() -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    first = said()
    assert said() == first
    _append(home / "spec" / "prompts.py", "\n")
    assert said() != first


def _signed(content: bytes) -> bytes:
    return sha256(content).hexdigest().encode() + b"\n" + content


def _without_inputs(head: bytes) -> bytes:
    """As if nothing had to be looked at to believe it."""
    return json.dumps({**json.loads(head), "inputs": [{}, {}, [], digest_of(())]}).encode()


DAMAGES = ["empty", "cut", "garbage", "one byte", "one byte of the head", "no head"]
FORGERIES = ["another form", "inputs of another form", "no main file", "nests deep"]


@pytest.mark.parametrize("damage", [*DAMAGES, *FORGERIES])
def test_a_damaged_memory_is_as_good_as_none(file: Path, damage: str) -> None:
    first = _plan_once(file)
    kept = file.parent / ".llmctl" / ".cache" / "resolved.dev.json"
    data = kept.read_bytes()
    digest, head, body = data.split(b"\n")
    kept.write_bytes(
        {
            "empty": b"",
            "cut": data[:-40],
            "garbage": b"\xff\0{",
            "one byte": b"\n".join([digest, head, body.replace(b"Apache", b"apache")]),
            "one byte of the head": b"\n".join([digest, head.replace(b"parts/mor", b"parts/m?r"), body]),
            "another form": _signed(b'{"basis": [], "inputs": 7}\n[]'),
            "inputs of another form": _signed(json.dumps({**json.loads(head), "inputs": [[], [], [], 7]}).encode()),
            "no main file": _signed(_without_inputs(head) + b"\n" + body),
            "nests deep": _signed(b"[" * 100_000),
            "no head": digest + b"\n" + body,
        }[damage]
    )
    assert not _is_kept(file)
    assert _open(file).resolved == first


def test_a_file_that_changes_while_it_is_resolved_is_not_kept(file: Path) -> None:
    workspace = _open(file)
    CHANGES["a text"](file.parent)
    assert workspace.resolved
    assert not _is_kept(file)


def test_a_file_that_is_too_fresh_is_not_kept(file: Path) -> None:
    (file.parent / "texts/tone.txt").touch()
    assert _open(file).resolved
    assert not _is_kept(file)


def test_nothing_is_kept_of_a_file_with_errors_or_before_the_first_apply(file: Path) -> None:
    (file.parent / ".llmctl").rmdir()
    assert _open(file).resolved
    assert not (file.parent / ".llmctl").exists()
    (file.parent / ".llmctl").mkdir()
    _edit("llmops.yaml", "endpoint: support", "endpoint: suport")(file.parent)
    _age(file.parent)
    with pytest.raises(InvalidInput):
        _ = _open(file).resolved
    assert not _is_kept(file)


def test_no_secret_is_kept_and_nobody_else_can_read_it(file: Path) -> None:
    _plan_once(file)
    folder = file.parent / ".llmctl" / ".cache"
    assert folder.stat().st_mode & 0o077 == 0
    for kept in folder.iterdir():
        assert kept.stat().st_mode & 0o077 == 0
        assert CANARY.encode() not in kept.read_bytes()


def test_a_disk_that_cannot_be_written_costs_time_and_nothing_else(file: Path) -> None:
    (file.parent / ".llmctl" / ".cache").write_text("in the way")
    assert _open(file).resolved == _fresh(file)
    assert not _is_kept(file)


@pytest.mark.parametrize("what", ["a pipe", "a folder", "a link to nowhere", "a link to a device", "a huge file"])
def test_what_is_no_memory_is_not_read(file: Path, what: str) -> None:
    kept = file.parent / ".llmctl" / ".cache" / "resolved.dev.json"
    kept.parent.mkdir()
    if what == "a pipe":
        os.mkfifo(kept)
    elif what == "a folder":
        kept.mkdir()
    elif what == "a huge file":
        kept.touch()
        os.truncate(kept, 1 << 40)
    else:
        kept.symlink_to("/dev/zero" if what == "a link to a device" else "nowhere")
    assert _open(file).resolved == _fresh(file)
    assert _is_kept(file) == (what != "a folder")


def test_a_day_that_ends_while_a_command_works(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = _open(file)
    monkeypatch.setattr(remembered, "_today", lambda: "tomorrow")
    assert workspace.resolved
    assert not _is_kept(file)


def test_what_failed_for_a_moment_is_not_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate is left out when its dataset fails after the dataset itself was read: the next command says why."""
    survey = datasets.survey

    def flaky(path: Path, format: str, **asked: Any) -> datasets.Survey:
        if asked["as_read"]:
            raise InvalidInput([Diagnostic("the disk is busy")])
        return survey(path, format, **asked)

    with monkeypatch.context() as patched:
        patched.setattr(datasets, "survey", flaky)
        assert Address("gate", "faq") not in _open(file).resolved.desired.resources
    assert not _is_kept(file)
    assert Address("gate", "faq") in _open(file).resolved.desired.resources


@pytest.mark.parametrize("now", ["wrong", "gone"])
def test_a_place_is_left_out_when_its_file_is_wrong_by_now(file: Path, now: str) -> None:
    _plan_once(file)
    document = _open(file).document
    if now == "wrong":
        file.write_text("project: [")
    else:
        file.unlink()
    assert spec.place(document, ("environments", "prod", "promote_from")) is None


def test_without_a_working_directory_nothing_is_remembered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plan_once(file)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert not _is_kept(file)
    remembered.keep(spec.load(file), _fresh(file), remembered.basis(file))


def test_two_files_in_one_folder_are_told_apart(file: Path) -> None:
    other = file.with_name("other.yaml")
    other.write_text(file.read_text().replace("owner: team", "owner: them").replace("project: acme", "project: others"))
    _age(file.parent)
    for path in (file, other, file, other):
        assert _open(path).resolved == _fresh(path)
        assert _open(path).document.project == spec.load(path).project


def test_a_copy_of_the_folder_is_read_anew(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plan_once(file)
    copy = file.parent.with_name("copy")
    subprocess.run(["cp", "-a", str(file.parent), str(copy)], check=True)
    monkeypatch.chdir(copy)
    assert not _is_kept(copy / file.name)
    file.parent.rename(file.parent.with_name("old"))
    copy.rename(file.parent)
    monkeypatch.chdir(file.parent)
    assert not _is_kept(file)


def test_nothing_is_kept_once_other_packages_were_asked_for_kinds(file: Path) -> None:
    """What they are is not among what can be compared."""
    plugins.installed()
    assert _open(file).resolved
    assert not _is_kept(file)
