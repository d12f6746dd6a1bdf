"""Whatever the bytes are, the readers end in a result or in InvalidAdapter: never anything else."""

# ruff: noqa: PT017 - the errors are allowed, not expected
from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composer.errors import InvalidAdapter, InvalidExamples
from composer.examples import parse_examples
from composer.inspection import inspect_adapter
from composer.pickle_opcodes import UnsafePickle, read_state_dict
from composer.pickle_reader import convert_pickle
from composer.strict_json import JSONError, parse_json
from tests.composer.adapter_files import (
    TABLE,
    config,
    lora_shapes,
    safetensors_bytes,
    with_header,
    write_adapter,
)

WEIGHTS = safetensors_bytes(lora_shapes())
HEADER_LENGTH = int.from_bytes(WEIGHTS[:8], "little")
RAW_HEADER = WEIGHTS[8 : 8 + HEADER_LENGTH]
CONFIG = json.dumps(config(rank_pattern={"q_proj": 2}, alpha_pattern={}, use_dora=False)).encode()


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save({key: torch.ones(shape) for key, shape in lora_shapes().items()}, buffer)
    return buffer.getvalue()


CHECKPOINT = checkpoint()
with zipfile.ZipFile(io.BytesIO(CHECKPOINT)) as _archive:
    PICKLE = next(_archive.read(name) for name in _archive.namelist() if "data.pkl" in name)

# A few edits: where (as a fraction of the length), how many bytes go, and what comes instead.
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 12), st.binary(max_size=12)), min_size=1, max_size=4
)


def mutated(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, piece in edits:
        start = int(place * len(data))
        data = data[:start] + piece + data[start + length :]
    return data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4)
    ),
    max_leaves=12,
)
OPTIONAL = (
    "rank_pattern alpha_pattern exclude_modules layers_to_transform layers_pattern auto_mapping "
    "bias use_dora init_lora_weights revision"
)
SETTING_NAMES = st.sampled_from([*config(), *OPTIONAL.split()])

# No deadline for a single input: a busy machine is not a defect. FUZZ_INPUTS=20000 digs deeper.
fuzz = settings(deadline=None, max_examples=int(os.environ.get("FUZZ_INPUTS", "100")))


def inspect(**files: Any) -> None:
    """Inspect an adapter and make sure that what is accepted can be inspected again."""
    with tempfile.TemporaryDirectory() as name:
        folder = write_adapter(Path(name), **files)
        try:
            summary = inspect_adapter(folder, TABLE, base_name="tiny/llama")
        except InvalidAdapter as error:
            assert error.problems
            assert all(problem.message for problem in error.problems)
            return
        (folder / "adapter_config.json").write_text(json.dumps(summary.config))
        assert inspect_adapter(folder, TABLE, base_name="tiny/llama") == summary


@fuzz
@given(EDITS)
def test_it_works(edits: list[tuple[float, int, bytes]]):
    inspect(weights=mutated(WEIGHTS, edits) or b"x")


@fuzz
@given(EDITS)
def test_headers_of_the_right_length(edits: list[tuple[float, int, bytes]]):
    inspect(weights=with_header(mutated(RAW_HEADER, edits), WEIGHTS[8 + HEADER_LENGTH :]))


@fuzz
@given(st.dictionaries(st.text(max_size=20), JSON, max_size=4))
def test_headers_of_any_json(header: dict[str, Any]):
    inspect(weights=with_header(header, bytes(16)))


@fuzz
@given(JSON, JSON, JSON)
def test_entries_of_any_values(dtype: object, shape: object, offsets: object):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    inspect(weights=with_header({"base_model.model.lm_head.lora_A.weight": entry}, bytes(16)))


@fuzz
@given(EDITS)
def test_configs_with_edits(edits: list[tuple[float, int, bytes]]):
    inspect(settings=mutated(CONFIG, edits))


@fuzz
@given(st.dictionaries(SETTING_NAMES, JSON, max_size=3))
def test_configs_of_any_values(changes: dict[str, Any]):
    inspect(settings=config(**changes))


@fuzz
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_patterns(targets: str, key: str):
    inspect(settings=config(target_modules=targets, rank_pattern={key: 2}))


@fuzz
@given(st.lists(st.text(st.sampled_from("()[]{}*+?|^$.\\aqvd_proj01"), max_size=12), max_size=3))
def test_patterns_of_pattern_characters(keys: list[str]):
    inspect(settings=config(target_modules=keys or ".*", alpha_pattern=dict.fromkeys(keys, 2)))


def convert(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "adapter_model.bin"), Path(name, "adapter_model.safetensors")
        source.write_bytes(data)
        try:
            convert_pickle(source, target)
        except InvalidAdapter:
            assert [path.name for path in Path(name).iterdir()] == [source.name]
            return
        assert target.stat().st_size > 8


@fuzz
@given(EDITS)
def test_checkpoints_with_edits(edits: list[tuple[float, int, bytes]]):
    convert(mutated(CHECKPOINT, edits))


@fuzz
@given(EDITS)
def test_directories_with_edits(edits: list[tuple[float, int, bytes]]):
    start = CHECKPOINT.rindex(b"data.pkl") - 60
    convert(CHECKPOINT[:start] + mutated(CHECKPOINT[start:], edits))


@fuzz
@given(EDITS)
def test_pickles_with_edits(edits: list[tuple[float, int, bytes]]):
    try:
        read_state_dict(mutated(PICKLE, edits))
    except UnsafePickle as error:
        assert error.message


# Pieces of a real pickle, and single instructions.
PIECES = [PICKLE[at : at + 30] for at in range(0, 600, 15)] + [
    bytes([code]) for code in b"}(NtuRQbs.)\x85\x86\x89\x93\x94"
]


@fuzz
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_pickles_of_pieces(pieces: list[bytes]):
    try:
        read_state_dict(b"\x80\x02" + b"".join(pieces))
    except UnsafePickle as error:
        assert error.message


@fuzz
@given(st.text() | st.binary())
def test_any_json_text(text: str | bytes):
    try:
        parse_json(text)
    except JSONError as error:
        assert str(error)


def parse(text: str, kind: Any) -> None:
    try:
        examples = parse_examples(text, kind)
    except InvalidExamples as error:
        assert error.problems
    else:
        assert examples
        assert all("\0" not in example.input + example.output for example in examples)


@fuzz
@given(st.text(), st.sampled_from(["auto", "jsonl", "csv", "pairs"]))
def test_any_examples(text: str, kind: Any):
    parse(text, kind)


@fuzz
@given(st.text(st.sampled_from('{}[]",:=> \n\r\tinputo\\u0d8\x00;'), max_size=80))
def test_examples_of_syntax(text: str):
    parse(text, "auto")
