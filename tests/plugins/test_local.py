"""The local target with the kinds of plug-ins: opened when they are named, and with nothing of a copied project."""

from __future__ import annotations

import shutil
from pathlib import Path
from time import monotonic

import pytest

from llmctl.core.address import Address
from llmctl.core.digests import Json, digest_file
from llmctl.core.errors import LlmctlError, ProviderError
from llmctl.core.protocols import Op
from llmctl.core.resources import Environment, Key
from llmctl.providers.local import LocalTarget
from tests.plugins.packages import install
from tests.plugins.project import ROWS

FAQ = Address("fts", "faq")
DEV = Environment("dev", "local")


def a_spec(target: LocalTarget, root: Path) -> Json:
    source = root / "faq.jsonl"
    source.write_text(ROWS)
    digest = digest_file(source)
    target.artifacts.put_file(source, digest)
    serving = {"dataset_digest": digest, "dataset_format": "jsonl", "columns": ["question"], "tokenizer": "ascii"}
    return {"dataset": "faq", **serving, "protect": False}


@pytest.mark.usefixtures("example")
def test_a_provider_is_there_once_its_kind_is_named(tmp_path: Path) -> None:
    target = LocalTarget(tmp_path, "acme", DEV)
    target.serve([Address("dataset", "faq"), Address("route", "support")])
    assert set(target.providers) == {"dataset", "model", "prompt", "endpoint"}
    target.serve([FAQ, Address("dataset", "faq")])
    first = target.providers["fts"]
    target.serve([Address("fts", "other")])
    assert target.providers["fts"] is first
    assert not (tmp_path / ".llmctl").exists()


def test_a_kind_that_is_not_installed_is_named_with_what_is_of_it(site: Path, tmp_path: Path) -> None:
    assert not list(site.iterdir())
    with pytest.raises(LlmctlError) as refused:
        LocalTarget(tmp_path, "acme", DEV).serve([FAQ])
    assert "provides the kind 'fts'" in refused.value.summary
    assert "fts.faq" in refused.value.detail


@pytest.mark.usefixtures("example")
def test_what_came_along_in_a_copy_is_not_there(tmp_path: Path) -> None:
    """A copied state folder speaks of the project that it was copied from."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    target = LocalTarget(one, "acme", DEV)
    op = Op("test", monotonic() + 60)
    target.start(op)
    try:
        target.serve([FAQ])
        want = a_spec(target, one)
        made = target.providers["fts"].create(op, Key("faq"), want)
        shutil.copytree(one, two, ignore=shutil.ignore_patterns("*.sock"))
        copy = LocalTarget(two, "acme", DEV)
        copy.serve([FAQ])
        assert not copy.providers["fts"].read_all().found
        copy.start(op)
        try:
            assert not (two / ".llmctl" / "dev" / "kinds").exists()
            want = a_spec(copy, two)
            again = copy.providers["fts"].create(op, Key("faq"), want)
            assert copy.providers["fts"].read_all().found == {Key("faq"): again}
        finally:
            copy.destroy(op)
        assert target.providers["fts"].read_all().found == {Key("faq"): made}
    finally:
        target.destroy(op)
    assert not (one / ".llmctl").exists()


def test_a_package_that_fails_to_give_a_provider_is_named_without_its_words(site: Path, tmp_path: Path) -> None:
    install(site, "llmctl-odd", "odd = odd_kind:KIND")
    (site / "odd_kind.py").write_text(
        "from llmctl.core.kinds import Kind, Role\n"
        "class Odd:\n"
        "    kind, entry, fields = Kind('odd', 'odds', Role.RESOURCE, ()), None, {}\n"
        "    def provider(self, place): raise RuntimeError('canary-4711')\n"
        "KIND = Odd()\n"
    )
    with pytest.raises(ProviderError) as refused:
        LocalTarget(tmp_path, "acme", DEV).serve([Address("odd", "a")])
    assert "the kind 'odd' raised RuntimeError" in refused.value.summary
    assert "odd_kind.py:4" in refused.value.detail
    assert "canary" not in f"{refused.value.summary}{refused.value.detail}{refused.value.hint}"
