"""Memory that runs out is told by three kinds of error; here they become one with a sentence.

torch raises an error of its own on a GPU, but a plain RuntimeError where a processor's memory ends.
What to do then (halve a batch, give up) is left to the caller.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from composer.errors import InsufficientMemory

_ALLOCATOR_SAYS = "can't allocate memory"


@contextlib.contextmanager
def fits_into_memory(otherwise: str) -> Iterator[None]:
    """Turn the errors of a full memory inside the block into one.

    Raises:
        InsufficientMemory: with the text `otherwise`.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise InsufficientMemory(otherwise) from error
    except RuntimeError as error:
        if _ALLOCATOR_SAYS not in str(error):
            raise
        raise InsufficientMemory(otherwise) from error
