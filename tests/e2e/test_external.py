"""An endpoint behind an address with a key: the key is nowhere but in the gateway's secrets; fallback."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.project import DEADLINE_S, Project, wait_until

pytestmark = pytest.mark.e2e
SMALL = True
CANARY = "sk-CANARY-41d2c7e0b9aa"

HOSTED = """\
  hosted: {{source: "openai:support", license: MIT, api_key: "${{env:CANARY_KEY}}"}}
"""
BACKUP = """\
  backup: {{model: hosted, engine: external, options: {{base_url: "{url}"}}}}
"""


def _engine_url(project: Project) -> str:
    """Where the engine of another project answers."""
    engine = psutil.Process(project.one_of_each()["engine"])
    (listening,) = [c for c in engine.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return f"http://127.0.0.1:{listening.laddr.port}/v1"


def _declare(project: Project, url: str, *, primary: bool) -> None:
    project.edit("models:", "models:\n" + HOSTED.format().rstrip())
    project.edit("endpoints:", "endpoints:\n" + BACKUP.format(url=url).rstrip())
    if primary:
        project.edit("    endpoint: support", "    endpoint: backup")
    else:
        project.edit("    endpoint: support", "    endpoint: support\n    fallback: [backup]")


def _files_with_the_key(project: Project) -> list[Path]:
    found = []
    for path in sorted(project.base.rglob("*")):
        try:
            if path.is_file() and CANARY.encode() in path.read_bytes():
                found.append(path)
        except FileNotFoundError:
            continue  # a journal or a lock of git that has just gone
    return found


def _key_is_nowhere_else(project: Project, *texts: str) -> None:
    secrets = project.state() / "gateway" / "secrets.json"
    assert _files_with_the_key(project) == [secrets]
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o600
    for text in texts:
        assert CANARY not in text
    assert CANARY not in project.git("log", "-p", "--all")
    objects = project.git("cat-file", "--batch-all-objects", "--batch", "--unordered")
    assert "CANARY_KEY" in objects, "the name of the variable is recorded"
    assert CANARY not in objects
    for process in project.processes():
        assert CANARY not in " ".join(process.cmdline())
        assert CANARY not in str(process.environ())


def test_a_hosted_model_serves_and_its_key_is_nowhere(shared: Project, project: Project) -> None:
    _declare(project, _engine_url(shared), primary=True)

    unset = project.llmctl("plan")
    assert unset.code == 0
    refused = project.llmctl("apply", "--yes")
    assert refused.code == 1
    assert "environment variable CANARY_KEY is not set" in refused.err
    assert project.refs().keys() == {"refs/heads/main"}
    assert not (project.root / ".llmctl").exists()

    project.variables["CANARY_KEY"] = CANARY
    saved = project.ok("plan", "--out", "saved.json")
    process = project.start("apply", "--yes")
    assert process.stderr
    err = ""
    for line in process.stderr:
        err += line
        if "… gate:" in line:
            break
    meanwhile = _files_with_the_key(project)
    out, rest = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err + rest
    assert meanwhile == [project.state() / "gateway" / "secrets.json"], "not even while apply runs"

    reply = project.answers()
    assert reply.endpoint.startswith("backup@")
    texts = [saved.text, out, err, rest]
    for command in (("plan", "--json"), ("status", "--json"), ("drift",), ("logs",), ("audit", "show", "1", "--json")):
        texts.append(project.ok(*command).text)
    _key_is_nowhere_else(project, *texts)
    assert project.plan_code() == 0
    project.destroy()
    assert _files_with_the_key(project) == []


def test_the_fallback_answers_while_the_engine_is_stopped(shared: Project, project: Project) -> None:
    _declare(project, _engine_url(shared), primary=False)
    project.variables["CANARY_KEY"] = CANARY
    project.apply()
    served = project.answers()
    assert served.endpoint.startswith("support@")

    engine = project.one_of_each()["engine"]
    _supervisor(project, "stop", f"endpoint.{served.endpoint}")
    wait_until(lambda: not psutil.pid_exists(engine), "the end of the engine")
    reply = project.answers()
    assert reply.endpoint.startswith("backup@")
    assert reply.revision == served.revision
    status = project.status()
    assert [d["address"] for d in status["drift"]] == ["endpoint.support"]
    engines = {e["key"].partition("@")[0]: e["healthy"] for e in status["endpoints"]}
    assert engines == {"support": False, "backup": True}

    project.apply()
    assert project.answers().endpoint == served.endpoint
    assert project.plan_code() == 0
    _key_is_nowhere_else(project)


def _supervisor(project: Project, *arguments: str) -> None:
    socket = next(project.run.glob("*/supervisor.sock"))
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-s", f"unix://{socket}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=project.environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
