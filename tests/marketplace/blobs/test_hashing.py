from __future__ import annotations

import hashlib
import shutil
import subprocess

import pytest

from marketplace.blobs.hashing import READ_BYTES, Hasher, hash_bytes, hash_file


def test_it_works(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    found = hash_file(path)
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert found.git_sha1 == hashlib.sha1(b"blob 7\0weights", usedforsecurity=False).hexdigest()
    assert found.size == 7


@pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")
@pytest.mark.parametrize("size", [0, 1, READ_BYTES + 1])
def test_git_agrees(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    done = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True)
    assert hash_file(path).git_sha1 == done.stdout.strip()


def test_pieces_give_what_the_whole_gives():
    hasher = Hasher(size=6)
    for piece in (b"ab", b"", memoryview(b"cdef")):
        hasher.update(piece)
    whole = hash_bytes(b"abcdef")
    assert (hasher.sha256, hasher.git_sha1, hasher.size) == (whole.sha256, whole.git_sha1, 6)


def test_without_a_size_there_is_no_git_hash():
    hasher = Hasher()
    hasher.update(b"abc")
    assert hasher.git_sha1 is None
    assert hasher.size == 3
