"""A stranger's project reads nothing that it did not bring: a canary variable and canary files, through every field."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmctl.app.planning import Scope, plan
from llmctl.app.untrusted import load_untrusted, open_untrusted, refuse_where_trusted
from llmctl.app.validate import validate
from llmctl.cli.views.markdown import render_markdown
from llmctl.cli.views.plan import render_plan, shown_json
from llmctl.core import plugins
from llmctl.core.address import Address
from llmctl.core.diagnostics import render_plain
from llmctl.core.errors import InvalidInput, LlmctlError
from llmctl.plan import Plan
from llmctl.spec import tracked
from tests.plugins.packages import install
from tests.record.helpers import git
from tests.spec.project import GOOD, make_project

CANARY = "CANARY-7b1f"
VARIABLE = "LLMCTL_TEST_CANARY"
NAME = "canary-secret-file"


@dataclass
class Stranger:
    """A clone with a stranger's project in it, and beside both what is not the stranger's."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "clone"

    @property
    def file(self) -> Path:
        return self.root / "llmops.yaml"

    def write(self, text: str = GOOD) -> None:
        make_project(self.root, text)
        self.add()

    def add(self) -> None:
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "--allow-empty", "-m", "a change")

    def plan(self) -> tuple[Plan | None, str]:
        """The plan, and all that a reader of the job's log would see."""
        try:
            made = plan(open_untrusted(str(self.file), None), Scope(), offline=True)
        except LlmctlError as error:
            return None, "\n".join(render_plain(d) for d in error.diagnostics())
        seen = [render_plan(made), render_markdown(made), json.dumps(shown_json(made, "2026-01-01T00:00:00"))]
        return made, "\n".join(seen)

    def validated(self) -> str:
        try:
            return "\n".join(render_plain(d) for d in validate(load_untrusted(str(self.file)), None))
        except LlmctlError as error:
            return "\n".join(render_plain(d) for d in error.diagnostics())


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    monkeypatch.setenv(VARIABLE, CANARY)
    monkeypatch.setattr(plugins, "_left_out", False)
    found = Stranger(tmp_path)
    (tmp_path / "outside").mkdir()
    for suffix in (".txt", ".yaml", ".jsonl", ".json", ".gguf", ""):
        (tmp_path / "outside" / f"{NAME}{suffix}").write_text(f'{{"{CANARY}": "{CANARY}"}}\n{CANARY}: [\n')
    found.root.mkdir()
    git(found.root, "init", "-q", "-b", "main")
    git(found.root, "config", "user.name", "Mallory")
    git(found.root, "config", "user.email", "mallory@example.org")
    git(found.root, "config", "http.extraheader", f"AUTHORIZATION: basic {CANARY}")  # as actions/checkout leaves it
    (found.root / ".gitignore").write_text("*.untracked\n")
    found.write()
    (found.root / "login.untracked").write_text(CANARY)
    yield found
    plugins.installed.cache_clear()


def test_an_honest_change_is_planned_as_without_it(stranger: Stranger) -> None:
    made, seen = stranger.plan()
    assert made is not None, seen
    assert made.offline
    assert not made.denials
    assert {str(c.address) for c in made.changes} >= {"route.support", "prompt.answer", "dataset.eval", "gate.faq"}
    assert "error" not in stranger.validated()
    assert not (stranger.root / ".llmctl").exists()


#: Fields that take text, each with the canary variable in it.
TEXT = {
    "owner": ("owner: team", "owner: '${env:LLMCTL_TEST_CANARY}'"),
    "prompt": ("content: You are an assistant.", "content: 'You are ${env:LLMCTL_TEST_CANARY}.'"),
    "license": ("license: Apache-2.0", "license: '${env:LLMCTL_TEST_CANARY}'"),
    "card": ("intended_use: tests", "intended_use: '${env:LLMCTL_TEST_CANARY}'"),
    "lineage": ("base: somewhere", "base: '${env:LLMCTL_TEST_CANARY}'"),
    "hyperparameters": ("{rank: 8}", "{rank: '${env:LLMCTL_TEST_CANARY}'}"),
    "hosted model": ('"openai:gpt-4.1-mini"', '"openai:${env:LLMCTL_TEST_CANARY}"'),
    "beside a file": ("content: You are an assistant.", "content: '${env:LLMCTL_TEST_CANARY}${file:texts/a.txt}'"),
}

#: Fields that cannot take just any text; what they are about cannot be told without the value.
CLOSED = {
    "engine": ("engine: llama.cpp", "engine: '${env:LLMCTL_TEST_CANARY}'"),
    "source": ("source: data/eval.jsonl", "source: '${env:LLMCTL_TEST_CANARY}'"),
    "weights": ("source: models/tiny.gguf", "source: '${env:LLMCTL_TEST_CANARY}'"),
    "reference": ("{prompt: answer, endpoint", "{prompt: '${env:LLMCTL_TEST_CANARY}', endpoint"),
    "sensitivity": ("sensitivity: public", "sensitivity: '${env:LLMCTL_TEST_CANARY}'"),
    "all of a prompt": ('content: "{{ question }}"', "content: '${env:LLMCTL_TEST_CANARY}'"),
    "rule": ('require: resource.license in ["Apache-2.0"]', "require: '${env:LLMCTL_TEST_CANARY}'"),
    "base_url": (
        "backup: {model: hosted, engine: external}",
        "backup: {model: hosted, engine: external, options: {base_url: 'https://${env:LLMCTL_TEST_CANARY}/v1'}}",
    ),
}


@pytest.mark.parametrize("field", [*TEXT, *CLOSED])
def test_no_field_reads_a_variable_and_none_fails_the_plan(stranger: Stranger, field: str) -> None:
    old, new = (TEXT | CLOSED)[field]
    assert old in GOOD
    (stranger.root / "texts").mkdir(exist_ok=True)
    (stranger.root / "texts/a.txt").write_text("from a file")
    stranger.write(GOOD.replace(old, new, 1))
    made, seen = stranger.plan()
    assert CANARY not in seen
    assert CANARY not in stranger.validated()
    assert made is not None, seen
    if field != "owner":  # it is in no plan
        assert "${env:LLMCTL_TEST_CANARY}" in seen
        assert "no variable is read under --untrusted" in seen


def test_what_cannot_be_told_is_left_as_it_is_recorded(stranger: Stranger) -> None:
    from tests.app.test_promotion import entry

    workspace = open_untrusted(str(stranger.file), None)
    entry(workspace.repository, workspace.resolved.desired.resources, evidence=())
    stranger.write(GOOD.replace(*CLOSED["engine"]).replace("You are an assistant.", "You are kind."))
    made, seen = stranger.plan()
    assert made is not None, seen
    assert [str(c.address) for c in made.changes if c.action.value == "delete"] == []
    assert Address("prompt", "answer") in {c.address for c in made.changes}
    assert (
        "endpoint.support cannot be told without what --untrusted does not read; it is planned as it is recorded"
        in seen
    )
    assert "route.support cannot be told" in seen


def test_a_file_outside_is_refused_also_beside_a_variable(stranger: Stranger) -> None:
    """What reads a variable is excused of much, and not of this."""
    both = "content: '${env:LLMCTL_TEST_CANARY} ${file:../outside/canary-secret-file.txt}'"
    stranger.write(GOOD.replace("content: You are an assistant.", both))
    assert "leaves the project's folder" in stranger.plan()[1]
    outside = "source: ../outside/canary-secret-file.jsonl, license: '${env:LLMCTL_TEST_CANARY}'"
    stranger.write(GOOD.replace("source: data/train.jsonl, license: MIT", outside))
    made, seen = stranger.plan()
    assert made is None
    assert "leaves the project's folder" in seen
    assert "llmops.yaml:9:" in seen


def test_whether_a_variable_is_set_is_not_told(stranger: Stranger) -> None:
    stranger.write(GOOD.replace("${env:OPENAI_API_KEY}", "${env:LLMCTL_TEST_NOT_SET}"))
    made, seen = stranger.plan()
    assert made is not None, seen
    assert "is not set" not in seen


def _linked(root: Path, name: str, target: str) -> None:
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to(target)


def _linked_twice(root: Path, target: str, end: str) -> None:
    _linked(root, f"one{end}", target)
    _linked(root, f"two{end}", f"one{end}")


#: What a stranger may try, by name: edits of the file, and what is done in the work tree.
Attack = tuple[tuple[str, str], Callable[[Path], None]]


def _nothing(root: Path) -> None:
    """The file alone."""


def _include(entry: str) -> tuple[str, str]:
    return "owner: team", f"owner: team\ninclude: ['{entry}']"


def _text(entry: str) -> tuple[str, str]:
    return "content: You are an assistant.", f"content: '${{file:{entry}}}'"


def _data(entry: str) -> tuple[str, str]:
    return "source: data/eval.jsonl", f"source: '{entry}'"


def _model(entry: str) -> tuple[str, str]:
    return "source: models/tiny.gguf", f"source: '{entry}'"


def _adapter(entry: str) -> tuple[str, str]:
    return "{source: models/tone.gguf, scale: 1}", f"{{source: '{entry}', scale: 1}}"


def _schema(entry: str) -> tuple[str, str]:
    return "metrics:", f"metrics:\n      json_schema: {{schema: '{entry}', min: 0.9}}"


FIELDS = {"include": _include, "text": _text, "dataset": _data, "model": _model, "adapter": _adapter, "schema": _schema}
SUFFIX = {
    "include": ".yaml",
    "text": ".txt",
    "dataset": ".jsonl",
    "model": ".gguf",
    "adapter": ".gguf",
    "schema": ".json",
}


def _attacks() -> Iterator[tuple[str, Attack]]:
    for field, edit in FIELDS.items():
        end = SUFFIX[field]
        outside = f"../outside/{NAME}{end}"
        yield f"{field}: dots", (edit(outside), _nothing)
        yield f"{field}: dots behind a folder", (edit(f"data/../../outside/{NAME}{end}"), _nothing)
        yield f"{field}: absolute", (edit(f"/BASE/outside/{NAME}{end}"), _nothing)
        yield f"{field}: home", (edit(f"~/{NAME}{end}"), _nothing)
        yield f"{field}: a link", (edit(f"link{end}"), lambda r, o=outside, e=end: _linked(r, f"link{e}", o))  # type: ignore[misc]
        yield (
            f"{field}: a link to a link",
            (
                edit(f"two{end}"),
                lambda r, o=outside, e=end: _linked_twice(r, o, e),  # type: ignore[misc]
            ),
        )
        yield f"{field}: a linked folder", (edit(f"folder/{NAME}{end}"), lambda r: _linked(r, "folder", "../outside"))
        yield (
            f"{field}: what is not there in a linked folder",
            (
                edit(f"folder/canary-{end}"),
                lambda r: _linked(r, "folder", "../outside"),
            ),
        )
        yield f"{field}: git's own files", (edit(".git/config"), _nothing)
        yield (
            f"{field}: a link to git's own files",
            (
                edit(f"link{end}"),
                lambda r, e=end: _linked(r, f"link{e}", ".git/config"),  # type: ignore[misc]
            ),
        )
        yield f"{field}: what lies in the work tree", (edit("login.untracked"), _nothing)
        yield (
            f"{field}: a link to that",
            (
                edit(f"link{end}"),
                lambda r, e=end: _linked(r, f"link{e}", "login.untracked"),  # type: ignore[misc]
            ),
        )
        yield f"{field}: a process's own", (edit("/proc/self/environ"), _nothing)
        yield (
            f"{field}: a link to the process's environment",
            (
                edit(f"link{end}"),
                lambda r, e=end: _linked(r, f"link{e}", "/proc/self/environ"),  # type: ignore[misc]
            ),
        )
    for pattern in ("../outside/*", "folder/*", "**/*.yaml", "*.untracked", ".git/*", "f*/**"):
        yield f"glob: {pattern}", (_include(pattern), lambda r: _linked(r, "folder", "../outside"))
    yield (
        "the file itself is a link",
        (_nothing_changed, lambda r: _linked(r, "llmops.yaml", f"../outside/{NAME}.yaml")),
    )
    yield "the file is a link to git's own", (_nothing_changed, lambda r: _linked(r, "llmops.yaml", ".git/config"))
    yield "a remote", (("dev: {target: local}", "dev: {target: local, record: {remote: origin}}"), _nothing)
    yield "a rule", (("require: ", "require: '\"${env:LLMCTL_TEST_CANARY}\" == resource.license || ' #"), _nothing)


_nothing_changed = ("owner: team", "owner: team")
ATTACKS = dict(_attacks())


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_outside_is_read_or_named(stranger: Stranger, attack: str) -> None:
    (old, new), prepare = ATTACKS[attack]
    stranger.write(GOOD.replace(old, new.replace("/BASE", str(stranger.base)), 1))
    prepare(stranger.root)
    stranger.add()
    made, seen = stranger.plan()
    for text in (seen, stranger.validated()):
        assert CANARY not in text
        own = new.replace("/BASE", str(stranger.base))
        assert NAME not in text or NAME in own, text  # what is there is told to nobody who did not name it
    if attack == "a remote":
        assert made is not None, seen  # there is no such remote: it would fail
    if ": " in attack and not attack.startswith(("glob: **", "glob: f")):
        assert made is None
        assert "llmops.yaml:" in seen
        assert "-->" in seen  # the place in the file


@pytest.mark.parametrize("end", [".txt", ".jsonl", ".yaml"])
def test_what_is_there_and_what_is_not_read_alike(stranger: Stranger, end: str) -> None:
    """Messages must not tell which files the machine has."""
    field = {".txt": _text, ".jsonl": _data, ".yaml": _include}[end]
    told = []
    for target in (f"../outside/{NAME}{end}", f"../outside/nothing{end}", "/etc", "/etc/nothing"):
        _linked(stranger.root, f"link{end}", target)
        stranger.write(GOOD.replace(*field(f"link{end}"), 1))
        told.append(stranger.validated())
    assert len(set(told)) == 1
    assert "git tracks no file" in told[0]


def test_a_folder_that_is_a_link_is_no_project(stranger: Stranger) -> None:
    other = stranger.base / "other"
    make_project(other, GOOD.replace("You are an assistant.", CANARY))
    git(other, "init", "-q")
    git(other, "add", "-A")
    _linked(stranger.root, "app", "../other")
    stranger.add()
    with pytest.raises(InvalidInput, match="git tracks no file"):
        load_untrusted(str(stranger.root / "app/llmops.yaml"))


def test_without_git_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_left_out", False)
    make_project(tmp_path, GOOD)
    with pytest.raises(InvalidInput, match="is in no git work tree"):
        load_untrusted(str(tmp_path / "llmops.yaml"))


def test_links_inside_of_the_project_are_as_good_as_files(stranger: Stranger) -> None:
    (stranger.root / "data/eval.jsonl").rename(stranger.root / "data/real.jsonl")
    _linked(stranger.root, "data/eval.jsonl", "real.jsonl")
    stranger.add()
    made, seen = stranger.plan()
    assert made is not None, seen


def test_no_package_is_loaded(stranger: Stranger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install(tmp_path / "site", "evil", "docs = evil_package:KIND")
    (site / "evil_package.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.syspath_prepend(str(site))
    rule = "policies:\n  theirs: {applies_to: docs, require: 'true'}\n"
    text = GOOD.replace("policies:\n", rule, 1) if "policies:\n" in GOOD else GOOD + rule
    text = text.replace("owner: team", "owner: team\ndocs: {a: {x: 1}}\nmoved: [{from: docs.a, to: docs.b}]")
    text = text.replace("dev: {target: local}", "dev: {target: local, overrides: {docs: {a: {x: 2}}}}")
    stranger.write(text)
    made, seen = stranger.plan()
    assert made is not None, seen
    assert seen.count("kinds of other packages are left out under --untrusted") >= 4
    assert not (tmp_path / "ran").exists()
    plugins._left_out = False
    plugins.installed.cache_clear()
    with pytest.raises(LlmctlError, match="the kind 'docs' of the package"):  # it would be loaded otherwise
        plugins.installed()
    assert (tmp_path / "ran").exists()


def test_a_misspelt_section_is_still_an_error(stranger: Stranger) -> None:
    stranger.write(GOOD.replace("prompts:", "promts:"))
    made, seen = stranger.plan()
    assert made is None
    assert "unknown key `promts`" in seen
    assert "did you mean `prompts`" in seen


@pytest.mark.parametrize("template", ["{{ 'x' * 10**11 }}", "{{ 'x'|center(10**11) }}", "{{ 9**9**9 }}"])
def test_a_template_is_not_computed(stranger: Stranger, template: str) -> None:
    """Jinja folds constants when it only looks for names: a hundred gigabytes, or a number without end."""
    stranger.write(GOOD.replace("content: You are an assistant.", f'content: "{template}"'))
    made, seen = stranger.plan()
    assert made is not None, seen


def test_what_is_too_large_is_refused(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger.write(GOOD + "#" * 1_000_001)
    assert "has more than 1 MB" in stranger.plan()[1]
    stranger.write()
    with monkeypatch.context() as patched:
        patched.setattr(tracked, "MAX_FILES", 2)
        assert "is one more than 2 files" in stranger.plan()[1]
    with monkeypatch.context() as patched:
        patched.setattr(tracked, "MAX_OTHER_BYTES", 1 << 20)
        (stranger.root / "data/eval.jsonl").write_text('{"question": "q", "answer": "a"}\n' * 50_000)
        stranger.add()
        assert "has more than 1 MB, which is too much under --untrusted" in stranger.plan()[1]


def test_nothing_is_kept_for_commands_that_trust(stranger: Stranger) -> None:
    (stranger.root / ".llmctl/.cache").mkdir(parents=True)
    for path in stranger.root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path, (1, 1))
    made, seen = stranger.plan()
    assert made is not None, seen
    assert list((stranger.root / ".llmctl/.cache").iterdir()) == []


def test_commands_that_trust_their_file_refuse_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMCTL_UNTRUSTED", raising=False)
    refuse_where_trusted("apply")
    monkeypatch.setenv("LLMCTL_UNTRUSTED", "0")
    refuse_where_trusted("apply")
    monkeypatch.setenv("LLMCTL_UNTRUSTED", "1")
    with pytest.raises(InvalidInput, match="LLMCTL_UNTRUSTED is set, and `llmctl apply` trusts its file"):
        refuse_where_trusted("apply")


def test_a_base_revision_reads_no_variable_either(stranger: Stranger) -> None:
    stranger.write(GOOD.replace("message: Models must", "message: '${env:LLMCTL_TEST_CANARY}' # Models must"))
    stranger.write()
    made = plan(open_untrusted(str(stranger.file), None), Scope(base="HEAD~1"), offline=True)
    assert CANARY not in render_plan(made) + render_markdown(made)


def test_git_is_told_nothing_by_the_project(stranger: Stranger) -> None:
    """Attributes of a project name programs; those that a plan would run are none."""
    (stranger.root / ".gitattributes").write_text("* filter=evil\n")
    ran = stranger.base / "ran"
    git(stranger.root, "config", "filter.evil.clean", f"touch {ran}; cat")
    subprocess.run(["git", "add", "-A"], cwd=stranger.root, check=True)
    ran.unlink(missing_ok=True)
    made, seen = stranger.plan()
    assert made is not None, seen
    assert not ran.exists()
