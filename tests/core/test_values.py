"""Addresses, exit codes, digests, secrets, evidence: the words of every other room."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from llmctl.core.address import Address
from llmctl.core.digests import canonical_json, digest, revision
from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.core.exits import ExitCode, first_that_applies
from llmctl.core.kinds import kind_of
from llmctl.core.resources import Key
from llmctl.core.secrets import Secret

CANARY = "sk-canary-8d1f"


@pytest.mark.parametrize(
    "text", ["prompt", "prompt.", ".x", "prompt.a/b", "prompt.a b", "prompt...", "Prompt.a", "prompt.A"]
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        Address.parse(text)


def test_an_address_reads_back() -> None:
    assert Address.parse("prompt.answer-2") == Address("prompt", "answer-2")
    assert str(Address.parse("route.a_b")) == "route.a_b"


def test_a_key_reads_back() -> None:
    assert Key.parse("support@3fa9") == Key("support", "3fa9")
    assert str(Key("support")) == "support"


@pytest.mark.parametrize(
    ("codes", "first"),
    [
        ([], 0),
        ([2, 0], 2),
        ([4, 3], 3),
        ([4, 1], 1),
        ([1, 130], 130),
        ([6, 5], 5),
        ([3, 6], 6),
    ],
)
def test_the_first_exit_code_that_applies_wins(codes: list[int], first: int) -> None:
    assert first_that_applies(ExitCode(c) for c in codes) == first


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret(CANARY)
    shown = [
        str(secret),
        repr(secret),
        f"{secret}",
        f"{secret:>40}",
        " ".join([str(secret)]),
        repr([secret]),
        repr({"k": secret}),
    ]
    assert not [text for text in shown if CANARY in text]
    assert secret.reveal() == CANARY


@pytest.mark.parametrize("leak", [json.dumps, pickle.dumps, copy.copy, copy.deepcopy, list, "".join])
def test_a_secret_cannot_be_serialised(leak: object) -> None:
    with pytest.raises(TypeError) as caught:
        leak(Secret(CANARY))  # type: ignore[operator]
    assert CANARY not in str(caught.value)


def test_equal_content_has_equal_digests_whatever_the_order() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert len(revision({"a": 1})) == 16


def test_a_path_or_a_licence_makes_no_new_revision_but_weights_do() -> None:
    kind = kind_of("model")
    spec = {"source": "a.gguf", "license": "MIT", "weights": {"digest": "sha256:1", "adapters": []}}
    assert kind.revision(spec) == kind.revision({**spec, "source": "b.gguf", "license": "Apache-2.0"})
    assert kind.revision(spec) != kind.revision({**spec, "weights": {"digest": "sha256:2", "adapters": []}})


def test_evidence_reads_back_and_its_digest_covers_every_number() -> None:
    judgement = Judgement("exact_match", "min", 0.95, 1.0, 0.98, 1.0, 210, 0.95, "clopper-pearson", Verdict.PASS)
    evidence = Evidence(
        gate="faq",
        gate_revision="g",
        gate_spec={"metrics": {"exact_match": {"min": 0.95}}},
        route="support",
        route_revision="r",
        baseline_revision="",
        dataset_digest="sha256:1",
        key="k",
        samples=210,
        judgements=(judgement,),
        verdict=Verdict.PASS,
        failing=("refund-06",),
    )
    stored = json.loads(json.dumps(evidence.to_json()))
    assert Evidence.from_json(stored) == evidence
    assert Evidence.from_json({**stored, "later": "field"}).digest == evidence.digest
    stored["judgements"][0]["lower"] = 0.9800001
    assert Evidence.from_json(stored).digest != evidence.digest
