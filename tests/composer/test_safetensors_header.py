# ruff: noqa: E501 - the corpus reads as a table, one case a line
from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from composer.errors import InvalidAdapter
from composer.limits import Limits
from composer.safetensors_header import (
    examine_header,
    examine_values,
    is_finite,
    read_header,
)
from tests.composer.adapter_files import safetensors_bytes, with_header

SAVE = 'Save the adapter again with peft: model.save_pretrained("folder").'
AGAIN = "Copy or upload the file again; it may have been cut off."


def entry(shape: Any = (2, 2), begin: int = 0, end: int = 8, dtype: Any = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def problems_of(data: bytes, **limits: int) -> list[str]:
    reading = examine_header(io.BytesIO(data), Limits(**limits))
    assert reading.header is None
    return [str(problem) for problem in reading.problems]


def test_it_works(tmp_path: Path):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(safetensors_bytes({"a": (2, 3), "b": (3, 2)}))

    header = read_header(path)

    assert {key: tensor.shape for key, tensor in header.tensors.items()} == {
        "a": (2, 3),
        "b": (3, 2),
    }
    assert header.file_size == path.stat().st_size


def test_the_order_of_names_is_free_and_padding_and_metadata_are_allowed():
    raw = (
        b'{"__metadata__": {"format": "pt"}, "b": {"dtype": "BF16", "shape": [1, 2], '
        b'"data_offsets": [8, 12]}, "a": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}'
        b"     "
    )

    reading = examine_header(io.BytesIO(with_header(raw, bytes(12))))

    assert reading.problems == []
    assert reading.header is not None
    assert reading.header.metadata == {"format": "pt"}


CASES: list[tuple[str, bytes, list[str]]] = [
    ("nothing", b"", [f": The file has 0 bytes; even an empty safetensors file has more. {AGAIN}"]),
    ("pickle", b"PK\x03\x04" + bytes(20), [": The file is a PyTorch pickle that was renamed, not safetensors. Call it adapter_model.bin, or save it as safetensors."]),
    ("old pickle", b"\x80\x02" + bytes(20), [": The file is a PyTorch pickle that was renamed, not safetensors. Call it adapter_model.bin, or save it as safetensors."]),
    ("lfs pointer", b"version https://git-lfs.github.com/spec/v1", [': The file is a Git LFS pointer, not the weights themselves. Fetch the weights with "git lfs pull" and upload them.']),
    ("huge header", struct.pack("<Q", 1 << 62) + bytes(20), [f", header: The header claims {1 << 62} bytes; the limit is 1048576. {SAVE}"]),
    ("cut header", struct.pack("<Q", 100) + b"{", [f", header: The header claims 100 bytes, but only 1 follow. {AGAIN}"]),
    ("no object", with_header(b"[]"), [f', header: The header does not start with "{{". {SAVE}']),
    ("space before", with_header(b" {}"), [f', header: The header does not start with "{{". {SAVE}']),
    ("newline after", with_header(b"{}\n"), [f", header: The header is followed by something else than spaces. {SAVE}"]),
    ("null after", with_header(b"{}\0"), [f", header: The header is followed by something else than spaces. {SAVE}"]),
    ("text after", with_header(b"{} {}"), [f", header: The header is not valid JSON: Extra data at line 1, column 4. {SAVE}"]),
    ("duplicate", with_header(b'{"a": 1, "a": 2}'), [f', header: The header is not valid JSON: the key "a" appears twice. {SAVE}']),
    ("inner duplicate", with_header(b'{"a": {"dtype": "F16", "dtype": "F32"}}'), [f', header: The header is not valid JSON: the key "dtype" appears twice. {SAVE}']),
    ("not utf-8", with_header(b'{"\xff": 1}'), [f", header: The header is not valid JSON: byte 2 is not UTF-8. {SAVE}"]),
    ("metadata list", with_header({"__metadata__": []}), [f", __metadata__: The metadata must be an object whose values are all strings. {SAVE}"]),
    ("metadata number", with_header({"__metadata__": {"a": 1}}), [f", __metadata__: The metadata must be an object whose values are all strings. {SAVE}"]),
    ("no tensors", with_header({}), [f": The file holds no tensors. {SAVE}"]),
    ("more keys", with_header({"a": entry() | {"x": 1}}, bytes(8)), [f': The tensor "a": the entry must have exactly the keys dtype, shape and data_offsets. {SAVE}']),
    ("no entry", with_header({"a": [1]}), [f': The tensor "a": the entry must have exactly the keys dtype, shape and data_offsets. {SAVE}']),
    ("dtype number", with_header({"a": entry(dtype=16)}, bytes(8)), [f', dtype: The tensor "a": the dtype must be a string. {SAVE}']),
    ("float64", with_header({"a": entry(dtype="F64")}, bytes(8)), [', dtype: The tensor "a": the dtype is "F64"; supported are F32, F16 and BF16. Convert the adapter first: model.to(torch.float16).']),
    ("shape of floats", with_header({"a": entry(shape=[2.0, 2])}, bytes(8)), [f', shape: The tensor "a": the shape must be a list of whole numbers. {SAVE}']),
    ("negative shape", with_header({"a": entry(shape=[-2, -2])}, bytes(8)), [f', shape: The tensor "a": the shape must be a list of whole numbers. {SAVE}']),
    ("shape of booleans", with_header({"a": entry(shape=[True, 4])}, bytes(8)), [f', shape: The tensor "a": the shape must be a list of whole numbers. {SAVE}']),
    ("scalar", with_header({"a": entry(shape=[], end=2)}, bytes(2)), [', shape: The tensor "a": the shape is []; LoRA matrices have two sizes above 0. Save only the lora_A and lora_B matrices.']),
    ("empty", with_header({"a": entry(shape=[0, 4], end=0)}), [', shape: The tensor "a": the shape is [0, 4]; LoRA matrices have two sizes above 0. Save only the lora_A and lora_B matrices.']),
    ("one offset", with_header({"a": entry() | {"data_offsets": [0]}}, bytes(8)), [f', data_offsets: The tensor "a": the data_offsets must be two whole numbers. {SAVE}']),
    ("wrong span", with_header({"a": entry(end=6)}, bytes(6)), [f', data_offsets: The tensor "a": the data_offsets span 6 bytes; dtype and shape need 8. {SAVE}']),
    ("reversed", with_header({"a": entry(begin=8, end=0)}, bytes(8)), [f', data_offsets: The tensor "a": the data_offsets span -8 bytes; dtype and shape need 8. {SAVE}', f', data_offsets: The tensor "a": it starts at byte 8 instead of 0 and so leaves a gap. {SAVE}']),
    ("gap", with_header({"a": entry(), "b": entry(begin=10, end=18)}, bytes(18)), [f', data_offsets: The tensor "b": it starts at byte 10 instead of 8 and so leaves a gap. {SAVE}']),
    ("overlap", with_header({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), [f', data_offsets: The tensor "b": it starts at byte 4 instead of 8 and so overlaps the tensor before. {SAVE}']),
    ("twice the same", with_header({"a": entry(), "b": entry()}, bytes(8)), [f', data_offsets: The tensor "b": it starts at byte 0 instead of 8 and so overlaps the tensor before. {SAVE}']),
    ("cut data", with_header({"a": entry()}, bytes(7)), [f", data_offsets: The file is cut off: the tensors need 8 bytes, 7 are there. {AGAIN}"]),
    ("trailing bytes", with_header({"a": entry()}, bytes(11)), [f", data_offsets: 3 bytes follow after the last tensor. {SAVE}"]),
    ("hostile name", with_header({"../../etc": entry()}, bytes(8)), [f': The tensor "../../etc": the name has characters other than letters, digits, dot and underscore. {SAVE}']),
    ("empty name", with_header({"": entry()}, bytes(8)), [f': The tensor "": the name has characters other than letters, digits, dot and underscore. {SAVE}']),
    ("name with newline", with_header({"a\n": entry()}, bytes(8)), [f': The tensor "a\\n": the name has characters other than letters, digits, dot and underscore. {SAVE}']),
    ("two at once", with_header({"a": entry(dtype="I8"), "b": entry(begin=8, end=16, dtype="I8")}, bytes(16)), [', dtype: 2 tensors (the first is "a"): the dtype is "I8"; supported are F32, F16 and BF16. Convert the adapter first: model.to(torch.float16).']),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "problems"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_it_refuses(data: bytes, problems: list[str]):
    assert problems_of(data) == [f"adapter_model.safetensors{problem}" for problem in problems]


def test_long_names_and_many_tensors_are_refused():
    (long,) = problems_of(with_header({"a" * 257: entry()}, bytes(8)))
    (many,) = problems_of(
        safetensors_bytes({f"t{number}": (1, 1) for number in range(4)}), tensors=3
    )

    assert long.endswith(f"the name is longer than 256 characters. {SAVE}")
    assert many == (
        "adapter_model.safetensors: The file holds 4 tensors; the limit is 3. Adapt fewer modules."
    )


def test_reading_a_bad_file_raises_with_its_problems(tmp_path: Path):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"{}")

    with pytest.raises(InvalidAdapter, match="The file has 2 bytes"):
        read_header(path)


NUMBERS = {
    "F16": ("<e", 2, [0.0, -1.5, 65504.0, 6e-8]),
    "F32": ("<f", 4, [0.0, -1.5, 3.4e38, 1e-45]),
}


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_nan_and_infinity_are_found_anywhere(dtype: str, bad: float, place: int):
    code, _, numbers = NUMBERS[dtype]
    good = b"".join(struct.pack(code, number) for number in numbers)
    with_bad = list(numbers)
    with_bad.insert(place, bad)

    assert is_finite(good, dtype)
    assert not is_finite(b"".join(struct.pack(code, number) for number in with_bad), dtype)


def test_bfloat16_is_the_upper_half_of_float32():
    for pattern in range(1 << 16):
        number = struct.unpack("<f", struct.pack("<HH", 0, pattern))[0]

        assert is_finite(struct.pack("<HH", 0x3F80, pattern), "BF16") == math.isfinite(number)


def test_values_are_reported_by_tensor_with_the_hash_of_the_file():
    data = bytearray(safetensors_bytes({"a": (2, 2), "b": (2, 2), "c": (1, 1)}))
    data[-10:-2] = bytes(8)
    data[-2:] = b"\x00\x7c"
    file = io.BytesIO(bytes(data))
    header = examine_header(file).header
    assert header is not None

    values = examine_values(file, header)

    assert values.all_zero == ("b",)
    assert values.not_finite == ("c",)
    assert values.sha256 == hashlib.sha256(bytes(data)).hexdigest()


def test_a_file_that_shrinks_while_it_is_read_is_refused():
    data = safetensors_bytes({"a": (64, 64)})
    header = examine_header(io.BytesIO(data)).header
    assert header is not None

    with pytest.raises(InvalidAdapter, match="became shorter while it was read"):
        examine_values(io.BytesIO(data[:-100]), header)


def test_a_large_file_is_checked_quickly_and_in_little_memory(tmp_path: Path):
    path = tmp_path / "large"
    rows = 32 * 1024
    with path.open("wb") as file:
        file.write(with_header({"a": entry([rows, 512], 0, rows * 1024)}))
        block = os.urandom(1 << 20).replace(b"\x7c", b"\0").replace(b"\x7d", b"\0")
        block = block.translate(bytes(value & 0x3F for value in range(256)))
        for _ in range(32):
            file.write(block)
    header = read_header(path)
    start = time.process_time()
    tracemalloc.start()

    with path.open("rb") as weights:
        values = examine_values(weights, header)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert values.not_finite == ()
    assert peak < 16 << 20
    assert time.process_time() - start < 2
