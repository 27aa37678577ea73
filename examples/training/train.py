#!/usr/bin/env python3
"""Train the example's models in plain numpy, on one core, in about a minute.

    python train.py             write ../models/*.gguf and ../models/SHA256SUMS
    python train.py --check     compare the hand-written gradients with finite differences, write nothing

Three files come out:

    support-tiny.gguf         the good model
    support-tiny-early.gguf   the same run, stopped early: visibly worse
    tone-lora.gguf            an adapter for the good model: friendlier on a few facts, and thereby worse on the gate

Learns from ../data/faq_train.jsonl only (build_data.py writes it); ../data/faq_eval.jsonl is not opened here.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy loads; the matrices are too small to share out

import numpy as np
from bpe import Tokenizer
from gguf_files import write_adapter, write_model
from llama import EMBEDDING, Adam, Array, Batch, Shape, Weights, loss_and_gradients, new_weights
from samples import SYSTEM_DEFAULT, Row, Varier, encode_chat, epoch, load_rows, to_batch, tokenizer_texts

HERE = Path(__file__).resolve().parent
DATA, MODELS = HERE.parent / "data", HERE.parent / "models"
GOOD, EARLY, TONE = "support-tiny.gguf", "support-tiny-early.gguf", "tone-lora.gguf"


@dataclass(frozen=True)
class Recipe:
    """How the good model is trained."""

    vocabulary: int = 1024
    dim: int = 96
    layers: int = 2
    heads: int = 4
    ffn: int = 192
    epochs: int = 160
    early_epoch: int = 16
    batch: int = 30
    rate: float = 2e-3
    decay: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class ToneRecipe:
    """How the tone adapter is trained."""

    rank: int = 8
    alpha: float = 16.0
    epochs: int = 30
    batch: int = 30
    rate: float = 4e-3
    seed: int = 2
    replay: float = 0.5  # the share of the other facts' rows that remind it of what it knew
    layers: tuple[str, ...] = ("attn_q", "attn_v", "ffn_gate", "ffn_up", "ffn_down")


def learning_rate(top: float, done: int, total: int, warm_up: int = 30) -> float:
    """Up in a line, then down along a cosine to 2 % of `top`."""
    fall = 0.5 * (1 + math.cos(math.pi * done / total))
    return top * min(1.0, (done + 1) / warm_up) * max(0.02, fall)


def train_model(rows: Sequence[Row], tokenizer: Tokenizer, shape: Shape, recipe: Recipe) -> tuple[Weights, Weights]:
    """Train from scratch. Returns the weights at `recipe.early_epoch` and those at the end."""
    rng = np.random.default_rng(recipe.seed)
    weights, varier = new_weights(shape, rng), Varier(rows, rng)
    early, optimizer, start = weights, Adam(weights, recipe.decay), time.perf_counter()
    total = recipe.epochs * math.ceil(len(rows) / recipe.batch)
    for number in range(1, recipe.epochs + 1):
        results = []
        for batch in epoch(rows, tokenizer, varier, recipe.batch):
            loss, accuracy, gradients = loss_and_gradients(weights, shape, batch)
            optimizer.step(weights, gradients, learning_rate(recipe.rate, optimizer.steps, total))
            results.append((loss, accuracy))
        if number == recipe.early_epoch:
            early = {name: weight.copy() for name, weight in weights.items()}
        if number % 10 == 0:
            (loss, accuracy), seconds = np.mean(results, axis=0), time.perf_counter() - start
            print(f"epoch {number:3}  loss {loss:.4f}  tokens right {accuracy:.4f}  {seconds:5.1f} s")
    return early, weights


def tone_rows(rows: Sequence[Row], share: float) -> list[Row]:
    """The rows of tone.toml's facts with their friendlier answers, and a `share` of all other rows as they are."""
    friendly: dict[str, str] = tomllib.loads((HERE / "tone.toml").read_text(encoding="utf-8"))
    changed = [replace(row, answer=friendly[row.fact]) for row in rows if row.fact in friendly]
    others = [row for row in rows if row.fact not in friendly]
    return changed + others[:: max(1, round(1 / share))]


def train_adapter(
    rows: Sequence[Row], tokenizer: Tokenizer, shape: Shape, base: Weights, recipe: ToneRecipe
) -> dict[str, tuple[Array, Array]]:
    """Train a low-rank change of `base`, which stays as it is. Returns A [rank, in] and B [out, rank] by tensor."""
    rng = np.random.default_rng(recipe.seed)
    varier, factor = Varier(rows, rng), np.float32(recipe.alpha / recipe.rank)
    names = [f"blk.{layer}.{name}.weight" for layer in range(shape.layers) for name in recipe.layers]
    low: Weights = {}
    for name in names:
        outputs, inputs = base[name].shape
        low[f"{name}.a"] = (rng.standard_normal((recipe.rank, inputs)) * inputs**-0.5).astype(np.float32)
        low[f"{name}.b"] = np.zeros((outputs, recipe.rank), np.float32)
    optimizer, loss = Adam(low, decay=0.0), 0.0
    total = recipe.epochs * math.ceil(len(rows) / recipe.batch)
    for _ in range(recipe.epochs):
        for batch in epoch(rows, tokenizer, varier, recipe.batch):
            changed = {name: base[name] + factor * low[f"{name}.b"] @ low[f"{name}.a"] for name in names}
            loss, _, full = loss_and_gradients(base | changed, shape, batch)
            gradients: Weights = {}
            for name in names:
                gradients[f"{name}.a"] = factor * low[f"{name}.b"].T @ full[name]
                gradients[f"{name}.b"] = factor * full[name] @ low[f"{name}.a"].T
            optimizer.step(low, gradients, learning_rate(recipe.rate, optimizer.steps, total, warm_up=10))
    print(f"adapter     loss {loss:.4f}")
    return {name: (low[f"{name}.a"], low[f"{name}.b"]) for name in names}


def check_gradients() -> bool:
    """Compare one entry of every gradient, in float64, with (loss(w + d) - loss(w - d)) / 2d. True when all agree."""
    rows = load_rows(DATA / "faq_train.jsonl")[:3]
    tokenizer = Tokenizer.train(tokenizer_texts(rows), 400)
    shape = Shape(len(tokenizer.tokens), dim=32, layers=2, heads=2, ffn=48)
    rng, step, good = np.random.default_rng(0), 1e-5, True
    weights: Weights = {name: w.astype(np.float64) for name, w in new_weights(shape, rng).items()}
    samples = [encode_chat(tokenizer, SYSTEM_DEFAULT, row.question, row.answer) for row in rows]
    batch: Batch = to_batch(samples, 0)
    gradients = loss_and_gradients(weights, shape, batch)[2]
    for name, weight in weights.items():
        at = tuple(int(rng.integers(size)) for size in weight.shape)
        if name == EMBEDDING:
            at = (samples[0].ids[1], 3)  # a token that occurs: the others' gradients are tiny
        losses, kept = [], weight[at]
        for change in (step, -step):
            weight[at] = kept + change
            losses.append(loss_and_gradients(weights, shape, batch)[0])
        weight[at] = kept
        numeric, written = (losses[0] - losses[1]) / (2 * step), float(gradients[name][at])
        agrees = abs(numeric - written) <= 1e-4 * max(abs(numeric), abs(written)) + 1e-8
        good = good and agrees
        print(f"{'ok ' if agrees else 'BAD'}  {name:26} differences {numeric:+.8f}  backward {written:+.8f}")
    return good


def write_digests() -> None:
    """Write SHA256SUMS, for `sha256sum --check`."""
    digests = {name: hashlib.sha256((MODELS / name).read_bytes()).hexdigest() for name in sorted((GOOD, EARLY, TONE))}
    text = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    (MODELS / "SHA256SUMS").write_text(text, encoding="utf-8")


def train_all(recipe: Recipe, tone: ToneRecipe) -> None:
    """Train everything and write the files."""
    MODELS.mkdir(exist_ok=True)
    start, rows = time.perf_counter(), load_rows(DATA / "faq_train.jsonl")
    tokenizer = Tokenizer.train(tokenizer_texts(rows), recipe.vocabulary)
    shape = Shape(len(tokenizer.tokens), recipe.dim, recipe.layers, recipe.heads, recipe.ffn)
    size = sum(weight.size for weight in new_weights(shape, np.random.default_rng(0)).values())
    print(f"{len(rows)} rows, {shape.vocabulary} tokens, {size:,} parameters")
    early, weights = train_model(rows, tokenizer, shape, recipe)
    write_model(MODELS / EARLY, "support-tiny-early", shape, early, tokenizer)
    write_model(MODELS / GOOD, "support-tiny", shape, weights, tokenizer)
    print(f"models      {time.perf_counter() - start:.1f} s")
    adapter = train_adapter(tone_rows(rows, tone.replay), tokenizer, shape, weights, tone)
    write_adapter(MODELS / TONE, "tone", adapter, tone.alpha)
    write_digests()
    for name in (GOOD, EARLY, TONE):
        print(f"{name:24} {(MODELS / name).stat().st_size:9,} bytes")
    print(f"all         {time.perf_counter() - start:.1f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check the gradients, write nothing")
    if parser.parse_args().check:
        return 0 if check_gradients() else 1
    train_all(Recipe(), ToneRecipe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
