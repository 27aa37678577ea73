"""The recipes of ``docs/ci``, played: two clones, a bare remote, a forge that speaks the calls that they make.

What is not played are the forges themselves: what they put into a job's environment, and what they withhold from the
pipelines of forks, rests on their documentation (docs/ci/index.md says which statement rests on what).
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.digests import Json
from tests.e2e.pipelines import RECIPES, TOKEN, Artifact, Forge, Ran, Runner, recipe, strangers_note
from tests.e2e.project import ONE_SENTENCE, SYSTEM, Project

pytestmark = pytest.mark.e2e
PROD = "prod: {target: local, record: {remote: origin, sign: required}}"
CANARY = "CANARY-env-51d0"
MARKER = "<!-- llmctl plan prod -->"
INJECTION = "down\"; touch pwned; $(touch pwned) `touch pwned` 'x' ${HOME}"


class Play:
    """One repository on a forge: a developer's clone, a bare remote, and the runner on which prod runs."""

    def __init__(self) -> None:
        self.runner_project = Project.make(small=True)
        self.forge = Forge()
        project = self.runner_project
        project.edit("dev: {target: local}", PROD)
        for file in (".github/llmctl.txt", "ci/llmctl.txt"):
            path = project.root / file
            path.parent.mkdir(exist_ok=True)
            path.write_text("llmctl==0.1 --hash=sha256:0\n")
        project.commit("prod")
        self.base = project.base
        self.remote = self.base / "origin.git"
        project.git("clone", "-q", "--bare", str(project.root), str(self.remote))
        project.git("remote", "add", "origin", str(self.remote))
        self.clone = self.base / "developer"
        project.git("clone", "-q", str(self.remote), str(self.clone))
        self.runner = Runner(self.forge, project, project.root)
        self.key = self.base / "home/key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.key)], check=True)
        public = self.key.with_suffix(".pub").read_text().strip()
        self.allowed = f'llmctl-ci@example.org namespaces="git" {public}'

    def git(self, *arguments: str) -> str:
        return self.runner_project.git("-C", str(self.clone), *arguments).strip()

    def edit(self, old: str, new: str) -> None:
        path = self.clone / "llmops.yaml"
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    def push(self, branch: str, message: str) -> str:
        self.git("commit", "-q", "-am", message)
        self.git("push", "-q", "origin", f"HEAD:refs/heads/{branch}")
        return self.git("rev-parse", "HEAD")

    def merge_ref(self, head: str) -> str:
        """What the forge makes of a pull request to look at: its merge with main, which nobody pushed."""
        tree = self.git("rev-parse", f"{head}^{{tree}}")
        made = self.git("commit-tree", "-p", "origin/main", "-p", head, "-m", "merge", tree)
        self.git("push", "-q", "--force", "origin", f"{made}:refs/pull/1/merge")
        return made

    def merge(self, head: str) -> str:
        """Merge a pull request, and tell the forge which."""
        made = self.merge_ref(head)
        self.git("push", "-q", "origin", f"{made}:refs/heads/main")
        self.git("fetch", "-q", "origin")
        self.forge.pulls[made] = {"merge_commit_sha": made, "head": {"sha": head}}
        return made

    def record(self) -> str:
        refs = self.runner_project.git(
            "-C", str(self.remote), "for-each-ref", "--format=%(objectname)", "refs/heads/llmctl"
        )
        return refs.strip()

    def decisions(self, serial: int) -> Json:
        path = f"refs/heads/llmctl/prod:decisions/{serial}.json"
        return json.loads(self.runner_project.git("-C", str(self.remote), "show", path))

    def readable(self) -> str:
        """All that somebody can read on the forge afterwards: logs, comments, artifacts, and every object in git."""
        objects = self.runner_project.git("-C", str(self.remote), "cat-file", "--batch", "--batch-all-objects")
        return "\n".join([*self.forge.logs, *(note["body"] for note in self.forge.notes), objects])

    def end(self) -> None:
        self.forge.end()
        self.runner_project.end()


@pytest.fixture
def play() -> Iterator[Play]:
    made = Play()
    try:
        yield made
    finally:
        made.end()


def pull_request(head: str) -> dict[str, str]:
    return {
        "github.event_name": "pull_request",
        "github.base_ref": "main",
        "github.ref_name": "1/merge",
        "github.repository": "acme/app",
        "github.event.pull_request.number": "1",
        "github.event.pull_request.head.sha": head,
        "github.event.pull_request.head.repo.full_name": "acme/app",
    }


def on_main(play: Play, sha: str, **more: str) -> dict[str, str]:
    return {
        "github.event_name": "push",
        "github.ref_name": "main",
        "github.repository": "acme/app",
        "github.sha": sha,
        "secrets.LLMCTL_SIGNING_KEY": play.key.read_text().strip(),
        "vars.LLMCTL_ALLOWED_SIGNERS": play.allowed,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def test_github_from_a_pull_request_to_what_serves(play: Play) -> None:
    runner, forge, project = play.runner, play.forge, play.runner_project
    first = play.git("rev-parse", "HEAD")

    # The first apply: nobody could review a plan of it.
    unreviewed = runner.github("apply", on_main(play, first), "refs/heads/main")
    assert unreviewed.code == 1
    assert "was not merged by a pull request" in unreviewed.log
    begun = runner.github("apply", on_main(play, first, vars__LLMCTL_APPLY="fresh"), "refs/heads/main")
    assert begun.code == 0, begun.log
    assert "Applied." in begun.summary
    _signed_head_is_published(play, begun)

    # A pull request: its plan is a comment, and the next push brings that comment up to date.
    forge.notes += [strangers_note(n, f"{MARKER}\nmine") for n in range(1, 121)]
    play.edit(SYSTEM, ONE_SENTENCE)
    head = play.push("change", "one sentence")
    opened = runner.github("plan", pull_request(head), _merged(play, head))
    assert opened.code == 0, opened.log
    (comment,) = forge.our_notes()
    assert comment["body"].startswith(f"{MARKER}\n## llmctl: `acme-support` in `prod`")
    assert "prompt.answer" in comment["body"]
    assert "model.support-tiny" not in comment["body"].split("<details>")[0]
    play.edit("max_tokens: 48", "max_tokens: 40")
    head = play.push("change", "fewer tokens")
    assert runner.github("plan", pull_request(head), _merged(play, head)).code == 0
    (updated,) = forge.our_notes()
    assert updated["id"] == comment["id"]
    assert updated["body"] != comment["body"]
    assert "parameters.max_tokens" in updated["body"]
    assert all(note["body"] == f"{MARKER}\nmine" for note in forge.notes if note["user"]["login"] == "mallory")

    # It is merged: exactly the plan that was reviewed is applied.
    before = project.answers("prod").revision
    merged = play.merge(head)
    applied = runner.github("apply", on_main(play, merged), "refs/heads/main")
    assert applied.code == 0, applied.log
    assert project.answers("prod").revision != before
    _signed_head_is_published(play, applied)
    reviewed = next(a for a in reversed(forge.artifacts) if a.name == f"llmctl-plan-prod-{head}")
    decided = play.decisions(2)
    assert decided["plan"].encode() in _content(reviewed)
    assert decided["actor"] == "llmctl in CI <llmctl-ci@example.org>"

    # The next day somebody looks whether all that is still so.
    audit = {**on_main(play, merged), "github.event_name": "schedule"}
    verified = runner.github("audit", audit, "refs/heads/main")
    assert verified.code == 0, verified.log

    # A plan that is no longer true is refused, and says so; an emergency goes past it, with its reason.
    play.edit("temperature: 0", "temperature: 0.1")
    head = play.push("stale", "warmer")
    assert runner.github("plan", pull_request(head), _merged(play, head)).code == 0
    play.edit("max_tokens: 40", "max_tokens: 44")
    play.git("commit", "-q", "-am", "and something that nobody planned")
    unplanned = play.git("rev-parse", "HEAD")
    merged = play.merge(unplanned)
    forge.pulls[merged]["head"]["sha"] = head
    there = play.record()
    stale = runner.github("apply", on_main(play, merged), "refs/heads/main")
    assert stale.code == 6, stale.log
    assert "The plan is stale" in stale.summary
    assert play.record() == there
    emergency = {**on_main(play, merged), "github.event_name": "workflow_dispatch", "inputs.break_glass": INJECTION}
    broken = runner.github("apply", emergency, "refs/heads/main")
    assert broken.code == 0, broken.log
    assert list(play.base.rglob("pwned")) == []
    assert play.decisions(3)["break_glass"]["reason"] == INJECTION

    # Whoever takes entries away is found.
    play.git("push", "-q", "--force", "origin", f"{there}:refs/heads/llmctl/prod")
    cut = Runner(forge, project, play.clone).github("audit", audit, "refs/heads/main")
    assert cut.code == 1
    assert "expected was" in cut.log
    _nothing_leaked(play)


def test_github_shows_a_fork_its_plan_and_nothing_else(play: Play) -> None:
    fork = Runner(play.forge, play.runner_project, play.clone, {"PROD_PASSWORD": CANARY})
    play.edit(SYSTEM, "content: 'Say ${env:PROD_PASSWORD} and ${file:../home/key} and ${file:.git/config}'")
    head = play.push("fork", "give me that")
    context = pull_request(head) | {"github.event.pull_request.head.repo.full_name": "mallory/app"}
    refused = fork.github("plan-of-a-fork", context, _merged(play, head))
    assert refused.code == 1
    assert "leaves the project's folder" in refused.log
    play.edit(" and ${file:../home/key} and ${file:.git/config}", "")
    head = play.push("fork", "only that")
    planned = fork.github("plan-of-a-fork", context, _merged(play, head))
    assert planned.code == 0, planned.log
    assert "${env:PROD_PASSWORD}" in planned.summary
    assert play.forge.calls == []  # it has no token, and asks nothing
    with pytest.raises(AssertionError, match="would not run"):
        fork.github("plan", context, _merged(play, head))
    with pytest.raises(AssertionError, match="would not run"):
        fork.github("apply", context, _merged(play, head))
    applied = play.runner_project
    applied.variables["LLMCTL_UNTRUSTED"] = "1"
    assert "trusts its file" in applied.llmctl("apply", "--yes").err
    _nothing_leaked(play)


def test_what_goes_with_untrusted_and_what_does_not(play: Play) -> None:
    project = play.runner_project
    assert "is valid" in project.ok("validate", "--untrusted").out
    assert "live state unknown" in project.ok("plan", "--untrusted").out
    project.ok("plan", "--untrusted", "--out", "plan.json")
    assert "it is an offline plan" in project.llmctl("apply", "plan.json", "--yes").err.replace("plan.json is", "it is")
    for words, said in (
        (("apply", "--untrusted", "--yes"), "no such option"),
        (("plan", "--untrusted", "--from-record", "/elsewhere"), "exclude each other"),
        (("plan", "plan.json", "--untrusted"), "FILE shows a saved one"),
    ):
        refused = project.llmctl(*words)
        assert refused.code == 1
        assert said in refused.err
    project.variables["LLMCTL_UNTRUSTED"] = "1"
    for command in ("apply", "destroy", "rollback"):
        assert f"`llmctl {command}` trusts its file" in project.llmctl(command, "--yes").err
    assert project.processes() == []


def test_gitlab_from_a_merge_request_to_what_serves(play: Play) -> None:
    runner, forge, project = play.runner, play.forge, play.runner_project
    signers = play.base / "home/allowed"
    signers.write_text(play.allowed + "\n")
    main = {
        "CI_COMMIT_BRANCH": "main",
        "LLMCTL_SIGNING_KEY": str(play.key),
        "LLMCTL_ALLOWED_SIGNERS": str(signers),
        "CI_JOB_TOKEN": TOKEN,
    }
    request = {
        "CI_MERGE_REQUEST_IID": "1",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "LLMCTL_GITLAB_TOKEN": TOKEN,
    }
    assert runner.gitlab("llmctl-plan-of-main", main, "refs/heads/main").code == 0
    begun = runner.gitlab("llmctl-apply", main, "refs/heads/main")
    assert begun.code == 0, begun.log
    assert play.record() == forge.artifacts[-1].content.decode().strip()
    verified = runner.gitlab("llmctl-audit", main, "refs/heads/main")
    assert verified.code == 0, verified.log

    forge.notes.append(strangers_note(1, f"{MARKER}\nmine"))
    play.edit(SYSTEM, ONE_SENTENCE)
    head = play.push("change", "one sentence")
    opened = runner.gitlab("llmctl-plan", request, _merged(play, head))
    assert opened.code == 0, opened.log
    play.edit("max_tokens: 48", "max_tokens: 40")
    head = play.push("change", "fewer tokens")
    assert runner.gitlab("llmctl-plan", request, _merged(play, head)).code == 0
    (note,) = forge.our_notes()
    assert note["body"].startswith(f"{MARKER}\n## llmctl: `acme-support` in `prod`")
    assert "parameters.max_tokens" in note["body"]
    play.edit("prompt: answer", "prompt: anwser")
    head = play.push("change", "a slip")
    wrong = runner.gitlab("llmctl-plan", request, _merged(play, head))
    assert wrong.code == 1
    (note,) = forge.our_notes()
    assert "no plan for `prod`" in note["body"]
    assert "there is no prompt 'anwser'" in note["body"].replace('"', "'")

    # What was planned after the merge is applied as it was planned, or not at all.
    play.git("revert", "--no-edit", "HEAD")
    merged = play.merge(play.git("rev-parse", "HEAD"))
    assert runner.gitlab("llmctl-plan-of-main", main, "refs/heads/main").code == 0
    play.git("checkout", "-q", "--detach", merged)
    play.edit("max_tokens: 40", "max_tokens: 44")
    play.push("main", "meanwhile")
    there = play.record()
    stale = runner.gitlab("llmctl-apply", main, "refs/heads/main")
    assert stale.code == 6, stale.log
    assert "The plan is stale" in stale.log
    assert play.record() == there

    mallory = Runner(forge, project, play.clone, {"PROD_PASSWORD": CANARY})
    play.edit(ONE_SENTENCE, "content: 'Say ${env:PROD_PASSWORD}.'")
    head = play.push("fork", "give me that")
    calls = len(forge.calls)
    fork = {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "CI_MERGE_REQUEST_PROJECT_URL": str(play.remote)}
    planned = mallory.gitlab("llmctl-plan-of-a-fork", fork, _merged(play, head))
    assert planned.code == 0, planned.log
    assert "${env:PROD_PASSWORD}" in planned.log
    assert len(forge.calls) == calls
    _nothing_leaked(play)


def _merged(play: Play, head: str) -> str:
    play.merge_ref(head)
    return "refs/pull/1/merge"


def _content(artifact: Artifact) -> bytes:
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(artifact.content)) as archive:
        return archive.read(archive.namelist()[0])


def _signed_head_is_published(play: Play, ran: Ran) -> None:
    head = play.record()
    assert f"Head of the record: `{head}`" in ran.summary
    published = [a for a in play.forge.artifacts if a.name == "llmctl-head-prod"][-1]
    assert _content(published).decode().strip() == head
    signers = play.base / "home/allowed"
    signers.write_text(play.allowed + "\n")
    option = f"gpg.ssh.allowedSignersFile={signers}"
    play.runner_project.git("-C", str(play.remote), "-c", option, "verify-commit", head)


def _nothing_leaked(play: Play) -> None:
    told = play.readable()
    private = play.key.read_text().splitlines()[2]
    for secret in (CANARY, TOKEN, private):
        assert secret not in told
    left = subprocess.run(
        ["grep", "-rlF", "-e", TOKEN, "-e", private, str(play.runner_project.root), str(play.clone)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert left.stdout == ""


# -- the files themselves -----------------------------------------------------------------------


def _jobs() -> Iterator[tuple[str, str, Json]]:
    for name, job in recipe("github-actions.yml")["jobs"].items():
        yield "github-actions.yml", name, job
    for name, job in recipe("gitlab-ci.yml").items():
        if isinstance(job, dict) and "script" in job:
            yield "gitlab-ci.yml", name, job


def _scripts(job: Json) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step] if "steps" in job else list(job["script"])


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, name, _ in _jobs()])
def test_a_script_is_bash_and_takes_nothing_by_interpolation(file: str, name: str, tmp_path: Path) -> None:
    job = next(job for f, n, job in _jobs() if (f, n) == (file, name))
    for script in _scripts(job):
        assert "${{" not in script, "a title or a branch's name would become a command: pass it by `env:`"
        path = tmp_path / "script.sh"
        path.write_text(script)
        done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        assert "set -x" not in script


def test_what_github_is_given_is_least() -> None:
    whole = recipe("github-actions.yml")
    events = whole[True] if True in whole else whole["on"]  # YAML 1.1 takes `on` for true
    assert set(events) == {"pull_request", "push", "schedule", "workflow_dispatch"}
    assert whole["permissions"] == {}
    rights = {name: job["permissions"] for name, job in whole["jobs"].items()}
    assert rights == {
        "plan": {"contents": "read", "pull-requests": "write"},
        "plan-of-a-fork": {"contents": "read"},
        "apply": {"actions": "read", "contents": "write", "pull-requests": "read"},
        "audit": {"actions": "read", "contents": "read"},
    }
    for job in whole["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
    text = (RECIPES / "github-actions.yml").read_text()
    assert all("# v" in line for line in text.splitlines() if "uses:" in line)
    assert text.count("--require-hashes") == 4


def test_an_apply_is_never_cancelled_and_a_fork_gets_no_secret() -> None:
    jobs = recipe("github-actions.yml")["jobs"]
    assert jobs["apply"]["concurrency"] == {"group": "llmctl-apply-prod", "cancel-in-progress": False}
    assert jobs["apply"]["environment"] == "prod"
    fork = str(jobs["plan-of-a-fork"])
    for secret in ("secrets.", "github.token", "vars.LLMCTL_RUNNER"):
        assert secret not in fork
    assert "'persist-credentials': False" in fork
    assert jobs["plan-of-a-fork"]["env"]["LLMCTL_UNTRUSTED"] == "1"
    gitlab = recipe("gitlab-ci.yml")
    assert gitlab["llmctl-apply"]["resource_group"] == "llmctl-prod"
    assert gitlab["llmctl-apply"]["interruptible"] is False
    theirs = str(gitlab["llmctl-plan-of-a-fork"])
    assert not re.search(r"LLMCTL_(GITLAB_TOKEN|SIGNING_KEY)|tags", theirs)


def test_the_recipes_have_the_form_that_their_forges_ask_for() -> None:
    """By structure: the published JSON schemas of the forges are in no package that can be had offline."""
    for name, job in recipe("github-actions.yml")["jobs"].items():
        assert job.keys() <= {
            *("if", "runs-on", "timeout-minutes", "permissions", "concurrency", "env", "environment", "steps")
        }, name
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert step.keys() <= {"name", "id", "if", "uses", "with", "env", "run"}
    gitlab = recipe("gitlab-ci.yml")
    for name, job in gitlab.items():
        if name in ("stages", "variables", "workflow", ".llmctl"):
            continue
        assert job["stage"] in gitlab["stages"]
        assert job.keys() <= {
            *("extends", "stage", "tags", "interruptible", "timeout", "rules", "script", "artifacts", "variables"),
            *("resource_group", "environment", "needs", "cache"),
        }, name
        assert all(rule.keys() <= {"if", "when"} for rule in job["rules"])
