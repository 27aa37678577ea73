"""``${file:PATH}``: the text of a file as a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput
from llmctl.spec import load, resolve
from tests.spec.project import GOOD, make_project, resolved

FROM_FILE = GOOD.replace('content: "{{ question }}"', 'content: "${file:texts/help.txt}"')
ANSWER = Address("prompt", "answer")


def _content(path: Path) -> str:
    return str(resolved(path).desired.resources[ANSWER].spec["messages"][1]["content"])


def test_the_text_is_data_and_loses_one_newline(tmp_path: Path) -> None:
    path = make_project(tmp_path, FROM_FILE)
    assert _content(path) == "Answer from ${env:HOME} and {{ question }}."
    (tmp_path / "texts/help.txt").write_bytes("\ufeffÜ {{ question }}\r\n\r\n".encode())
    assert _content(path) == "Ü {{ question }}\r\n"


def test_it_may_stand_inside_of_a_text_and_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_TEST_WHO", "you")
    text = GOOD.replace(
        "{{ question }}", "<${file:texts/a.txt}|${file:texts/a.txt}|${env:LLMCTL_TEST_WHO}> {{ question }}"
    )
    path = make_project(tmp_path, text)
    (tmp_path / "texts/a.txt").write_text("a")
    assert _content(path) == "<a|a|you> {{ question }}"


def test_a_file_that_changes_makes_a_new_revision(tmp_path: Path) -> None:
    document = load(make_project(tmp_path, FROM_FILE))
    before = resolve(document, "dev").desired.resources
    (tmp_path / "texts/help.txt").write_text("Now: {{ question }}")
    after = resolve(document, "dev").desired.resources
    assert {str(a) for a in before if before[a].revision != after[a].revision} == {"prompt.answer", "route.support"}


def test_a_template_from_a_file_is_checked(tmp_path: Path) -> None:
    path = make_project(tmp_path, FROM_FILE)
    (tmp_path / "texts/help.txt").write_text("{{ question }} {{ other }}")
    with pytest.raises(InvalidInput, match="the template reads `other`") as caught:
        resolved(path)
    where = caught.value.findings[0].where
    assert where is not None
    assert "${file:texts/help.txt}" in where.snippet


@pytest.mark.parametrize("name", [".git/config", ".llmctl/dev/secrets.json"])
def test_what_tools_keep_is_not_read(tmp_path: Path, name: str) -> None:
    path = make_project(tmp_path, FROM_FILE.replace("texts/help.txt", name))
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("CANARY {{ question }}")
    (tmp_path / "texts/link.txt").symlink_to(tmp_path / name)
    for text in (path.read_text(), path.read_text().replace(name, "texts/link.txt")):
        path.write_text(text)
        with pytest.raises(InvalidInput, match="is not part of the project") as caught:
            resolved(path)
        assert "CANARY" not in repr(caught.value.findings)


def test_a_secret_never_comes_from_a_file(tmp_path: Path) -> None:
    path = make_project(tmp_path, GOOD.replace("${env:OPENAI_API_KEY}", "${file:texts/key.txt}"))
    (tmp_path / "texts/key.txt").write_text("sk-CANARY")
    with pytest.raises(InvalidInput, match="`api_key` takes no file") as caught:
        resolved(path)
    assert "CANARY" not in repr(caught.value.findings)


def test_a_value_put_in_is_not_shown_where_it_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMCTL_TEST_KEY", "sk-CANARY")
    value = '"${env:LLMCTL_TEST_KEY}"'
    text = GOOD.replace(
        "    message:", f"    waivers: [{{resource: {value}, until: {value}, reason: a, approved_by: b}}]\n    message:"
    )
    text = text.replace("dev: {target: local}", f"dev: {{target: local, promote_from: {value}}}")
    text = text.replace("options: {slots: 2}", f"timeouts: {{ready: {value}}}")
    path = make_project(tmp_path, f"moved: [{{from: {value}, to: {value}}}]\n{text}")
    with pytest.raises(InvalidInput) as caught:
        load(path)
    summaries = "\n".join(finding.summary for finding in caught.value.findings)
    for expected in ("there is no environment", "must be a day", "is not an address", "must be a time"):
        assert expected in summaries
    assert "CANARY" not in repr(caught.value.findings)
