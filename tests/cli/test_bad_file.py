"""A file that is wrong: told where and what to do, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import InProcess
from tests.cli.project import Project

MODEL = "models/support-tiny.gguf"
RULE = 'require: resource.license in ["Apache-2.0", "MIT"]'


def swap(old: str, new: str) -> Callable[[Project], None]:
    return lambda project: project.replace(old, new)


def whole(content: str | bytes) -> Callable[[Project], None]:
    data = content if isinstance(content, bytes) else content.encode()

    def do(project: Project) -> None:
        project.file.write_bytes(data)

    return do


def model(change: Callable[[bytes], bytes]) -> Callable[[Project], None]:
    def do(project: Project) -> None:
        path = project.root / MODEL
        path.write_bytes(change(path.read_bytes()))

    return do


def row(number: int, text: str) -> Callable[[Project], None]:
    def do(project: Project) -> None:
        path = project.root / "data" / "faq_eval.jsonl"
        lines = path.read_text().splitlines()
        lines[number - 1] = text
        path.write_text("\n".join(lines) + "\n")

    return do


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

#: what is done to the project: (where it is told, words of the message, words of the advice)
CASES: dict[str, tuple[Callable[[Project], None], str, str, str]] = {
    "unknown key": (
        swap("    engine: llama.cpp", "    engin: llama.cpp"),
        "llmops.yaml:49:5 (endpoint.support)",
        "unknown key `engin`",
        "did you mean `engine`?",
    ),
    "wrong type": (
        swap("context: 512", "context: lots"),
        "llmops.yaml:50:14 (endpoint.support)",
        "`context` must be a whole number of at least 16, not 'lots'",
        "",
    ),
    "dangling reference": (
        swap("model: support-tiny\n", "model: support-tinny\n"),
        "llmops.yaml:48:12 (endpoint.support)",
        "there is no model 'support-tinny'",
        "did you mean `support-tiny`?",
    ),
    "cyclic reference": (
        swap("lineage: {base: none,", "lineage: {base: support-tiny,"),
        "llmops.yaml:33:21 (model.support-tiny)",
        "a cycle of base models: model.support-tiny → model.support-tiny",
        "",
    ),
    "endpoint twice in a chain": (
        swap("    endpoint: support\n", "    endpoint: support\n    fallback: [support]\n"),
        "llmops.yaml:58:16 (route.support)",
        "endpoint `support` is in the chain already",
        "Name each endpoint once.",
    ),
    "duplicate key": (
        swap("owner: support-ml", "owner: support-ml\nowner: other"),
        "llmops.yaml:12:1",
        "duplicate key `owner`",
        "It stands already on line 11; keep one.",
    ),
    "tab": (
        swap("    model: support-tiny", "\tmodel: support-tiny"),
        "llmops.yaml:48:1",
        "a tab cannot indent a line",
        "Indent with spaces.",
    ),
    "empty file": (whole(""), "llmops.yaml:1:1", "the file is empty", "Start with `apiVersion: llmctl/v1`"),
    "comments alone": (whole("# later\n"), "llmops.yaml:1:1", "the file is empty", "Start with"),
    "binary file": (
        whole(b"\x7fELF\x00\x01\xff\xfe" * 50),
        "llmops.yaml:1:7",
        "this is not UTF-8 text (byte 0xff)",
        "a binary file cannot be read here",
    ),
    "alias bomb": (whole(BOMB), "llmops.yaml:5:8", "aliases repeat more than 10000 values", "Write the values out."),
    "alias of itself": (whole("a: &a [*a]\n"), "llmops.yaml:1:8", "this alias stands inside of what it repeats", ""),
    "Python tag": (
        swap("owner: support-ml", 'owner: !!python/object/apply:os.system ["touch pwned"]'),
        "llmops.yaml:11:8",
        "tags are not used in this file",
        "Remove the word that starts with `!`.",
    ),
    "name with a slash": (
        swap("  support:\n    model", "  sup/port:\n    model"),
        "llmops.yaml:47:3",
        "'sup/port' cannot be a name",
        "Use lower-case letters, digits, `-` and `_`",
    ),
    "name with a space": (
        swap("  support:\n    model", "  sup port:\n    model"),
        "llmops.yaml:47:3",
        "'sup port' cannot be a name",
        "Use lower-case letters",
    ),
    "name of dots": (
        swap("  support:\n    model", "  ..:\n    model"),
        "llmops.yaml:47:3",
        "'..' cannot be a name",
        "",
    ),
    "project of dots": (
        swap("project: acme-support", "project: ../x"),
        "llmops.yaml:10:10",
        "'../x' cannot be a project name",
        "",
    ),
    "environment with a slash": (
        swap("  dev: {target", "  de/v: {target"),
        "llmops.yaml:15:3",
        "'de/v' cannot be a name",
        "",
    ),
    "path that leaves the project": (
        swap(MODEL, "../../etc/passwd"),
        "llmops.yaml:31:13 (model.support-tiny)",
        "'../../etc/passwd' leaves the project's folder",
        "Write a path relative to llmops.yaml, inside of its folder.",
    ),
    "dataset that leaves the project": (
        swap("data/faq_train.jsonl", "data/../../faq_train.jsonl"),
        "llmops.yaml:19:23 (dataset.faq-train)",
        "leaves the project's folder",
        "inside of its folder",
    ),
    "absolute path": (swap(MODEL, "/etc/passwd"), "llmops.yaml:31:13", "'/etc/passwd' is not a relative path", ""),
    "link that leaves the project": (
        lambda project: _link(project.root / MODEL),
        "llmops.yaml:31:13 (model.support-tiny)",
        "is a link that leaves the project's folder",
        "inside of its folder",
    ),
    "missing file": (
        swap(MODEL, "models/suport-tiny.gguf"),
        "llmops.yaml:31:13 (model.support-tiny)",
        "there is no file 'models/suport-tiny.gguf'",
        "did you mean `models/support-tiny.gguf`?",
    ),
    "truncated GGUF": (
        model(lambda data: data[: len(data) // 2]),
        "llmops.yaml:31:13 (model.support-tiny)",
        "bytes are missing at its end",
        "Copy or download the file again",
    ),
    "corrupt GGUF": (
        model(lambda data: data[:30] + b"\xff" * 30 + data[60:]),
        "llmops.yaml:31:13",
        "it is cut off or corrupt",
        "",
    ),
    "no GGUF": (model(lambda _: b"<html>not found</html>"), "llmops.yaml:31:13", "it is not a GGUF file", ""),
    "empty GGUF": (model(lambda _: b""), "llmops.yaml:31:13", "it is empty", ""),
    "row that is not JSON": (
        row(17, '{"question": "a", "answer": oops}'),
        "data/faq_eval.jsonl:17:29 (dataset.faq-eval)",
        "the row is not JSON",
        "Each line holds one JSON object",
    ),
    "row that is no object": (row(3, "[1]"), "data/faq_eval.jsonl:3:1", "the row is not a JSON object", ""),
    "prompt variable too many": (
        swap("variables: {question: string}", "variables: {question: string, tone: string}"),
        "llmops.yaml:42:35 (prompt.answer)",
        "variable `tone` is declared, and no message reads it",
        "Remove it, or use it",
    ),
    "prompt variable too few": (
        swap('"{{ question }}"', '"{{ question }} {{ tone }}"'),
        "llmops.yaml:41:50 (prompt.answer)",
        "the template reads `tone`, which `variables` does not declare",
        "Declare it",
    ),
    "policy that does not parse": (
        swap(RULE, RULE.removesuffix("]")),
        "llmops.yaml:75:14 (policy.open-licence)",
        "the rule does not parse",
        "Write a CEL expression",
    ),
    "policy with an unknown field": (
        swap("resource.license in", "resource.licence in"),
        "llmops.yaml:75:14 (policy.open-licence)",
        "resource has no field licence",
        "Did you mean license?",
    ),
    "unset variable": (
        swap("owner: support-ml", 'owner: "${env:LLMCTL_TEST_OWNER}"'),
        "llmops.yaml:11:8",
        "the environment variable LLMCTL_TEST_OWNER is not set",
        "export LLMCTL_TEST_OWNER=…",
    ),
    "port that is none": (
        swap("{target: local}", "{target: local, gateway: {port: 99999}}"),
        "llmops.yaml:15:40",
        "`port` must be a whole number from 1024 to 65535, not 99999",
        "",
    ),
}


def _link(path: Path) -> None:
    outside = path.parents[2] / "outside.gguf"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_file_is_told_with_its_place_and_changes_nothing(project: Project, here: InProcess, name: str) -> None:
    change, place, summary, advice = CASES[name]
    change(project)
    before = project.traces()
    done = here("apply", "--yes")
    assert (done.code, done.out) == (1, "")
    assert f"--> {place}" in done.err
    assert summary in done.err
    assert advice in done.err
    assert done.err.startswith("error: ")
    assert "\n\n\n" not in done.err
    assert not done.err.endswith("\n\n")
    assert project.traces() == before
    assert not (project.root / "pwned").exists()


def test_a_caret_stands_under_what_is_wrong(project: Project, here: InProcess) -> None:
    project.replace("    engine: llama.cpp", "    engin: llama.cpp")
    lines = here("validate").err.splitlines()
    at = lines.index("49 |     engin: llama.cpp")
    assert lines[at + 1] == "   |     ^^^^^"


def test_every_error_is_told_at_once(project: Project, here: InProcess) -> None:
    project.replace("context: 512", "context: lots")
    project.replace(MODEL, "models/nothing.gguf")
    project.replace("variables: {question: string}", "variables: {question: text}")
    err = here("validate").err
    assert err.count("error: ") == 3
    assert err.index("llmops.yaml:31") < err.index("llmops.yaml:42") < err.index("llmops.yaml:50")


def test_a_row_that_is_wrong_is_not_repeated(project: Project, here: InProcess) -> None:
    """Rows may be confidential."""
    row(5, '{"question": "CANARY-7c1", "answer": }')(project)
    done = here("validate")
    assert done.code == 1
    assert "CANARY" not in done.text


def test_the_same_as_json(project: Project, here: InProcess) -> None:
    project.replace("    engine: llama.cpp", "    engin: llama.cpp")
    for command in (("validate",), ("plan",), ("status",), ("drift",), ("apply", "--yes")):
        done = here(*command, "--json")
        shown = done.json()
        assert (done.code, done.err, shown["format"], shown["exit_code"]) == (1, "", 1, 1)
        assert {"file": "llmops.yaml", "line": 49, "column": 5} in [e["where"] for e in shown["errors"]]
