"""A hosted API that is down: `status` asks it and says so, a plan does not ask and changes nothing for it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import InProcess
from tests.cli.project import Project
from tests.providers.fake_api import CANARY, FakeApi

pytestmark = pytest.mark.e2e
MODEL = '  hosted: {source: "openai:some", license: MIT, api_key: "${env:LLMCTL_TEST_KEY}"}\n'


def test_status_says_what_a_hosted_api_answers_now(project: Project, here: InProcess) -> None:
    api = FakeApi()
    try:
        project.replace("models:\n", f"models:\n{MODEL}")
        endpoint = f'  backup: {{model: hosted, engine: external, options: {{base_url: "{api.url}"}}}}\n'
        project.replace("endpoints:\n", f"endpoints:\n{endpoint}")
        project.replace("    endpoint: support\n", "    endpoint: support\n    fallback: [backup]\n")
        assert project.run("apply", "--yes", env={"LLMCTL_TEST_KEY": CANARY}).code == 0
        assert _backup(here) == (True, f"some at {api.url}")
        api.status = 500
        assert _backup(here) == (False, f"{api.url} answers HTTP 500")
    finally:
        api.close()
    assert _backup(here) == (False, "not reachable: Connection refused")
    shown = here("status")
    assert "not ready  not reachable: Connection refused" in shown.out
    assert CANARY not in shown.text
    assert (here("plan", "--detailed-exitcode").code, here("drift").code) == (0, 0)


def _backup(here: InProcess) -> tuple[bool, str]:
    found = {each["key"].partition("@")[0]: each for each in here("status", "--json").json()["endpoints"]}
    assert found["support"]["healthy"]
    return found["backup"]["healthy"], found["backup"]["detail"]
