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
