from __future__ import annotations

import json
from pathlib import Path

import pytest

from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase
from composer.errors import InvalidAdapter
from composer.inspection import inspect_adapter
from tests.composer.tiny import ATTENTION, BASE_NAME, make_adapter, max_difference


def test_it_works(causal: LoadedBase, tmp_path: Path) -> None:
    adapter = make_adapter(causal)
    adapter.save(tmp_path / "a", causal.module_table)
    loaded = LoraAdapter.load(tmp_path / "a", causal.module_table)
    assert loaded.name == "a"
    assert loaded.base_name == BASE_NAME
    assert max_difference(adapter, loaded) == 0


def test_target_modules_are_named_by_their_endings(causal: LoadedBase) -> None:
    config = make_adapter(causal).config(causal.module_table)
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert config["r"] == 4
    assert config["lora_alpha"] == 8
    assert config["task_type"] == "CAUSAL_LM"
    assert json.loads(json.dumps(config)) == config


def test_single_layers_are_named_in_full(causal: LoadedBase) -> None:
    config = make_adapter(causal, modules=ATTENTION[:1]).config(causal.module_table)
    assert config["target_modules"] == [ATTENTION[0]]


def test_ranks_that_differ_by_ending_make_a_short_pattern(causal: LoadedBase) -> None:
    ranks = {path: 2 for path in ATTENTION if path.endswith("v_proj")}
    config = make_adapter(causal, ranks=ranks).config(causal.module_table)
    patterns = {config["r"]: config["rank_pattern"]}
    assert patterns in ({4: {"v_proj": 2}}, {2: {"q_proj": 4}})


def test_mixed_ranks_and_alphas_survive(causal: LoadedBase, tmp_path: Path) -> None:
    adapter = make_adapter(causal, ranks={ATTENTION[0]: 2, ATTENTION[3]: 3}, scaling=0.7)
    adapter.save(tmp_path / "a", causal.module_table)
    loaded = LoraAdapter.load(tmp_path / "a", causal.module_table)
    assert max_difference(adapter, loaded) < 1e-6
    assert loaded.layers[ATTENTION[0]].rank == 2


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidAdapter):
        LoraAdapter.load(tmp_path)


def test_a_file_that_broke_after_inspection_is_refused(causal: LoadedBase, tmp_path: Path) -> None:
    make_adapter(causal).save(tmp_path / "a", causal.module_table)
    summary = inspect_adapter(tmp_path / "a", causal.module_table)
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"gone")
    with pytest.raises(InvalidAdapter, match="cannot be read"):
        LoraAdapter.load(tmp_path / "a", summary=summary)
