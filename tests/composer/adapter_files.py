"""Writes adapters, good and bad ones, byte by byte: no library may refuse what a test needs."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BASE_NAME = "tiny/llama"
HIDDEN, INNER, RANK = 8, 16, 2

# Two layers of a tiny Llama and its output head.
TABLE: dict[str, tuple[int, int]] = {
    **{
        f"model.layers.{layer}.self_attn.{name}": (HIDDEN, HIDDEN)
        for layer in (0, 1)
        for name in ("q_proj", "v_proj")
    },
    **{
        f"model.layers.{layer}.mlp.{name}": sizes
        for layer in (0, 1)
        for name, sizes in (("up_proj", (HIDDEN, INNER)), ("down_proj", (INNER, HIDDEN)))
    },
    "lm_head": (HIDDEN, 32),
}
ATTENTION = tuple(path for path in TABLE if "self_attn" in path)

Matrices = dict[str, tuple[int, ...]]


def lora_shapes(
    modules: tuple[str, ...] = ATTENTION, *, rank: int = RANK, sizes: tuple[int, int] | None = None
) -> Matrices:
    """Name the matrices of an adapter and give their shapes."""
    shapes: Matrices = {}
    for path in modules:
        wide, high = sizes or TABLE[path]
        shapes[f"base_model.model.{path}.lora_A.weight"] = (rank, wide)
        shapes[f"base_model.model.{path}.lora_B.weight"] = (high, rank)
    return shapes


def config(**changes: Any) -> dict[str, Any]:
    """Return the least a config must have, with changes."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE_NAME,
        "r": RANK,
        "lora_alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
    } | changes


def safetensors_bytes(
    shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "F16", fill: bytes = b"\x01\x3c"
) -> bytes:
    """Lay tensors out one after the other, each filled with one number."""
    header: dict[str, Any] = {}
    data = b""
    for key, shape in shapes.items():
        count = 1
        for length in shape:
            count *= length
        piece = fill * count
        header[key] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(data), len(data) + len(piece)],
        }
        data += piece
    return with_header(header, data)


def with_header(header: Any, data: bytes = b"") -> bytes:
    """Put a header, a value or raw bytes, before data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def write_adapter(
    folder: Path, *, settings: Any = None, weights: bytes | Mapping[str, tuple[int, ...]] = b""
) -> Path:
    """Write both files of an adapter; `settings` may be raw bytes."""
    folder.mkdir(exist_ok=True)
    settings = config() if settings is None else settings
    raw = settings if isinstance(settings, bytes) else json.dumps(settings).encode()
    (folder / "adapter_config.json").write_bytes(raw)
    if not isinstance(weights, bytes):
        weights = safetensors_bytes(weights)
    (folder / "adapter_model.safetensors").write_bytes(weights or safetensors_bytes(lora_shapes()))
    return folder
