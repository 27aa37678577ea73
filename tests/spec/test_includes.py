"""A project in several files: one tree, and every value knows its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput
from llmctl.spec import load, place, resolve
from tests.spec.project import GOOD, make_project, rendered, resolved


def _including(what: str, text: str = GOOD) -> str:
    return text.replace("environments:\n", f"include: {what}\nenvironments:\n", 1)


def test_what_is_included_is_part_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = make_project(tmp_path, _including("[parts/prompts.yaml, 'parts/**/r*.yaml', ./parts/prompts.yaml]"))
    document = load(path)
    assert document.files == (path, tmp_path / "parts/prompts.yaml", tmp_path / "parts/more/routes.yaml")
    resources = resolve(document, "dev").desired.resources
    route = resources[Address("route", "short")]
    assert route.spec["template"]["messages"] == [{"role": "system", "content": "Be brief."}]
    assert route.where is not None
    assert (route.where.file, route.where.line, route.where.column) == ("parts/more/routes.yaml", 2, 3)
    where = place(document, ("prompts", "short", "messages", 0, "content"))
    assert str(where) == "parts/prompts.yaml:3:40"
    assert Address("gate", "faq") in resources


def test_it_is_the_same_as_one_file(tmp_path: Path) -> None:
    main, prompts = GOOD.split("prompts:\n")[0], "prompts:\n" + GOOD.split("prompts:\n")[1]
    whole = resolved(make_project(tmp_path / "whole")).desired
    path = make_project(tmp_path / "split", _including("'parts.d/*.yaml'", main))
    (tmp_path / "split" / "parts.d").mkdir()
    cut = prompts.index("routes:\n")
    (tmp_path / "split" / "parts.d" / "b.yaml").write_text(prompts[:cut])
    (tmp_path / "split" / "parts.d" / "a.yaml").write_text(prompts[cut:])
    parts = load(path)
    assert [file.name for file in parts.files] == ["llmops.yaml", "a.yaml", "b.yaml"]  # a glob's files are sorted
    assert resolve(parts, "dev").desired.resources == whole.resources


def test_paths_in_an_included_file_start_at_the_main_one(tmp_path: Path) -> None:
    path = make_project(tmp_path, _including("parts/data.yaml"))
    (tmp_path / "parts/data.yaml").write_text("datasets: {more: {source: data/train.jsonl}}\n")
    assert resolved(path).desired.resources[Address("dataset", "more")].spec["rows"] == 1


def test_overrides_and_findings_about_an_included_resource_name_the_right_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    override = "{target: local, overrides: {prompts: {short: {variables: {name: string}}}}}"
    text = _including("parts/prompts.yaml", GOOD.replace("{target: local}", override))
    found = rendered(make_project(tmp_path, text))
    assert "variable `name` is declared, and no message reads it\n --> llmops.yaml:" in found
    (tmp_path / "parts/prompts.yaml").write_text(
        'prompts:\n  short: {messages: [{role: user, content: "{{ nam }}"}]}\n'
    )
    assert "the template reads `nam`, which `variables` does not declare\n --> parts/prompts.yaml:2:48" in rendered(
        tmp_path / "llmops.yaml"
    )


def test_a_file_is_read_once_however_it_is_named(tmp_path: Path) -> None:
    path = make_project(tmp_path, _including("[parts/prompts.yaml, './parts/p*.yaml', llmops.yaml, '*.yaml']"))
    assert load(path).files == (path, tmp_path / "parts/prompts.yaml")


def test_a_link_out_of_the_project_is_refused(tmp_path: Path) -> None:
    path = make_project(tmp_path / "project", _including("'parts/out*.yaml'"))
    (tmp_path / "elsewhere.yaml").write_text("prompts: {}\n")
    (tmp_path / "project" / "parts" / "outside.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(InvalidInput, match="is a link that leaves the project's folder"):
        load(path)


def test_moves_may_stand_in_any_file(tmp_path: Path) -> None:
    path = make_project(
        tmp_path, _including("parts/moved.yaml", GOOD + "\nmoved: [{from: route.help, to: route.support}]\n")
    )
    (tmp_path / "parts/moved.yaml").write_text("moved: [{from: route.faq, to: route.help}]\n")
    desired = resolved(path).desired
    assert [(str(a), str(b)) for a, b in desired.moved] == [
        ("route.help", "route.support"),
        ("route.faq", "route.help"),
    ]
    assert desired.resources[Address("route", "support")].spec["aliases"] == ["faq", "help"]
    assert desired.resources[Address("route", "support")].revision == (
        resolved(make_project(tmp_path / "other")).desired.resources[Address("route", "support")].revision
    )


def test_a_move_counts_only_where_its_end_is_declared(tmp_path: Path) -> None:
    text = GOOD.replace(
        "dev: {target: local}",
        "dev: {target: local, overrides: {policies: null}}\n"
        "  prod: {target: local, overrides: {prompts: {extra: {messages: [{role: user, content: Hi}]}}}}",
    )
    moved = "moved: [{from: policy.licence, to: policy.open-licence}, {from: prompt.more, to: prompt.extra}]\n"
    document = load(make_project(tmp_path, moved + text))
    ends = {name: [str(to) for _, to in resolve(document, name).desired.moved] for name in document.environments}
    assert ends == {"dev": [], "prod": ["policy.open-licence", "prompt.extra"]}


def test_a_hundred_files_are_read_in_time_that_grows_with_their_size(tmp_path: Path) -> None:
    """Names are joined in place: no file is copied for those that follow it."""
    path = make_project(tmp_path, _including("'many/*.yaml'"))
    (tmp_path / "many").mkdir()
    for n in range(100):
        prompt = f"prompts:\n  p{n}: {{messages: [{{role: user, content: Hello {n}}}]}}\n"
        (tmp_path / "many" / f"{n:03}.yaml").write_text(prompt)
    resources = resolved(path).desired.resources
    assert sum(address.kind == "prompt" for address in resources) == 101
