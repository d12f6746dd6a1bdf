"""Turn a legacy adapter_model.bin into safetensors without unpickling it.

The archive is checked as strictly as the pickle inside it: no compression, no duplicate members, no
views that are larger than what is stored. What the pickle may say is decided in
`composer.pickle_opcodes`; whether the result is a LoRA adapter in `composer.inspection`.
"""

from __future__ import annotations

import errno
import json
import math
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from composer.errors import InvalidAdapter, Problem, StorageFull
from composer.limits import DEFAULT, MIB, Limits
from composer.pickle_opcodes import StoredTensor, UnsafePickle, read_state_dict
from composer.safetensors_header import ITEM_BYTES
from composer.strict_json import shown

PICKLE_NAME = "adapter_model.bin"

_ZIP_START = b"PK\x03\x04"
_DIRECTORY_ENTRY = b"PK\x01\x02"
_SPARE_MEMBERS = 64
_ALIGNMENT = 8
_DIMENSIONS = 2
_TWO_BYTES = 2
_KEY = re.compile(r"[A-Za-z0-9_.]+")

# What zipfile raises for archives that are damaged or use rare features.
_DAMAGED = (
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OverflowError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
_DAMAGE = (
    "The file is a damaged archive.",
    "Copy or upload it again; it may have been cut off.",
)
_SAVE_AGAIN = "Save the adapter again with peft's save_pretrained, which writes safetensors."
_RESAVE_OLD = (
    "On a machine you trust, load it with torch.load(path, weights_only=True) and save the result "
    "with safetensors.torch.save_file(tensors, 'adapter_model.safetensors')."
)


def convert_pickle(bin_path: Path, out_path: Path, *, limits: Limits = DEFAULT) -> None:
    """Write the tensors of a PyTorch checkpoint as safetensors.

    `out_path` appears only once it is complete.

    Raises:
        InvalidAdapter: if the file is anything but a plain state dict.
        StorageFull: if there is no space for the result.
    """
    partial = out_path.with_name(f".{out_path.name}.partial")
    try:
        with bin_path.open("rb") as file, partial.open("wb") as out:
            _convert(file, out, limits)
        partial.replace(out_path)
    except UnsafePickle as error:
        problem = Problem(PICKLE_NAME, "", error.message, error.fix)
        raise InvalidAdapter(problem) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = "There is no space left to convert the weights."
            raise StorageFull(message) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def _convert(file: BinaryIO, out: BinaryIO, limits: Limits) -> None:
    _refuse_other_formats(file, limits)
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file.seek(0, 2))
            tensors = read_state_dict(_pickle(archive, members, limits))
            _refuse_excess(tensors, members, limits)
            _write(archive, members, tensors, out)
    except _DAMAGED as error:
        raise UnsafePickle(*_DAMAGE) from error
    except OSError as error:
        # A directory that points before the start or behind the end of everything.
        if error.errno != errno.EINVAL:
            raise
        raise UnsafePickle(*_DAMAGE) from error


def _refuse_other_formats(file: BinaryIO, limits: Limits) -> None:
    size = file.seek(0, 2)
    if size > limits.weights_bytes:
        message = f"The file has {size} bytes; the limit is {limits.weights_bytes}."
        raise UnsafePickle(message, "Save in float16, or train with a smaller rank.")
    file.seek(0)
    start = file.read(9)
    if start.endswith(b"{"):
        message = "The file is safetensors under another name."
        raise UnsafePickle(message, "Call it adapter_model.safetensors.")
    if start.startswith(b"version "):
        message = "The file is a Git LFS pointer, not the weights themselves."
        raise UnsafePickle(message, 'Fetch the weights with "git lfs pull" and upload them.')
    if start.startswith(b"\x80"):
        message = "The file is in the format that PyTorch wrote before version 1.6."
        raise UnsafePickle(message, _RESAVE_OLD)
    if not start.startswith(_ZIP_START):
        message = "The file is not a PyTorch checkpoint."
        raise UnsafePickle(message, _SAVE_AGAIN)
    if _count(file, _DIRECTORY_ENTRY) > limits.tensors + _SPARE_MEMBERS:
        message = f"The archive has more members than {limits.tensors} tensors need."
        raise UnsafePickle(message, "Adapt fewer modules.")


def _count(file: BinaryIO, mark: bytes) -> int:
    """Count the entries of the archive's directory before zipfile builds an object for each."""
    file.seek(0)
    found, tail = 0, b""
    while chunk := file.read(MIB):
        found += (tail + chunk).count(mark)
        tail = chunk[1 - len(mark) :]
    return found


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by their names below the one folder of the archive."""
    members: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for member in archive.infolist():
        folder, _, name = member.filename.partition("/")
        folders.add(folder)
        if name in members:
            message = f"The archive has the member {shown(name)} twice."
            raise UnsafePickle(message)
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            message = f"The member {shown(name)} is compressed; torch.save never does that."
            raise UnsafePickle(message)
        members[name] = member
    if len(folders) != 1:
        message = "The members of the archive are not in one folder, as torch.save puts them."
        raise UnsafePickle(message)
    if "constants.pkl" in members:
        message = "The file is a TorchScript program, not a checkpoint."
        raise UnsafePickle(message)
    if sum(member.file_size for member in members.values()) > size:
        message = "The members of the archive overlap."
        raise UnsafePickle(message)
    return members


def _pickle(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], limits: Limits
) -> bytes:
    if "byteorder" in members and _read(archive, members, "byteorder", 16) != b"little":
        message = "The file was written on a big-endian machine."
        raise UnsafePickle(message, _RESAVE_OLD)
    return _read(archive, members, "data.pkl", limits.pickle_bytes)


def _read(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str, limit: int
) -> bytes:
    if name not in members:
        message = f"The archive lacks the member {shown(name)}."
        raise UnsafePickle(message, _SAVE_AGAIN)
    if members[name].file_size > limit:
        message = f"The member {shown(name)} has more than {limit} bytes."
        raise UnsafePickle(message)
    return archive.read(members[name])


def _refuse_excess(
    tensors: Mapping[str, StoredTensor], members: Mapping[str, zipfile.ZipInfo], limits: Limits
) -> None:
    """Every tensor lies inside its storage, and together they are no larger than a weights file."""
    if len(tensors) > limits.tensors:
        message = f"The file holds {len(tensors)} tensors; the limit is {limits.tensors}."
        raise UnsafePickle(message, "Adapt fewer modules.")
    total = 0
    for name, tensor in tensors.items():
        if len(name) > limits.key_length or not _KEY.fullmatch(name):
            message = (
                f"The tensor name {shown(name)} has other characters than letters, digits, dot "
                f"and underscore, or more than {limits.key_length}."
            )
            raise UnsafePickle(message, _SAVE_AGAIN)
        _refuse_view(name, tensor)
        member = members.get(f"data/{tensor.storage.key}")
        width = ITEM_BYTES[tensor.storage.dtype]
        if member is None or member.file_size != tensor.storage.count * width:
            message = f"The numbers of the tensor {shown(name)} are missing or incomplete."
            raise UnsafePickle(message, "Copy or upload it again; it may have been cut off.")
        total += math.prod(tensor.shape) * width
    if total > limits.weights_bytes:
        message = f"The tensors need {total} bytes; the limit is {limits.weights_bytes}."
        raise UnsafePickle(message, "Save in float16, or train with a smaller rank.")


def _refuse_view(name: str, tensor: StoredTensor) -> None:
    """Refuse views that reach outside their storage or use a number more than once."""
    last = tensor.offset + sum(
        (length - 1) * step for length, step in zip(tensor.shape, tensor.stride, strict=True)
    )
    if 0 in tensor.shape or last >= tensor.storage.count:
        message = f"The tensor {shown(name)} reaches outside its data."
        raise UnsafePickle(message)
    if not _is_contiguous(tensor) and not _is_sparse_view(tensor):
        message = f"The tensor {shown(name)} is a view that repeats numbers, not a plain matrix."
        raise UnsafePickle(message)


def _is_contiguous(tensor: StoredTensor) -> bool:
    expected = 1
    for length, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if length != 1 and step != expected:
            return False
        expected *= length
    return True


def _is_sparse_view(tensor: StoredTensor) -> bool:
    """Say whether a matrix is transposed or cut out of a larger one, so that no number repeats."""
    if len(tensor.shape) != _DIMENSIONS:
        return False
    steps = sorted(
        (step, length)
        for length, step in zip(tensor.shape, tensor.stride, strict=True)
        if length > 1
    )
    reach = 1
    for step, length in steps:
        if step < reach:
            return False
        reach = step * length
    return True


def _write(
    archive: zipfile.ZipFile,
    members: Mapping[str, zipfile.ZipInfo],
    tensors: Mapping[str, StoredTensor],
    out: BinaryIO,
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in sorted(tensors.items()):
        end = position + math.prod(tensor.shape) * ITEM_BYTES[tensor.storage.dtype]
        header[name] = {
            "dtype": tensor.storage.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    out.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in sorted(tensors.items()):
        data = archive.read(members[f"data/{tensor.storage.key}"])
        for piece in _pieces(data, tensor):
            out.write(piece)


def _pieces(data: bytes, tensor: StoredTensor) -> Iterator[bytes]:
    """Yield the bytes of a tensor row by row, or at once if they lie together."""
    width = ITEM_BYTES[tensor.storage.dtype]
    numbers = memoryview(data).cast("H" if width == _TWO_BYTES else "I")
    if _is_contiguous(tensor):
        yield numbers[tensor.offset : tensor.offset + math.prod(tensor.shape)].tobytes()
        return
    (rows, columns), (row_step, step) = tensor.shape, tensor.stride
    for row in range(rows):
        start = tensor.offset + row * row_step
        yield numbers[start : start + (columns - 1) * step + 1 : max(step, 1)].tobytes()
