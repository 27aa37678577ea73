"""Simple templates are read without Jinja2, with the same answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.prompts import PromptError, template_variables
from llmctl.spec.prompts import variables_of

WORDS = st.sampled_from(["{{ a }}", "{{b}}", "{{ c_1 }}", "{{ true }}", "{{ range }}", "{", "}", " x ", "{ y }", "%"])


@given(parts=st.lists(WORDS, max_size=6))
def test_the_short_cut_agrees_with_jinja(parts: list[str]) -> None:
    source = "".join(parts)
    try:
        expected = template_variables(source)
    except PromptError:
        with pytest.raises(PromptError):
            variables_of(source)
    else:
        assert variables_of(source) == expected


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("plain", set()),
        ("{{ a | upper }} {% for x in b %}{{ x }}{% endfor %}", {"a", "b"}),
        ("{% set y = 1 %}{{ y }}{# {{ no }} #}{{ z.field }}", {"z"}),
    ],
)
def test_variables_of_templates(source: str, names: set[str]) -> None:
    assert variables_of(source) == names


@pytest.mark.parametrize("source", ["{{", "{% if %}", "{{ " + "(" * 5000 + " }}", "{{ " + "9" * 5000 + " }}"])
def test_templates_that_do_not_parse(source: str) -> None:
    with pytest.raises(PromptError):
        variables_of(source)
