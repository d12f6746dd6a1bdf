"""Tiny base models, saved once a session; torch is imported only by the tests that ask for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from composer.base_model import LoadedBase


@pytest.fixture(scope="session")
def _one_thread() -> None:
    """Two threads on a model this small only wait for each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def causal_folder(_one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.composer import tiny

    return tiny.save_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="session")
def seq2seq_folder(_one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.composer import tiny

    return tiny.save_seq2seq(tmp_path_factory.mktemp("seq2seq"))


@pytest.fixture(scope="session")
def causal(causal_folder: Path) -> LoadedBase:
    from tests.composer import tiny

    return tiny.load_tiny(causal_folder)


@pytest.fixture(scope="session")
def seq2seq(seq2seq_folder: Path) -> LoadedBase:
    from tests.composer import tiny

    return tiny.load_tiny(seq2seq_folder)
