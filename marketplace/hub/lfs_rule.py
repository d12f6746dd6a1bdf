"""Which files count as large: the clients upload, name and check these by their sha256.

One rule for both directions, so that what a client is told before an upload is what it reads
afterwards. The git id of a large file is that of the pointer text git would keep in its place.
"""

from __future__ import annotations

import hashlib

WEIGHTS_SUFFIXES = (".safetensors", ".bin")
LARGE_BYTES = 10 * 1024 * 1024


def is_lfs(path: str, size: int) -> bool:
    """Tell whether the file counts as large; an empty one never does, for clients send it plain."""
    return size > 0 and (size > LARGE_BYTES or path.endswith(WEIGHTS_SUFFIXES))


def pointer_text(sha256: str, size: int) -> bytes:
    """Return the text that stands for the content in git."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def pointer_oid(sha256: str, size: int) -> str:
    """Return git's id of the pointer text."""
    text = pointer_text(sha256, size)
    digest = hashlib.sha1(b"blob %d\0" % len(text), usedforsecurity=False)
    digest.update(text)
    return digest.hexdigest()
