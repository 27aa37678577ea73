"""Write a model or a LoRA adapter as a GGUF file that llama.cpp serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from bpe import END_OF_TEXT, SPECIALS, TURN_END, Tokenizer
from llama import NORM_EPSILON, ROPE_BASE, Array, Shape, Weights

# ChatML: each message is <|im_start|>ROLE\nTEXT<|im_end|>\n; `samples.py` makes training texts of the same form.
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_model(path: Path, name: str, shape: Shape, weights: Weights, tokenizer: Tokenizer) -> None:
    """Write all of a model. Matrices become q8_0 (their rows must be multiples of 32 long), norms stay float32."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name(name)
    writer.add_license("Apache-2.0")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_vocab_size(len(tokenizer.tokens))
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_Q8_0))
    add_tokenizer(writer, tokenizer)
    q8_0 = gguf.GGMLQuantizationType.Q8_0
    for tensor, values in weights.items():
        full = np.ascontiguousarray(values, np.float32)
        if full.ndim == 1:
            writer.add_tensor(tensor, full)
        else:
            writer.add_tensor(tensor, gguf.quants.quantize(full, q8_0), raw_dtype=q8_0)
    finish(writer)


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Add the vocabulary, the merges, the special tokens and the chat template."""
    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types([control if token in SPECIALS else normal for token in tokenizer.tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in tokenizer.merges])
    writer.add_bos_token_id(tokenizer.ids[END_OF_TEXT])
    writer.add_eos_token_id(tokenizer.ids[TURN_END])
    writer.add_pad_token_id(tokenizer.ids[END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_adapter(path: Path, name: str, pairs: Mapping[str, tuple[Array, Array]], alpha: float) -> None:
    """Write a LoRA adapter: A [rank, in] and B [out, rank] by base tensor. llama.cpp adds alpha/rank * B @ A."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_name(name)
    for tensor, (a, b) in pairs.items():
        writer.add_tensor(f"{tensor}.lora_a", np.ascontiguousarray(a, np.float32))
        writer.add_tensor(f"{tensor}.lora_b", np.ascontiguousarray(b, np.float32))
    finish(writer)


def finish(writer: gguf.GGUFWriter) -> None:
    """Write what was added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
