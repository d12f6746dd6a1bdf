"""Read the two binary formats of a Xet upload: xorbs (chunks back to back) and shards (recipes).

Pure functions over bytes and files: no database, no network. Every length is checked before it is
believed, since all of it comes from a client. Described in the hub client's published format docs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lz4.frame

CHUNK_HEADER = 8
MAX_CHUNK_BYTES = 256 * 1024  # the clients cut at 128 KiB
# Clients fill a xorb up to 64 MiB of chunks; the header of each comes on top.
MAX_XORB_BYTES = 65 * 1024 * 1024
RAW, LZ4, GROUPED_LZ4 = 0, 1, 2

SHARD_TAG = b"HFRepoMetaData"
SHARD_HEADER = 48  # tag 32, version u64, footer size u64
ENTRY = 48
SECTION_END = b"\xff" * 32
HAS_VERIFICATION = 1 << 31
HAS_SHA256 = 1 << 30
MAX_FILES, MAX_SEGMENTS = 1000, 100_000


class XetError(ValueError):
    """The bytes are not a xorb or shard that this server accepts; the text says why."""


@dataclass(frozen=True)
class Segment:
    """A run of chunks of one xorb: chunks `first` to `end`, `end` not included."""

    xorb: str
    size: int
    first: int
    end: int


@dataclass(frozen=True)
class ShardFile:
    """How one file is put together, and the sha256 it must have."""

    sha256: str
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return sum(segment.size for segment in self.segments)


def count_chunks(xorb: Path) -> int:
    """Walk over a stored xorb's chunk headers and return their number.

    Raises:
        XetError: where a header is cut off, oversized or of an unknown kind.
    """
    size = xorb.stat().st_size
    position = count = 0
    with xorb.open("rb") as file:
        while position < size:
            file.seek(position)
            position = _read_header(file.read(CHUNK_HEADER), position).end
            count += 1
    if count == 0 or position != size:
        raise XetError("The xorb ends in the middle of a chunk.")
    return count


def read_chunks(xorb: Path, first: int, end: int) -> Iterator[bytes]:
    """Yield the unpacked chunks `first` to `end` of a stored xorb, one at a time.

    Raises:
        XetError: where the xorb has fewer chunks or one does not unpack to its stated length.
    """
    size = xorb.stat().st_size
    with xorb.open("rb") as file:
        position = number = 0
        while number < end:
            if position >= size:
                raise XetError(f"The xorb has {number} chunks; the shard names chunk {end - 1}.")
            file.seek(position)
            header = _read_header(file.read(CHUNK_HEADER), position)
            if number >= first:
                yield _unpack(file.read(header.packed), header)
            position, number = header.end, number + 1


def parse_shard(data: bytes) -> tuple[ShardFile, ...]:
    """Return the files that a shard describes.

    Raises:
        XetError: where it is no shard, is cut off, or a file in it lacks its sha256.
    """
    if len(data) < SHARD_HEADER or not data.startswith(SHARD_TAG):
        raise XetError("The body is not a shard.")
    (version,) = struct.unpack_from("<Q", data, 32)
    if version != 2:  # noqa: PLR2004 (the only version in use)
        raise XetError(f"Shard version {version} is not supported; expected 2.")
    files: list[ShardFile] = []
    position = SHARD_HEADER
    while (head := _slice(data, position, ENTRY))[:32] != SECTION_END:
        if len(files) >= MAX_FILES:
            raise XetError(f"A shard may describe at most {MAX_FILES} files.")
        file, position = _parse_file(data, position + ENTRY, head)
        files.append(file)
    return tuple(files)


@dataclass(frozen=True)
class _ChunkHeader:
    packed: int
    raw: int
    kind: int
    end: int


def _read_header(head: bytes, position: int) -> _ChunkHeader:
    if len(head) < CHUNK_HEADER:
        raise XetError("The xorb ends in the middle of a chunk.")
    version, kind = head[0], head[4]
    packed, raw = int.from_bytes(head[1:4], "little"), int.from_bytes(head[5:8], "little")
    if version != 0 or kind not in {RAW, LZ4, GROUPED_LZ4}:
        raise XetError(f"Chunk of version {version} and type {kind} is not supported.")
    if not 0 < raw <= MAX_CHUNK_BYTES or packed > 2 * MAX_CHUNK_BYTES:
        raise XetError(f"A chunk claims {raw} bytes; at most {MAX_CHUNK_BYTES} are allowed.")
    return _ChunkHeader(packed, raw, kind, position + CHUNK_HEADER + packed)


def _unpack(data: bytes, header: _ChunkHeader) -> bytes:
    if header.kind != RAW:
        unpacker = lz4.frame.LZ4FrameDecompressor()
        try:
            data = unpacker.decompress(data, max_length=header.raw + 1)
        except RuntimeError as error:
            raise XetError(f"A chunk does not unpack: {error}") from None
    if len(data) != header.raw:
        raise XetError("A chunk does not unpack to the length it states.")
    return _ungroup(data) if header.kind == GROUPED_LZ4 else data


def _ungroup(data: bytes) -> bytes:
    """Undo the grouping into four planes: all bytes with index % 4 == 0 first, then 1, 2, 3."""
    whole = bytearray(len(data))
    start = 0
    for plane in range(4):
        length = (len(data) - plane + 3) // 4
        whole[plane::4] = data[start : start + length]
        start += length
    return bytes(whole)


def _parse_file(data: bytes, position: int, head: bytes) -> tuple[ShardFile, int]:
    flags, count = struct.unpack_from("<II", head, 32)
    if count > MAX_SEGMENTS:
        raise XetError(f"A file may have at most {MAX_SEGMENTS} segments.")
    segments = []
    for number in range(count):
        entry = _slice(data, position + number * ENTRY, ENTRY)
        _, size, first, end = struct.unpack_from("<IIII", entry, 32)
        if end <= first:
            raise XetError("A segment ends before it begins.")
        segments.append(Segment(_hash_to_hex(entry[:32]), size, first, end))
    position += count * ENTRY * (2 if flags & HAS_VERIFICATION else 1)
    if not flags & HAS_SHA256:
        raise XetError("A file in the shard lacks its sha256.")
    sha256 = _hash_to_hex(_slice(data, position, ENTRY)[:32])
    return ShardFile(sha256, tuple(segments)), position + ENTRY


def _slice(data: bytes, position: int, length: int) -> bytes:
    part = data[position : position + length]
    if len(part) < length:
        raise XetError("The shard is cut off.")
    return part


def _hash_to_hex(raw: bytes) -> str:
    """Print a hash as the protocol does: four little-endian words of 16 digits each."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))
