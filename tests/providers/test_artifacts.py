from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.core.digests import Json, digest_file
from llmctl.core.errors import Conflict, ProviderError
from llmctl.core.protocols import Op
from llmctl.core.resources import Key
from llmctl.providers.local import LocalTarget
from tests.providers.conftest import model_spec


def dataset(root: Path, name: str, text: str) -> tuple[Key, Json]:
    file = root / name
    file.write_text(text)
    spec = {
        "source": name,
        "format": "jsonl",
        "columns": {},
        "digest": digest_file(file),
        "bytes": len(text),
        "rows": 1,
    }
    return Key(name.split(".")[0], digest_file(file)[7:23]), {"spec": spec, "root": str(root)}


def test_a_source_that_changed_since_planning_is_named(target: LocalTarget, project: Path, op: Op) -> None:
    key, want = dataset(project, "faq.jsonl", "{}\n")
    (project / "faq.jsonl").write_text("{ }\n")
    with pytest.raises(Conflict, match=r"faq\.jsonl changed after the plan was made") as caught:
        target.providers["dataset"].create(op, key, want)
    assert caught.value.hint == "Plan again."
    assert not target.providers["dataset"].read_all().found


def test_a_source_that_is_gone_is_named(target: LocalTarget, project: Path, op: Op) -> None:
    key, want = dataset(project, "faq.jsonl", "{}\n")
    (project / "faq.jsonl").unlink()
    with pytest.raises(ProviderError, match=r"faq\.jsonl does not exist"):
        target.providers["dataset"].create(op, key, want)


@pytest.mark.parametrize("change", ["gone", "different"])
def test_a_rollback_needs_no_source_while_the_content_is_stored(
    target: LocalTarget, project: Path, op: Op, change: str
) -> None:
    key, want = dataset(project, "faq.jsonl", "{}\n")
    provider = target.providers["dataset"]
    provider.create(op, key, want)
    (target.state_folder / "manifests" / "dataset" / f"{key}.json").unlink()
    (project / "faq.jsonl").unlink() if change == "gone" else (project / "faq.jsonl").write_text("other")
    assert provider.create(op, key, want).healthy
    assert provider.read_all().found[key].healthy


def test_a_damaged_manifest_is_found_unhealthy_and_can_be_restored(target: LocalTarget, project: Path, op: Op) -> None:
    key, want = dataset(project, "faq.jsonl", "{}\n")
    provider = target.providers["dataset"]
    provider.create(op, key, want)
    manifest = target.state_folder / "manifests" / "dataset" / f"{key}.json"
    manifest.write_text("{ no json")
    found = provider.read_all().found[key]
    assert (found.healthy, found.detail) == (False, "its manifest is damaged")
    assert provider.create(op, key, want).healthy
    assert provider.read_all().found[key].healthy


def test_a_manifest_of_a_newer_llmctl_is_unreadable_and_left_alone(target: LocalTarget, project: Path, op: Op) -> None:
    key, want = dataset(project, "faq.jsonl", "{}\n")
    provider = target.providers["dataset"]
    provider.create(op, key, want)
    manifest = target.state_folder / "manifests" / "dataset" / f"{key}.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    assert key in provider.read_all().unreadable


def test_missing_content_is_found_unhealthy_and_can_be_restored(target: LocalTarget, project: Path, op: Op) -> None:
    spec = model_spec(project)
    key, want = Key("support-tiny", "a" * 16), {"spec": spec, "root": str(project)}
    provider = target.providers["model"]
    provider.create(op, key, want)
    target.artifacts.delete(spec["weights"]["digest"])
    found = provider.read_all().found[key]
    assert not found.healthy
    assert found.detail == "content missing: support-tiny.gguf"
    assert provider.create(op, key, want).healthy
    assert target.artifacts.has(spec["weights"]["digest"])


def test_content_goes_with_the_last_that_needs_it(target: LocalTarget, project: Path, op: Op) -> None:
    one, want_one = dataset(project, "one.jsonl", "{}\n")
    two, want_two = dataset(project, "two.jsonl", "{}\n")
    provider, digest = target.providers["dataset"], want_one["spec"]["digest"]
    assert want_two["spec"]["digest"] == digest
    first, second = provider.create(op, one, want_one), provider.create(op, two, want_two)
    provider.delete(op, one, first)
    assert target.artifacts.has(digest)
    provider.delete(op, two, second)
    assert not target.artifacts.has(digest)


def test_nothing_is_deleted_while_it_cannot_be_told_who_needs_it(target: LocalTarget, project: Path, op: Op) -> None:
    one, want = dataset(project, "one.jsonl", "{}\n")
    two, want_two = dataset(project, "two.jsonl", "{ }\n")
    provider = target.providers["dataset"]
    live = provider.create(op, one, want)
    provider.create(op, two, want_two)
    (target.state_folder / "manifests" / "dataset" / f"{two}.json").write_text("{")
    with pytest.raises(ProviderError, match="no content is deleted"):
        provider.delete(op, one, live)
    assert provider.read_all().found[one].healthy


def test_a_hosted_model_is_a_manifest_alone(target: LocalTarget, op: Op) -> None:
    spec = {"source": "openai:gpt-4.1-mini", "weights": {"remote": "openai:gpt-4.1-mini"}, "files": []}
    live = target.providers["model"].create(op, Key("hosted", "b" * 16), {"spec": spec, "root": "/nowhere"})
    assert live.healthy
    assert target.artifacts.list() == frozenset()


def test_a_prompt_is_stored_under_the_digest_that_its_revision_is_of(target: LocalTarget, op: Op) -> None:
    spec = {"messages": [{"role": "user", "content": "hi"}], "variables": {}, "parameters": {}}
    live = target.providers["prompt"].create(op, Key("answer", "c" * 16), {"spec": spec, "root": ""})
    [digest] = live.outputs["digests"]
    assert digest.removeprefix("sha256:").startswith(live.revision)
    assert target.artifacts.path(digest).read_text().startswith('{"kind":"prompt","messages"')
