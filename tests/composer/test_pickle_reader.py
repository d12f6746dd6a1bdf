# ruff: noqa: E501 - the corpus reads as a table, one case a line
from __future__ import annotations

import collections
import errno
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from composer import pickle_reader
from composer.errors import InvalidAdapter, StorageFull
from composer.limits import Limits
from composer.pickle_opcodes import UnsafePickle, read_state_dict
from composer.pickle_reader import convert_pickle

SAFE = "Save the adapter as safetensors on the machine it was trained on, with peft's save_pretrained; do not open this file with torch.load."
AGAIN = "Save the adapter again with peft's save_pretrained, which writes safetensors."
CUT = "Copy or upload it again; it may have been cut off."


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def saved(tensors: Mapping[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensors, buffer, **options)
    return buffer.getvalue()


def convert(tmp_path: Path, data: bytes, **limits: int) -> Path:
    source, target = tmp_path / "adapter_model.bin", tmp_path / "adapter_model.safetensors"
    source.write_bytes(data)
    convert_pickle(source, target, limits=Limits(**limits))
    return target


def problem_of(tmp_path: Path, data: bytes, **limits: int) -> str:
    with pytest.raises(InvalidAdapter) as caught:
        convert(tmp_path, data, **limits)
    assert names_in(tmp_path) == ["adapter_model.bin"]
    (problem,) = caught.value.problems
    assert problem.file == "adapter_model.bin"
    return str(problem).removeprefix("adapter_model.bin: ")


def rezipped(
    data: bytes,
    change: Callable[[str, bytes], bytes] = lambda _, content: content,
    *,
    extra: tuple[tuple[str, bytes], ...] = (),
    compression: int = zipfile.ZIP_STORED,
    drop: str = "",
) -> bytes:
    """Write a checkpoint again with some members changed, added, dropped or compressed."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(buffer, "w", compression) as new,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        for name in old.namelist():
            if not drop or not name.endswith(drop):
                new.writestr(name, change(name, old.read(name)))
        folder = old.namelist()[0].partition("/")[0]
        for name, content in extra:
            new.writestr(name if "/" in name else f"{folder}/{name}", content)
    return buffer.getvalue()


def with_pickle(content: bytes) -> bytes:
    """Return a checkpoint of one storage of four float16 numbers whose pickle is replaced."""
    data = saved({"a": torch.ones(2, 2, dtype=torch.float16)})
    return rezipped(data, lambda name, old: content if name.endswith("data.pkl") else old)


def tensor_pickle(
    *,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 2),
    stride: tuple[int, ...] = (2, 1),
    name: bytes = b"a",
    storage: bytes = b"HalfStorage",
    key: bytes = b"0",
    count: int = 4,
) -> bytes:
    """Write by hand what torch.save writes for one tensor."""

    def text(value: bytes) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    return (
        b"\x80\x02}" + text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text(b"storage") + b"ctorch\n" + storage + b"\n" + text(key) + text(b"cpu") + number(count)
        + b"tQ" + number(offset) + numbers(shape) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


TENSORS = {
    "half": torch.randn(3, 4).half(),
    "float": torch.nn.Parameter(torch.randn(4, 3)),
    "bfloat": torch.randn(2, 5).bfloat16(),
    "transposed": torch.randn(6, 2).t(),
    "cut": torch.randn(8, 9)[1:4, 2:7],
    "row": torch.randn(4, 9)[2:3],
    "column": torch.randn(4, 9)[:, 3:4],
    "vector": torch.randn(7),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_it_works(tmp_path: Path, protocol: int):
    target = convert(tmp_path, saved(TENSORS, pickle_protocol=protocol))

    read = load_file(target)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert names_in(tmp_path) == ["adapter_model.bin", "adapter_model.safetensors"]


def test_a_state_dict_of_a_module_is_read(tmp_path: Path):
    state = torch.nn.Linear(3, 2).state_dict()
    assert hasattr(state, "_metadata")

    assert torch.equal(load_file(convert(tmp_path, saved(state)))["weight"], state["weight"])


def test_shared_storages_are_written_out(tmp_path: Path):
    whole = torch.randn(4, 6)

    read = load_file(convert(tmp_path, saved({"a": whole, "b": whole[:2]})))

    assert torch.equal(read["b"], whole[:2])


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path: Path, protocol: int):
    trap = tmp_path.parent / f"{tmp_path.name}-trap"
    data = with_pickle(pickle.dumps({"a": Touch(trap)}, protocol=protocol))

    problem = problem_of(tmp_path, data)

    assert problem == f'The pickle asks for "posix.mkdir", which no adapter needs. {SAFE}'
    assert not trap.exists()
    pickle.loads(pickle.dumps(Touch(trap), protocol=protocol))  # the trap does work
    assert trap.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval", "os\nsystem", "torch\nload", "torch.hub\nload", "torch._utils\n_rebuild_tensor",
        "torch.serialization\nload", "collections\nOrderedDict.fromkeys", "builtins\ngetattr",
        "torch._utils\n_rebuild_tensor_v2.__globals__",
    ],
)  # fmt: skip
def test_every_other_name_is_refused(tmp_path: Path, name: str):
    data = with_pickle(b"\x80\x02c" + name.encode() + b"\n)R.")

    shown = name.replace("\n", ".")
    assert problem_of(tmp_path, data) == (
        f'The pickle asks for "{shown}", which no adapter needs. {SAFE}'
    )


CASES: list[tuple[str, bytes, str]] = [
    ("text", b"hello, this is text", f"The file is not a PyTorch checkpoint. {AGAIN}"),
    ("empty", b"", f"The file is not a PyTorch checkpoint. {AGAIN}"),
    ("safetensors", struct.pack("<Q", 2) + b"{}", "The file is safetensors under another name. Call it adapter_model.safetensors."),
    ("lfs pointer", b"version https://git-lfs", 'The file is a Git LFS pointer, not the weights themselves. Fetch the weights with "git lfs pull" and upload them.'),
    ("old format", saved({"a": torch.ones(2, 2)}, _use_new_zipfile_serialization=False), "The file is in the format that PyTorch wrote before version 1.6. On a machine you trust, load it with torch.load(path, weights_only=True) and save the result with safetensors.torch.save_file(tensors, 'adapter_model.safetensors')."),
    ("cut", saved({"a": torch.ones(2, 2)})[:-40], f"The file is a damaged archive. {CUT}"),
    ("compressed", rezipped(saved({"a": torch.zeros(99, 99)}), compression=zipfile.ZIP_DEFLATED), f'The member "data.pkl" is compressed; torch.save never does that. {SAFE}'),
    ("two pickles", rezipped(saved({"a": torch.ones(2, 2)}), extra=(("data.pkl", b"N."),)), f'The archive has the member "data.pkl" twice. {SAFE}'),
    ("two folders", rezipped(saved({"a": torch.ones(2, 2)}), extra=(("other/x", b""),)), f"The members of the archive are not in one folder, as torch.save puts them. {SAFE}"),
    ("program", rezipped(saved({"a": torch.ones(2, 2)}), extra=(("constants.pkl", b"N."),)), f"The file is a TorchScript program, not a checkpoint. {SAFE}"),
    ("no pickle", rezipped(saved({"a": torch.ones(2, 2)}), drop="data.pkl"), f'The archive lacks the member "data.pkl". {AGAIN}'),
    ("no numbers", rezipped(saved({"a": torch.ones(2, 2)}), drop="data/0"), f'The numbers of the tensor "a" are missing or incomplete. {CUT}'),
    ("few numbers", rezipped(saved({"a": torch.ones(2, 2)}), lambda name, old: old[:-2] if name.endswith("data/0") else old), f'The numbers of the tensor "a" are missing or incomplete. {CUT}'),
    ("big endian", rezipped(saved({"a": torch.ones(2, 2)}), lambda name, old: b"big" if name.endswith("byteorder") else old), "The file was written on a big-endian machine. On a machine you trust, load it with torch.load(path, weights_only=True) and save the result with safetensors.torch.save_file(tensors, 'adapter_model.safetensors')."),
    ("float64", saved({"a": torch.ones(2, 2).double()}), 'The file holds numbers of the type "torch.DoubleStorage". Convert the adapter first: model.to(torch.float16).'),
    ("list", with_pickle(b"\x80\x02]."), f"The pickle uses the instruction EMPTY_LIST, which no state dict needs. {SAFE}"),
    ("none", with_pickle(b"\x80\x02N."), f"The pickle does not hold a dict of tensors. {SAFE}"),
    ("empty dict", with_pickle(b"\x80\x02}."), f"The pickle does not hold a dict of tensors. {SAFE}"),
    ("nested", saved({"state_dict": {"a": torch.ones(1, 1)}}), 'The entry "state_dict" is not a tensor. Save the state dict of the adapter alone.'),
    ("number keys", saved({1: torch.ones(1, 1)}), f"The pickle holds a dict whose keys are not texts. {SAFE}"),  # type: ignore[dict-item]
    ("twice the same key", with_pickle(b"\x80\x02}X\x01\0\0\0aNsX\x01\0\0\0aNs."), f'The pickle names the entry "a" twice. {SAFE}'),
    ("garbage", with_pickle(b"\xff\xff"), f"The pickle is malformed. {SAFE}"),
    ("empty stack", with_pickle(b"\x80\x020."), f"The pickle uses the instruction POP, which no state dict needs. {SAFE}"),
    ("no mark", with_pickle(b"\x80\x02t."), f"The pickle is malformed. {SAFE}"),
    ("pop a mark", with_pickle(b"\x80\x02(\x85."), f"The pickle is malformed. {SAFE}"),
    ("no memo", with_pickle(b"\x80\x02h\x05."), f"The pickle is malformed. {SAFE}"),
    ("put nothing", with_pickle(b"\x80\x02q\x00."), f"The pickle is malformed. {SAFE}"),
    ("call a text", with_pickle(b"\x80\x02X\x01\0\0\0a)R."), f"The pickle is malformed. {SAFE}"),
    ("set on a text", with_pickle(b"\x80\x02X\x01\0\0\0aNNs."), f"The pickle is malformed. {SAFE}"),
    ("half an item", with_pickle(b"\x80\x02}(Nu."), f"The pickle is malformed. {SAFE}"),
    ("name of numbers", with_pickle(b"\x80\x04K\x01K\x02\x93."), f"The pickle is malformed. {SAFE}"),
    ("state of a text", with_pickle(b"\x80\x02X\x01\0\0\0a}b."), f"The pickle changes the state of an object that is not a dict. {SAFE}"),
    ("two results", with_pickle(b"\x80\x02}}."), f"The pickle is malformed. {SAFE}"),
    ("strange call", with_pickle(b"\x80\x02ccollections\nOrderedDict\n(NtR."), f"The pickle builds a tensor in an unknown way. {SAFE}"),
    ("strange data", with_pickle(b"\x80\x02X\x01\0\0\0aQ."), f"The pickle refers to data in an unknown way. {SAFE}"),
    ("path as key", with_pickle(tensor_pickle(key=b"../../etc/passwd")), f"The pickle refers to data in an unknown way. {SAFE}"),
    ("negative count", with_pickle(tensor_pickle(count=-4)), f"The pickle refers to data in an unknown way. {SAFE}"),
    ("negative offset", with_pickle(tensor_pickle(offset=-1)), f"The pickle is malformed. {SAFE}"),
    ("negative stride", with_pickle(tensor_pickle(stride=(-2, 1))), f"The pickle is malformed. {SAFE}"),
    ("strides missing", with_pickle(tensor_pickle(stride=(1,))), f"The pickle is malformed. {SAFE}"),
    ("outside", with_pickle(tensor_pickle(offset=1)), f'The tensor "a" reaches outside its data. {SAFE}'),
    ("no elements", with_pickle(tensor_pickle(shape=(0, 2))), f'The tensor "a" reaches outside its data. {SAFE}'),
    ("stride 0", with_pickle(tensor_pickle(stride=(0, 0))), f'The tensor "a" is a view that repeats numbers, not a plain matrix. {SAFE}'),
    ("40 terabytes", with_pickle(tensor_pickle(shape=(1 << 20, 1 << 20), stride=(0, 0))), f'The tensor "a" is a view that repeats numbers, not a plain matrix. {SAFE}'),
    ("overlapping", with_pickle(tensor_pickle(shape=(2, 3), stride=(1, 1))), f'The tensor "a" is a view that repeats numbers, not a plain matrix. {SAFE}'),
    ("three dimensions", with_pickle(tensor_pickle(shape=(1, 2, 2), stride=(1, 1, 2))), f'The tensor "a" is a view that repeats numbers, not a plain matrix. {SAFE}'),
    ("hostile name", with_pickle(tensor_pickle(name=b"../a")), f'The tensor name "../a" has other characters than letters, digits, dot and underscore, or more than 256. {AGAIN}'),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "problem"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_it_refuses(tmp_path: Path, data: bytes, problem: str):
    assert problem_of(tmp_path, data) == problem


def test_the_handwritten_pickle_is_one_that_torch_reads(tmp_path: Path):
    data = with_pickle(tensor_pickle())

    read = load_file(convert(tmp_path, data))

    assert torch.equal(read["a"], torch.load(io.BytesIO(data), weights_only=True)["a"])


def test_sizes_are_limited(tmp_path: Path):
    data = saved({"a": torch.ones(64, 64), "b": torch.ones(1, 1)})

    assert problem_of(tmp_path, data, weights_bytes=1000) == (
        f"The file has {len(data)} bytes; the limit is 1000. Save in float16, or train with a smaller rank."
    )
    assert problem_of(tmp_path, data, tensors=1) == (
        "The file holds 2 tensors; the limit is 1. Adapt fewer modules."
    )
    assert problem_of(tmp_path, data, pickle_bytes=10).startswith(
        'The member "data.pkl" has more than 10 bytes.'
    )


def test_many_views_of_one_storage_are_limited(tmp_path: Path):
    whole = torch.ones(64, 64)
    data = saved({f"t{number}": whole for number in range(20)})

    assert problem_of(tmp_path, data, weights_bytes=100_000) == (
        "The tensors need 327680 bytes; the limit is 100000. Save in float16, or train with a smaller rank."
    )


def test_an_archive_of_many_members_is_refused_before_it_is_listed(tmp_path: Path):
    data = rezipped(
        saved({"a": torch.ones(1, 1)}), extra=tuple((f"x{number}", b"") for number in range(80))
    )

    assert problem_of(tmp_path, data, tensors=1) == (
        "The archive has more members than 1 tensors need. Adapt fewer modules."
    )


def test_members_may_not_overlap(tmp_path: Path):
    """Two entries of the directory that point at the same bytes make a bomb without compression."""
    data = saved({"a": torch.ones(64, 64)})
    start = data.index(b"PK\x01\x02", data.index(b"data.pkl") + 1)
    entries = data[start:]
    at = entries.index(b"archive/data/0") - 46
    length = 46 + sum(struct.unpack("<HHH", entries[at + 28 : at + 34]))
    copies = b"".join(
        entries[at : at + length].replace(b"archive/data/0", f"archive/data/{digit}".encode())
        for digit in range(1, 8)
    )
    end = entries.rindex(b"PK\x05\x06")
    directory = (
        entries[: entries.index(b"PK\x06\x06") if b"PK\x06\x06" in entries else end] + copies
    )
    count = directory.count(b"PK\x01\x02")
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)

    assert problem_of(tmp_path, data[:start] + directory + tail) == (
        f"The members of the archive overlap. {SAFE}"
    )


def test_endless_instructions_are_refused():
    with pytest.raises(UnsafePickle, match="more than 400000 instructions"):
        read_state_dict(b"\x80\x02" + b"}" * 500_000 + b".")


def test_a_tower_of_tuples_costs_nothing():
    """Each level holds the one below twice: 2^60 values if anything walked over them."""
    content = b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b"."

    with pytest.raises(UnsafePickle, match="does not hold a dict of tensors"):
        read_state_dict(content)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pickle_reader, "_write", full)

    with pytest.raises(StorageFull, match="no space left to convert"):
        convert(tmp_path, saved(TENSORS))
    assert names_in(tmp_path) == ["adapter_model.bin"]


def test_other_errors_of_the_system_are_not_the_users(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        convert_pickle(tmp_path / "missing.bin", tmp_path / "out")


def test_the_header_is_padded_as_the_format_wants(tmp_path: Path):
    data = convert(tmp_path, saved(collections.OrderedDict(a=torch.ones(1, 2)))).read_bytes()

    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["a"]["shape"] == [1, 2]
