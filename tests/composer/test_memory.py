from __future__ import annotations

import pytest
import torch

from composer.errors import InsufficientMemory
from composer.memory import fits_into_memory


def test_it_works() -> None:
    """Far more than any machine has: what torch really raises on a processor."""
    with pytest.raises(InsufficientMemory, match="too large"), fits_into_memory("too large"):
        torch.empty(1 << 50)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
def test_every_kind_is_one(error: Exception) -> None:
    with pytest.raises(InsufficientMemory, match="too large"), fits_into_memory("too large"):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), fits_into_memory("too large"):
        raise RuntimeError("shapes")
