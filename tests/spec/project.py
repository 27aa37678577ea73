"""A project on disk, with files that are right and files that are wrong in every way that matters."""

from __future__ import annotations

import json
from pathlib import Path

from llmctl.core.diagnostics import Diagnostic, render_plain
from llmctl.core.errors import InvalidInput
from llmctl.spec import Resolved, load, resolve
from tests.spec.tiny_gguf import tiny_gguf

GOOD = """\
apiVersion: llmctl/v1
project: acme
owner: team

environments:
  dev: {target: local}

datasets:
  train: {source: data/train.jsonl, license: MIT, sensitivity: public}
  eval:
    source: data/eval.jsonl
    columns: {question: string, answer: string}
    checks: {min_rows: 3, unique: [question], not_null: [question, answer]}

models:
  tiny:
    source: models/tiny.gguf
    adapters: [{source: models/tone.gguf, scale: 1}]
    license: Apache-2.0
    lineage: {base: somewhere, trained_on: [train], method: lora, hyperparameters: {rank: 8}}
    card: {intended_use: tests, limitations: many}
  hosted: {source: "openai:gpt-4.1-mini", license: proprietary, api_key: "${env:OPENAI_API_KEY}"}

prompts:
  answer:
    messages:
      - {role: system, content: You are an assistant.}
      - {role: user, content: "{{ question }}"}
    variables: {question: string}
    parameters: {temperature: 0, max_tokens: 96}

endpoints:
  support:
    model: tiny
    engine: llama.cpp
    context: 128
    options: {slots: 2}
  backup: {model: hosted, engine: external}

routes:
  support: {prompt: answer, endpoint: support, fallback: [backup]}

gates:
  faq:
    route: support
    dataset: eval
    inputs: {question: question}
    expected: answer
    metrics:
      exact_match: {min: 0.95, max_drop: 0.02}
      latency_p95_ms: {max: 500}

policies:
  open-licence:
    applies_to: model
    require: resource.license in ["Apache-2.0"]
    message: Models must carry an open licence.
"""


_METRICS = """\
      exact_match: {min: 0.95}
      bleu: {min: 0.4, decide: point}
      chrf: {max_drop: 0.1}
      regex: {pattern: '^A\\d', min: 0.9}
      json_schema: {schema: schemas/answer.json, min: 0.9}
      latency_p50_ms: {max: 200}
    slices: {id: {exact_match: {min: 0.5}, regex: {min: 0.1, decide: point}}}
    concurrency: 64
    timeouts: {request: 500ms, run: 2h}
"""


def _full() -> str:
    """The good file with all that it does not use."""
    changes = {
        "environments:": (
            "include: [parts/prompts.yaml, 'parts/more/*.yaml']\n"
            "moved: [{from: route.help, to: route.support}, {from: prompt.old, to: prompt.answer}]\n\nenvironments:"
        ),
        "dev: {target: local}": (
            "dev: {target: local}\n"
            "  prod: {target: local, promote_from: dev, overrides: {prompts: {short: {protect: true}}}}"
        ),
        "    context: 128": (
            "    context: 128\n    replicas: {min: 2, max: 2}\n    timeouts: {ready: 0.5h}\n    protect: false"
        ),
        "You are an assistant.": '"Be ${file:texts/tone.txt}."',
        "fallback: [backup]}": "fallback: [backup], protect: true, rollout: {canary: [10, 50, 100], hold: 1.5m}}",
        "      exact_match: {min: 0.95, max_drop: 0.02}\n      latency_p95_ms: {max: 500}\n": _METRICS,
        "    message:": (
            "    waivers:\n      - {resource: model.tiny, until: 2999-01-31, reason: r, approved_by: me}\n    message:"
        ),
    }
    text = GOOD
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    return text


FULL = _full()


def _lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_project(root: Path, text: str = GOOD) -> Path:
    """Write a project and return the path of its ``llmops.yaml``."""
    data, models = root / "data", root / "models"
    data.mkdir(parents=True, exist_ok=True)
    models.mkdir(exist_ok=True)
    rows: list[dict[str, object]] = [{"question": f"Q{i}?", "answer": f"A{i}.", "id": i} for i in range(4)]
    (data / "eval.jsonl").write_text(_lines(rows))
    (data / "train.jsonl").write_text(_lines([{"question": "Other?", "answer": "Yes."}]))
    (data / "shared.jsonl").write_text(_lines([{"question": " q2? "}, {"question": "new"}, {"question": "Q3?"}]))
    untidy: list[dict[str, object]] = [
        {"question": "a", "answer": "x", "score": 1},
        {"question": "a", "answer": None, "score": "many"},
        {"question": "a", "score": 2},
    ]
    (data / "untidy.jsonl").write_text(_lines(untidy))
    _more_files(root)
    (data / "broken.jsonl").write_text('{"question": "a"}\n[1, 2]\n')
    (data / "notjson.jsonl").write_text('{"question": "a"}\n\n{"question": secret}\n')
    (data / "empty.jsonl").write_text("")
    (data / "ragged.csv").write_text("question,answer\na,b\nc\n")
    (data / "rows.csv").write_text("question,answer,score\na,b,1\nc,d,x\n")
    model = tiny_gguf()
    (models / "tiny.gguf").write_bytes(model)
    (models / "tone.gguf").write_bytes(tiny_gguf(adapter=True))
    (models / "gpt2-tone.gguf").write_bytes(tiny_gguf(adapter=True, architecture="gpt2"))
    (models / "cut.gguf").write_bytes(model[:-20])
    (models / "headless.gguf").write_bytes(model[:80])
    (models / "text.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    (models / "split.gguf").write_bytes(tiny_gguf(extra={"split.count": 3}))
    (models / "old.gguf").write_bytes(tiny_gguf(version=1))
    path = root / "llmops.yaml"
    path.write_text(text)
    return path


def _more_files(root: Path) -> None:
    """Files to include, texts and schemas."""
    for folder in ("parts", "parts/more", "texts", "schemas"):
        (root / folder).mkdir(exist_ok=True)
    files = {
        "parts/prompts.yaml": "prompts:\n  short:\n    messages: [{role: system, content: Be brief.}]\n",
        "parts/more/routes.yaml": "routes:\n  short: {prompt: short, endpoint: support}\ngates:\n",
        "parts/nested.yaml": "project: other\ninclude: [prompts.yaml]\nenvironments: {}\nprompt: {}\nguardrails: {}\n",
        "parts/twice.yaml": "models:\n  tiny: {source: models/tiny.gguf}\nprompts: [answer]\n",
        "parts/typo.yaml": "prompts:\n  typo:\n    mesages: [{role: system, content: Be brief.}]\n",
        "parts/broken.yaml": "prompts:\n  broken: [\n",
        "parts/empty.yaml": "# nothing yet\n",
        "parts/secret.yaml": "models:\n  theirs: {source: 'openai:x', api_key: CANARY-in-a-part}\n",
        "texts/help.txt": "Answer from ${env:HOME} and {{ question }}.\n",
        "texts/tone.txt": "polite\n",
        "schemas/answer.json": '{"type": "object", "required": ["answer"]}',
        "schemas/wrong.json": '{"type": "objekt"}',
        "schemas/remote.json": '{"$ref": "https://example.com/answer.json"}',
        "schemas/broken.json": '{"type": ',
    }
    for name, text in files.items():
        (root / name).write_text(text)
    with (root / "texts" / "large.txt").open("wb") as file:
        file.truncate(1_100_000)
    (root / "texts" / "binary.txt").write_bytes(b"GIF89a\xff\x00")


def resolved(path: Path, environment: str = "dev") -> Resolved:
    """Load and resolve in one go."""
    return resolve(load(path), environment)


def rendered(path: Path) -> str:
    """Every finding about a file in every environment, as the command line would print it."""
    try:
        document = load(path)
        findings: list[Diagnostic] = []
        for environment in document.environments:
            try:
                findings += resolve(document, environment).warnings
            except InvalidInput as error:
                findings += error.diagnostics()
    except InvalidInput as error:
        findings = error.diagnostics()
    return "\n".join(render_plain(finding) for finding in findings)
