"""A small Llama in plain numpy: the forward pass, the backward pass written by hand, and Adam.

Letters in shapes: B sequences, T tokens each, D embedding width, H heads of D/H, F width of the feed-forward layer, V
vocabulary. Matrices are [out, in], as GGUF stores them, so a layer is `x @ w.T`. Weights have GGUF's tensor names, and
the embedding serves as the output matrix too (llama.cpp does the same when a file has no `output.weight`).
`train.py --check` compares every gradient here with finite differences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Weights = dict[str, Array]

EMBEDDING, FINAL_NORM = "token_embd.weight", "output_norm.weight"
NORM_EPSILON = 1e-5
ROPE_BASE = 10000.0
FAR_BELOW = -1e9  # a masked attention score


@dataclass(frozen=True)
class Shape:
    """The size of a model."""

    vocabulary: int
    dim: int = 64
    layers: int = 2
    heads: int = 2
    ffn: int = 128
    context: int = 512

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


@dataclass(frozen=True)
class Batch:
    """Sequences of equal length: `ids` [B, T+1]; `counts` [B, T] is true where the next token is part of the answer."""

    ids: Ints
    counts: Bools


@dataclass(frozen=True)
class Rope:
    """Rotary positions: cosine and sine, [T, D/H/2] each."""

    cos: Array
    sin: Array

    @classmethod
    def table(cls, length: int, head_dim: int) -> Rope:
        angle = np.outer(np.arange(length), ROPE_BASE ** (-np.arange(0, head_dim, 2) / head_dim))
        return cls(np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32))

    def turn(self, x: Array, back: bool = False) -> Array:
        """Rotate neighbouring pairs of `x` [B, H, T, D/H]; `back` undoes it, which is also its gradient."""
        sin = -self.sin if back else self.sin
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = np.empty_like(x)
        turned[..., 0::2] = even * self.cos - odd * sin
        turned[..., 1::2] = even * sin + odd * self.cos
        return turned


def new_weights(shape: Shape, rng: np.random.Generator) -> Weights:
    """Random start: matrices scaled by 1/sqrt(inputs), norms at one."""

    def matrix(rows: int, columns: int) -> Array:
        start: Array = (rng.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)
        return start

    weights: Weights = {
        EMBEDDING: (rng.standard_normal((shape.vocabulary, shape.dim)) * 0.08).astype(np.float32),
        FINAL_NORM: np.ones(shape.dim, np.float32),
    }
    for layer in range(shape.layers):
        for name in ("attn_norm", "ffn_norm"):
            weights[f"blk.{layer}.{name}.weight"] = np.ones(shape.dim, np.float32)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights[f"blk.{layer}.{name}.weight"] = matrix(shape.dim, shape.dim)
        for name in ("ffn_gate", "ffn_up"):
            weights[f"blk.{layer}.{name}.weight"] = matrix(shape.ffn, shape.dim)
        weights[f"blk.{layer}.ffn_down.weight"] = matrix(shape.dim, shape.ffn)
    return weights


def normalise(x: Array, gain: Array) -> tuple[Array, Array]:
    """RMS norm of the rows of `x`. Returns the result and the rows' 1/rms, which the backward pass needs."""
    scale = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(NORM_EPSILON))
    return x * scale * gain, scale


def normalise_back(dy: Array, x: Array, scale: Array, gain: Array) -> tuple[Array, Array]:
    """Gradients of `normalise` for `x` and `gain`."""
    unit = x * scale
    dunit = dy * gain
    dx = scale * (dunit - unit * np.mean(dunit * unit, axis=-1, keepdims=True))
    return dx, np.sum(dy * unit, axis=0)


def softmax_in_place(x: Array) -> None:
    """Turn the last axis of `x` into probabilities."""
    x -= x.max(axis=-1, keepdims=True)
    np.exp(x, out=x)
    x /= x.sum(axis=-1, keepdims=True)


class Attention:
    """x + W_o attention(norm(x)) of one layer. Keeps what its backward pass needs."""

    def __init__(self, weights: Weights, layer: int, shape: Shape, rope: Rope) -> None:
        prefix = f"blk.{layer}."
        self.names = [f"{prefix}{name}.weight" for name in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output")]
        self.gain, self.wq, self.wk, self.wv, self.wo = (weights[name] for name in self.names)
        self.shape, self.rope = shape, rope

    def _split(self, x: Array) -> Array:
        """[B*T, D] to [B, H, T, D/H]."""
        length = len(self.rope.cos)
        return x.reshape(-1, length, self.shape.heads, self.shape.head_dim).transpose(0, 2, 1, 3)

    def _join(self, x: Array) -> Array:
        """[B, H, T, D/H] to [B*T, D]."""
        return x.transpose(0, 2, 1, 3).reshape(-1, self.shape.dim)

    def forward(self, x: Array) -> Array:
        self.x = x
        self.h, self.scale = normalise(x, self.gain)
        self.q = self.rope.turn(self._split(self.h @ self.wq.T))
        self.k = self.rope.turn(self._split(self.h @ self.wk.T))
        self.v = self._split(self.h @ self.wv.T)
        length = len(self.rope.cos)
        self.factor = x.dtype.type(self.shape.head_dim**-0.5)
        self.p = self.q @ self.k.swapaxes(2, 3) * self.factor
        self.p += np.triu(np.full((length, length), FAR_BELOW, x.dtype), 1)  # no token sees a later one
        softmax_in_place(self.p)
        self.o = self._join(self.p @ self.v)
        return x + self.o @ self.wo.T

    def backward(self, dy: Array, gradients: Weights) -> Array:
        do = self._split(dy @ self.wo)
        dp = do @ self.v.swapaxes(2, 3)
        ds = self.p * (dp - np.sum(dp * self.p, axis=-1, keepdims=True)) * self.factor
        dq = self._join(self.rope.turn(ds @ self.k, back=True))
        dk = self._join(self.rope.turn(ds.swapaxes(2, 3) @ self.q, back=True))
        dv = self._join(self.p.swapaxes(2, 3) @ do)
        dx, dgain = normalise_back(dq @ self.wq + dk @ self.wk + dv @ self.wv, self.x, self.scale, self.gain)
        gradients.update(
            zip(self.names, (dgain, dq.T @ self.h, dk.T @ self.h, dv.T @ self.h, dy.T @ self.o), strict=True)
        )
        return dy + dx


class FeedForward:
    """x + W_down (silu(W_gate h) * W_up h) with h = norm(x), of one layer."""

    def __init__(self, weights: Weights, layer: int) -> None:
        self.names = [f"blk.{layer}.{name}.weight" for name in ("ffn_norm", "ffn_gate", "ffn_up", "ffn_down")]
        self.gain, self.wgate, self.wup, self.wdown = (weights[name] for name in self.names)

    def forward(self, x: Array) -> Array:
        self.x = x
        self.h, self.scale = normalise(x, self.gain)
        self.gate, self.up = self.h @ self.wgate.T, self.h @ self.wup.T
        self.sigmoid = 1 / (1 + np.exp(-self.gate))
        self.silu = self.gate * self.sigmoid
        self.middle = self.silu * self.up
        return x + self.middle @ self.wdown.T

    def backward(self, dy: Array, gradients: Weights) -> Array:
        dmiddle = dy @ self.wdown
        dup = dmiddle * self.silu
        dgate = dmiddle * self.up * self.sigmoid * (1 + self.gate * (1 - self.sigmoid))
        dx, dgain = normalise_back(dup @ self.wup + dgate @ self.wgate, self.x, self.scale, self.gain)
        dweights = (dgain, dgate.T @ self.h, dup.T @ self.h, dy.T @ self.middle)
        gradients.update(zip(self.names, dweights, strict=True))
        return dy + dx


def loss_and_gradients(weights: Weights, shape: Shape, batch: Batch) -> tuple[float, float, Weights]:
    """Mean cross-entropy (nats) over the answer's tokens, the share of them guessed right, and the gradients."""
    inputs, targets = batch.ids[:, :-1], batch.ids[:, 1:]
    embedding, rope = weights[EMBEDDING], Rope.table(inputs.shape[1], shape.head_dim)
    x = embedding[inputs].reshape(-1, shape.dim)
    parts: list[Attention | FeedForward] = []
    for layer in range(shape.layers):
        parts += [Attention(weights, layer, shape, rope), FeedForward(weights, layer)]
    for part in parts:
        x = part.forward(x)
    h, scale = normalise(x, weights[FINAL_NORM])

    # Only the answer's positions go through the large output matrix.
    rows = np.flatnonzero(batch.counts)
    wanted, picked = targets.ravel()[rows], np.arange(len(rows))
    p = h[rows] @ embedding.T
    softmax_in_place(p)
    loss = float(-np.log(p[picked, wanted] + 1e-20).mean())
    accuracy = float(np.mean(p.argmax(axis=-1) == wanted))

    p[picked, wanted] -= 1
    p /= len(rows)
    gradients: Weights = {}
    dembedding, dh = p.T @ h[rows], np.zeros_like(h)
    dh[rows] = p @ embedding
    dx, gradients[FINAL_NORM] = normalise_back(dh, x, scale, weights[FINAL_NORM])
    for part in reversed(parts):
        dx = part.backward(dx, gradients)
    np.add.at(dembedding, inputs.ravel(), dx)
    gradients[EMBEDDING] = dembedding
    return loss, accuracy, gradients


class Adam:
    """Adam with decoupled weight decay on matrices and the gradient's norm clipped."""

    def __init__(self, weights: Weights, decay: float = 0.01, clip: float = 1.0) -> None:
        self.decay, self.clip = decay, clip
        self.steps = 0
        self.mean = {name: np.zeros_like(w) for name, w in weights.items()}
        self.square = {name: np.zeros_like(w) for name, w in weights.items()}

    def step(self, weights: Weights, gradients: Weights, rate: float) -> None:
        """Change `weights` in place."""
        self.steps += 1
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in gradients.values()))
        shrink = min(1.0, self.clip / (norm + 1e-6))
        first, second = 0.9, 0.98
        for name, raw in gradients.items():
            g = raw * np.float32(shrink)
            mean, square, weight = self.mean[name], self.square[name], weights[name]
            mean += (1 - first) * (g - mean)
            square += (1 - second) * (g * g - square)
            size = np.sqrt(square / (1 - second**self.steps)) + 1e-8
            update = mean / (1 - first**self.steps) / size
            if weight.ndim > 1:
                update += self.decay * weight
            weight -= np.float32(rate) * update
