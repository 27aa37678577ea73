#!/usr/bin/env python3
"""Serve a model with llama.cpp (xllamacpp), ask it every question of the evaluation file, and count.

    python evaluate.py ../models/support-tiny.gguf
    python evaluate.py ../models/support-tiny.gguf --lora ../models/tone-lora.gguf
    python evaluate.py ../models/support-tiny.gguf --system "You are Acme's support assistant. Be brief."
    python evaluate.py ../models/support-tiny.gguf --user "{{ question }} Answer in French."

Greedy decoding (temperature 0), the server configured much as the local target of llmctl does it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import xllamacpp
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import beta

EVAL = Path(__file__).resolve().parent.parent / "data" / "faq_eval.jsonl"
SYSTEM, USER = "You are Acme's support assistant.", "{{ question }}"
SLOTS, CONTEXT, MAX_TOKENS = 4, 512, 48
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Answer:
    """What the model said to one row of the evaluation file, and what it should have said."""

    id: str
    question: str
    expected: str
    said: str
    seconds: float


def start_server(model: Path, adapter: Path | None) -> xllamacpp.Server:
    """Load the model and listen on a free port of the loopback interface. Raises RuntimeError for a bad file."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.offline, params.ui = True, False
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * CONTEXT  # the context is shared out among the slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # more threads only spin at this size
    params.n_threads_http, params.cache_ram_mib, params.verbosity = 16, 64, 0
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    return xllamacpp.Server(params)


def ask(address: str, row: dict[str, str], system: str, user: str) -> Answer:
    """Send one row."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": user.replace("{{ question }}", row["question"])})
    body = {"messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=30) as response:
        said: str = json.load(response)["choices"][0]["message"]["content"]
    return Answer(row["id"], row["question"], row["answer"], said, time.perf_counter() - start)


def lower_bound(right: int, total: int) -> float:
    """One-sided Clopper-Pearson bound: the share right is at least this, at the gate's confidence."""
    return float(beta.ppf(1 - CONFIDENCE, right, total - right + 1)) if right else 0.0


def report(answers: list[Answer], show_wrong: bool) -> None:
    """Print the wrong answers (when asked for) and one line of figures."""
    wrong = [answer for answer in answers if answer.said.strip() != answer.expected]
    scorer = RougeScorer(["rougeL"])
    rouge = sum(scorer.score(a.expected, a.said)["rougeL"].fmeasure for a in answers) / len(answers)
    slow = sorted(answer.seconds for answer in answers)[int(0.95 * len(answers))]
    if show_wrong:
        for answer in wrong:
            print(f"  {answer.id:16} {answer.question}\n{'':18} said {answer.said!r}, expected {answer.expected!r}")
    total, right = len(answers), len(answers) - len(wrong)
    print(
        f"exact_match {right}/{total} = {right / total:.3f} (at least {lower_bound(right, total):.3f} "
        f"at {CONFIDENCE:.0%})  rouge_l {rouge:.3f}  latency p95 {slow * 1000:.0f} ms"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--lora", type=Path, help="an adapter, at scale 1.0")
    parser.add_argument("--system", action="append", help="a system prompt instead of the default; may be repeated")
    parser.add_argument("--user", default=USER, help="the user message; {{ question }} stands for the question")
    parser.add_argument("--wrong", action="store_true", help="list what it answered wrongly")
    options = parser.parse_args()
    rows = [json.loads(line) for line in EVAL.read_text(encoding="utf-8").splitlines()]
    server = start_server(options.model, options.lora)
    for system in options.system or [SYSTEM]:
        one = partial(ask, server.listening_address, system=system, user=options.user)
        with ThreadPoolExecutor(SLOTS) as pool:
            answers = list(pool.map(one, rows))
        print(f"{options.model.name}{f' + {options.lora.name}' if options.lora else ''}, system {system!r}")
        report(answers, options.wrong)
    return 0


if __name__ == "__main__":
    sys.exit(main())
