"""YAML 1.2 as it is read here: values, places, limits."""

from __future__ import annotations

import time

import pytest

from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.spec.nodes import find, plain
from llmctl.spec.yaml_reader import decode, read


def _read(text: str) -> Json:
    tree, findings, _ = read(decode(text.encode(), "f.yaml"))
    assert findings == []
    return plain(tree)


def _refused(data: bytes) -> list[str]:
    try:
        return [f.summary for f in read(decode(data, "f.yaml"))[1]]
    except InvalidInput as error:
        return [f.summary for f in error.findings]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("~", None),
        ("", None),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("on", "on"),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("-7", -7),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2027-01-31", "2027-01-31"),
        ("0b11", "0b11"),
        ('"1"', "1"),
        ("'true'", "true"),
        ("!!str 1", "1"),
        ("-", None),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: Json) -> None:
    if text == "-":
        assert _read("a: [x, y]\nb: -1.5e-3") == {"a": ["x", "y"], "b": -0.0015}
    else:
        assert _read(f"a: {text}\n") == {"a": value}


def test_places_count_characters_from_one() -> None:
    tree, _, _ = read(decode("é: x\r\nb:\r\n  - {c: 'ü', d: \"w\"}\r\n".encode(), "f.yaml"))
    key, node, whole = find(tree, ("b", 0, "d"))
    assert whole
    assert key is not None
    assert (key.line, key.column) == (3, 14)
    assert (node.line, node.column, plain(node)) == (3, 17, "w")
    assert find(tree, ("b", 5))[2] is False


def test_aliases_repeat_a_value() -> None:
    assert _read("a: &x {k: [1]}\nb: *x\n") == {"a": {"k": [1]}, "b": {"k": [1]}}


def test_a_byte_order_mark_is_passed_over() -> None:
    assert _read("\ufeffa: 1\n") == {"a": 1}


@pytest.mark.parametrize(
    ("data", "summary"),
    [
        (b"a: \xff\n", "this is not UTF-8 text (byte 0xff)"),
        ("a: 1\n".encode("utf-16"), "this is not UTF-8 text (byte 0xff)"),
        (b"a: 1\nb: \x00\n", "the file holds a control character (U+0000)"),
        (b"%YAML 1.1\n---\na: 1\n", "only YAML 1.2 is read"),
        (b"a: " + b"[" * 100_000, "values are nested more than 64 deep"),
        (b"a: " + b"{a: " * 100_000, "values are nested more than 64 deep"),
        (b"a: " + b"9" * 100_000, "this number is too large"),
        (b"a: 0x" + b"f" * 100_000, "this number is too large"),
        (b"a: !!binary aGk=\n", "tags are not used in this file"),
        (b"a: 1\na: 2\n", "duplicate key `a`"),
        (b"? [a]\n: 1\n", "a key must be text, not a list or a map"),
        (b"true: 1\n", "a key must be text"),
        (b"a: @b\n", "a value cannot start with `@`"),
    ],
)
def test_what_is_not_read_says_why(data: bytes, summary: str) -> None:
    assert _refused(data) == [summary]


def test_the_place_of_a_bad_byte_is_given() -> None:
    with pytest.raises(InvalidInput) as caught:
        decode("a: 1\nbé: ".encode() + b"\xff", "f.yaml")
    where = caught.value.findings[0].where
    assert where is not None
    assert (where.line, where.column) == (2, 5)


def test_a_large_file_is_read_quickly() -> None:
    entry = "  p{}:\n    messages:\n      - {{role: user, content: '{}'}}\n    variables: {{question: string}}\n"
    text = "prompts:\n" + "".join(entry.format(i, "x" * 2000) for i in range(5000))
    assert len(text) > 10_000_000
    start = time.process_time()
    assert len(_read(text)["prompts"]) == 5000
    assert time.process_time() - start < 5


def test_an_alias_bomb_is_stopped_early() -> None:
    levels = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    start = time.process_time()
    assert _refused("\n".join(levels).encode()) == ["aliases repeat more than 10000 values"]
    assert time.process_time() - start < 0.5
