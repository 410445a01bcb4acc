"""A llama-architecture model of a few hundred kilobytes, written as a GGUF file: real enough for a real server.

Its weights are noise, so what it says is noise too, within the grammar that the server enforces. That is the point:
the client must stand it. Or it has an opinion, and says the same whatever it is asked. The format is described in ggml's docs/gguf.md (version 3).
"""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

ALIGNMENT = 32
EMBEDDING = 64
FEED_FORWARD = 128
HEADS = 4
CONTEXT = 32_768

# Types of values, and of tokens (llama.cpp's enumeration).
_UINT32, _INT32, _FLOAT32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_F32 = 0

_Tensor = tuple[str, tuple[int, ...], "array[float]"]
"""Name, shape, values in rows."""

TEMPLATE = "{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}\n{{ end }}<|assistant|>\n"


def write(path: Path, seed: int = 1, opinion: str = "") -> None:
    """Write the model. The same arguments give the same file, byte for byte.

    With an opinion it always says the first of those characters that the grammar allows: `"]}:,f0` answers as soon as it
    may, with false and 0.
    """
    tokens, types = _vocabulary()
    tensors = _tensors(len(tokens), random.Random(seed))
    if opinion:
        tensors = _opinionated(tensors, tokens, opinion)
    metadata = [
        _string("general.architecture", "llama"),
        _string("general.name", "tiny"),
        _uint32("llama.block_count", 1),
        _uint32("llama.context_length", CONTEXT),
        _uint32("llama.embedding_length", EMBEDDING),
        _uint32("llama.feed_forward_length", FEED_FORWARD),
        _uint32("llama.attention.head_count", HEADS),
        _uint32("llama.attention.head_count_kv", HEADS),
        _uint32("llama.rope.dimension_count", EMBEDDING // HEADS),
        _uint32("llama.vocab_size", len(tokens)),
        _float32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        _string("tokenizer.ggml.model", "llama"),
        _strings("tokenizer.ggml.tokens", tokens),
        _numbers("tokenizer.ggml.scores", _FLOAT32, "f", [-float(n) for n in range(len(tokens))]),
        _numbers("tokenizer.ggml.token_type", _INT32, "i", types),
        _uint32("tokenizer.ggml.unknown_token_id", 0),
        _uint32("tokenizer.ggml.bos_token_id", 1),
        _uint32("tokenizer.ggml.eos_token_id", 2),
    ]
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)) + b"".join(metadata)
    data = b""
    for name, shape, values in tensors:
        header += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, len(data))
        data = _padded(data + values.tobytes())
    path.write_bytes(_padded(header) + data)


def _vocabulary() -> tuple[list[bytes], list[int]]:
    """Three special tokens and every byte: any text can be read and written."""
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{byte:02X}>".encode() for byte in range(256))]
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    # Printable characters as tokens of their own, and the blank as this vocabulary's tokenizer writes it.
    tokens += ["\u2581".encode(), *(bytes([byte]) for byte in range(0x21, 0x7F))]
    types += [_NORMAL] * (len(tokens) - len(types))
    return tokens, types


def _tensors(vocabulary: int, noise: random.Random) -> list[_Tensor]:
    def normal(*shape: int) -> tuple[tuple[int, ...], array[float]]:
        count = 1
        for side in shape:
            count *= side
        return shape, array("f", (noise.gauss(0, 0.3) for _ in range(count)))

    ones = ((EMBEDDING,), array("f", [1.0] * EMBEDDING))
    square = (EMBEDDING, EMBEDDING)
    named = {
        "token_embd.weight": normal(EMBEDDING, vocabulary),
        "output_norm.weight": ones,
        "output.weight": normal(EMBEDDING, vocabulary),
        "blk.0.attn_norm.weight": ones,
        "blk.0.attn_q.weight": normal(*square),
        "blk.0.attn_k.weight": normal(*square),
        "blk.0.attn_v.weight": normal(*square),
        "blk.0.attn_output.weight": normal(*square),
        "blk.0.ffn_norm.weight": ones,
        "blk.0.ffn_gate.weight": normal(EMBEDDING, FEED_FORWARD),
        "blk.0.ffn_up.weight": normal(EMBEDDING, FEED_FORWARD),
        "blk.0.ffn_down.weight": normal(FEED_FORWARD, EMBEDDING),
    }
    return [(name, shape, values) for name, (shape, values) in named.items()]


def _opinionated(tensors: list[_Tensor], tokens: list[bytes], opinion: str) -> list[_Tensor]:
    """Every token is read as the same vector, which goes through unchanged, and each has a fixed weight at the end."""
    weights = {opinion[rank].encode(): 4.0 - 2.0 * rank / len(opinion) for rank in range(len(opinion))}
    rows = {
        "token_embd.weight": [1.0] * len(tokens),
        "output.weight": [weights.get(token, 0.0) for token in tokens],
    }
    changed = []
    for name, shape, values in tensors:
        if name in rows:
            values = array("f", (x for first in rows[name] for x in (first, *[0.0] * (EMBEDDING - 1))))
        elif "norm" not in name:
            values = array("f", bytes(4 * len(values)))
        changed.append((name, shape, values))
    return changed


def _text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _string(key: str, value: str) -> bytes:
    return _text(key) + struct.pack("<I", _STRING) + _text(value)


def _uint32(key: str, value: int) -> bytes:
    return _text(key) + struct.pack("<II", _UINT32, value)


def _float32(key: str, value: float) -> bytes:
    return _text(key) + struct.pack("<If", _FLOAT32, value)


def _strings(key: str, values: Sequence[bytes]) -> bytes:
    return _text(key) + struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(_text, values))


def _numbers(key: str, kind: int, code: str, values: Sequence[float]) -> bytes:
    return _text(key) + struct.pack(f"<IIQ{len(values)}{code}", _ARRAY, kind, len(values), *values)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
