"""A strict reader of safetensors files, stricter than the library that reads them later.

It reads the header, proves that header and data describe each other completely, and looks at every
value once, in chunks, with bounded memory. Standard library only. Whether the tensors make up a
LoRA adapter is left to `composer.inspection`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from composer.errors import InvalidAdapter, Problem
from composer.limits import DEFAULT, MIB, Limits
from composer.strict_json import JSONError, parse_json, shown

WEIGHTS_NAME = "adapter_model.safetensors"
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
DIMENSIONS = 2

_LENGTH_BYTES = 8
_CHUNK_BYTES = 1 * MIB
_KEY = re.compile(r"[A-Za-z0-9_.]+")
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}

# A number is NaN or infinite if all bits of its exponent are set.
_EXPONENT = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}

_SAVE_AGAIN = 'Save the adapter again with peft: model.save_pretrained("folder").'
_UPLOAD_AGAIN = "Copy or upload the file again; it may have been cut off."


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it; `begin` and `end` count from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """A header that was proved to match its file."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    file_size: int


@dataclass(frozen=True)
class Values:
    """What one pass over the data found."""

    not_finite: tuple[str, ...]
    all_zero: tuple[str, ...]
    sha256: str


@dataclass
class HeaderReading:
    """A header with everything that is wrong with it.

    `tensors` holds the entries that could be understood, so that a caller can say more about them;
    `header` is there only if there are no problems.
    """

    problems: list[Problem] = field(default_factory=list)
    tensors: dict[str, TensorInfo] = field(default_factory=dict)
    header: SafetensorsHeader | None = None


def read_header(path: Path, limits: Limits = DEFAULT) -> SafetensorsHeader:
    """Read and check the header of a file.

    Raises:
        InvalidAdapter: with every problem of the header.
    """
    with path.open("rb") as file:
        reading = examine_header(file, limits)
    if reading.header is None:
        raise InvalidAdapter(reading.problems)
    return reading.header


def examine_header(
    file: BinaryIO, limits: Limits = DEFAULT, *, name: str = WEIGHTS_NAME
) -> HeaderReading:
    """Read the header of an open file and collect everything that is wrong with it."""
    reading = HeaderReading()
    try:
        size = file.seek(0, 2)
        file.seek(0)
        raw = _header_bytes(file, size, limits)
        entries = _entries(raw)
        metadata = _metadata(entries.pop("__metadata__", None))
    except _Refused as refusal:
        reading.problems.append(refusal.problem(name))
        return reading
    data_start = _LENGTH_BYTES + len(raw)
    complaints = _Complaints(name)
    if not entries:
        complaints.add("", "The file holds no tensors.", _SAVE_AGAIN)
    elif len(entries) > limits.tensors:
        message = f"The file holds {len(entries)} tensors; the limit is {limits.tensors}."
        complaints.add("", message, "Adapt fewer modules.")
    else:
        reading.tensors = _tensors(entries, limits, complaints)
        if len(reading.tensors) == len(entries):
            _check_layout(reading.tensors, size - data_start, complaints)
    reading.problems = complaints.problems()
    if not reading.problems:
        reading.header = SafetensorsHeader(reading.tensors, metadata, data_start, size)
    return reading


def examine_values(file: BinaryIO, header: SafetensorsHeader) -> Values:
    """Look at every value of an open file once: NaN and infinity, tensors of zeros, the sha256.

    The values are tested a chunk at a time as one large integer: adding the lowest exponent bit to
    the exponents alone carries into the sign bit exactly where all exponent bits were set.
    """
    digest = hashlib.sha256()
    file.seek(0)
    digest.update(file.read(header.data_start))
    not_finite, all_zero = [], []
    in_file_order = sorted(header.tensors.items(), key=lambda item: item[1].begin)
    for key, tensor in in_file_order:
        finite = zero = True
        for chunk in _chunks(file, tensor.end - tensor.begin):
            digest.update(chunk)
            zero = zero and chunk.count(0) == len(chunk)
            finite = finite and is_finite(chunk, tensor.dtype)
        if not finite:
            not_finite.append(key)
        if zero:
            all_zero.append(key)
    return Values(tuple(not_finite), tuple(all_zero), digest.hexdigest())


def is_finite(chunk: bytes, dtype: str) -> bool:
    """Say whether a run of little-endian floating-point numbers has no NaN and no infinity."""
    width = ITEM_BYTES[dtype]
    exponent = _EXPONENT[dtype]
    lowest = exponent & -exponent
    sign = 1 << (8 * width - 1)
    count = len(chunk) // width
    numbers = int.from_bytes(chunk, "little")
    carried = (numbers & _repeated(exponent, width, count)) + _repeated(lowest, width, count)
    return not carried & _repeated(sign, width, count)


def tensor_list(keys: Iterable[str]) -> str:
    """Name some tensors in a message: all of a few, else how many and the first."""
    names = sorted(keys)
    if len(names) == 1:
        return f"The tensor {shown(names[0], 120)}"
    return f"{len(names)} tensors (the first is {shown(names[0], 120)})"


class _Refused(Exception):
    """The header cannot be read any further."""

    def __init__(self, message: str, fix: str = _SAVE_AGAIN, field_name: str = "header") -> None:
        super().__init__(message)
        self.message, self.fix, self.field_name = message, fix, field_name

    def problem(self, name: str) -> Problem:
        return Problem(name, self.field_name, self.message, self.fix)


class _Complaints:
    """Collects complaints and says equal ones once, with the tensors they concern."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._plain: list[Problem] = []
        self._keys: dict[tuple[str, str, str], list[str]] = {}

    def add(self, field_name: str, message: str, fix: str) -> None:
        self._plain.append(Problem(self.name, field_name, message, fix))

    def about(self, key: str, field_name: str, predicate: str, fix: str) -> None:
        """Complain about one tensor; `predicate` completes "The tensor X ..."."""
        self._keys.setdefault((field_name, predicate, fix), []).append(key)

    def problems(self) -> list[Problem]:
        grouped = [
            Problem(self.name, field_name, f"{tensor_list(keys)}: {predicate}", fix)
            for (field_name, predicate, fix), keys in self._keys.items()
        ]
        return [*self._plain, *grouped]


def _header_bytes(file: BinaryIO, size: int, limits: Limits) -> bytes:
    start = file.read(_LENGTH_BYTES)
    if size < _LENGTH_BYTES:
        message = f"The file has {size} bytes; even an empty safetensors file has more."
        raise _Refused(message, _UPLOAD_AGAIN, "")
    _refuse_other_formats(start)
    length = int.from_bytes(start, "little")
    if length > limits.header_bytes:
        message = f"The header claims {length} bytes; the limit is {limits.header_bytes}."
        raise _Refused(message)
    if length > size - _LENGTH_BYTES:
        message = f"The header claims {length} bytes, but only {size - _LENGTH_BYTES} follow."
        raise _Refused(message, _UPLOAD_AGAIN)
    return file.read(length)


def _refuse_other_formats(start: bytes) -> None:
    if start.startswith(b"PK\x03\x04") or start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        message = "The file is a PyTorch pickle that was renamed, not safetensors."
        raise _Refused(message, "Call it adapter_model.bin, or save it as safetensors.", "")
    if start == b"version ":
        message = "The file is a Git LFS pointer, not the weights themselves."
        raise _Refused(message, 'Fetch the weights with "git lfs pull" and upload them.', "")


def _entries(raw: bytes) -> dict[str, object]:
    if not raw.startswith(b"{"):
        message = 'The header does not start with "{".'
        raise _Refused(message)
    if not raw.rstrip(b" ").endswith(b"}"):
        message = "The header is followed by something else than spaces."
        raise _Refused(message)
    try:
        entries = parse_json(raw)
    except JSONError as error:
        message = f"The header is not valid JSON: {error}."
        raise _Refused(message) from None
    # The text starts with "{", so that it can be nothing else.
    return entries if isinstance(entries, dict) else {}


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        message = "The metadata must be an object whose values are all strings."
        raise _Refused(message, field_name="__metadata__")
    return value


def _tensors(
    entries: Mapping[str, object], limits: Limits, complaints: _Complaints
) -> dict[str, TensorInfo]:
    tensors = {}
    for key, entry in entries.items():
        if len(key) > limits.key_length:
            predicate = f"the name is longer than {limits.key_length} characters."
            complaints.about(key, "", predicate, _SAVE_AGAIN)
        elif not _KEY.fullmatch(key):
            predicate = "the name has characters other than letters, digits, dot and underscore."
            complaints.about(key, "", predicate, _SAVE_AGAIN)
        tensor = _tensor(key, entry, complaints)
        if tensor is not None:
            tensors[key] = tensor
    return tensors


def _tensor(key: str, entry: object, complaints: _Complaints) -> TensorInfo | None:
    """Parse one entry; one with the right form but the wrong type or shape is complained about."""
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        predicate = "the entry must have exactly the keys dtype, shape and data_offsets."
        complaints.about(key, "", predicate, _SAVE_AGAIN)
        return None
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        complaints.about(key, "dtype", "the dtype must be a string.", _SAVE_AGAIN)
        return None
    if not _are_sizes(shape):
        complaints.about(key, "shape", "the shape must be a list of whole numbers.", _SAVE_AGAIN)
        return None
    if not _are_sizes(offsets) or len(offsets) != 2:  # noqa: PLR2004 - begin and end
        predicate = "the data_offsets must be two whole numbers."
        complaints.about(key, "data_offsets", predicate, _SAVE_AGAIN)
        return None
    tensor = TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])
    _check_tensor(key, tensor, complaints)
    return tensor


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_tensor(key: str, tensor: TensorInfo, complaints: _Complaints) -> None:
    if len(tensor.shape) != DIMENSIONS or 0 in tensor.shape:
        predicate = f"the shape is {list(tensor.shape)[:8]}; LoRA matrices have two sizes above 0."
        complaints.about(key, "shape", predicate, "Save only the lora_A and lora_B matrices.")
    if tensor.dtype not in ITEM_BYTES:
        predicate = f"the dtype is {shown(tensor.dtype)}; supported are F32, F16 and BF16."
        fix = "Convert the adapter first: model.to(torch.float16)."
        complaints.about(key, "dtype", predicate, fix)
        return
    expected = ITEM_BYTES[tensor.dtype]
    for length in tensor.shape:
        expected *= length
    if tensor.end - tensor.begin != expected:
        actual = tensor.end - tensor.begin
        predicate = f"the data_offsets span {actual} bytes; dtype and shape need {expected}."
        complaints.about(key, "data_offsets", predicate, _SAVE_AGAIN)


def _check_layout(
    tensors: Mapping[str, TensorInfo], data_size: int, complaints: _Complaints
) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    position = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != position:
            what = "overlaps the tensor before" if tensor.begin < position else "leaves a gap"
            predicate = f"it starts at byte {tensor.begin} instead of {position} and so {what}."
            complaints.about(key, "data_offsets", predicate, _SAVE_AGAIN)
            return
        position = tensor.end
    if position > data_size:
        message = f"The file is cut off: the tensors need {position} bytes, {data_size} are there."
        complaints.add("data_offsets", message, _UPLOAD_AGAIN)
    elif position < data_size:
        message = f"{data_size - position} bytes follow after the last tensor."
        complaints.add("data_offsets", message, _SAVE_AGAIN)


def _chunks(file: BinaryIO, length: int) -> Iterator[bytes]:
    while length:
        chunk = file.read(min(length, _CHUNK_BYTES))
        if not chunk:
            message = "The file became shorter while it was read."
            raise InvalidAdapter(Problem(WEIGHTS_NAME, "", message, _UPLOAD_AGAIN))
        length -= len(chunk)
        yield chunk


@lru_cache(maxsize=32)
def _repeated(pattern: int, width: int, count: int) -> int:
    """Return `pattern` in each of `count` lanes of `width` bytes."""
    return int.from_bytes(pattern.to_bytes(width, "little") * count, "little")
