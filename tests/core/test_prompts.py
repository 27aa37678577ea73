"""Prompts: values are data, and never rendered again."""

from __future__ import annotations

import pytest

from llmctl.core.prompts import PromptError, check_variables, render, template_variables

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q: {{ question }}"}]


@pytest.mark.parametrize("value", ["{{ 7 * 7 }}", "{% raw %}", "{{ question }}", "{# x #}", "{", "é\n"])
def test_a_value_is_never_a_template(value: str) -> None:
    rendered = render(MESSAGES, {"question": "string"}, {"question": value})
    assert rendered[1]["content"] == f"Q: {value}"
    assert rendered[0] == MESSAGES[0]


def test_the_sandbox_holds() -> None:
    hostile = [{"role": "user", "content": "{{ question.__class__.__mro__ }}"}]
    with pytest.raises(PromptError):
        render(hostile, {"question": "string"}, {"question": "x"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "variable missing: question"),
        ({"question": "x", "extra": 1}, "unknown prompt variable: extra; declared: question"),
        ({"question": 3}, "question must be a string, not int"),
    ],
)
def test_wrong_variables_are_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(PromptError, match=said):
        check_variables({"question": "string"}, given)


def test_true_is_not_a_number() -> None:
    with pytest.raises(PromptError, match="must be a number"):
        check_variables({"n": "number"}, {"n": True})


def test_a_templates_variables_are_found_and_a_broken_one_is_explained() -> None:
    assert template_variables("{{ a }} {% for x in b %}{{ x }}{% endfor %}") == {"a", "b"}
    assert template_variables("plain") == frozenset()
    with pytest.raises(PromptError, match="line 2"):
        template_variables("one\n{{ a")


def test_a_field_that_is_not_there_is_an_error_not_an_empty_text() -> None:
    messages = [{"role": "user", "content": "{{ item.name }}"}]
    with pytest.raises(PromptError):
        render(messages, {"item": "object"}, {"item": {}})
