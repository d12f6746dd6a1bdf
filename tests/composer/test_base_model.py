from __future__ import annotations

import errno
import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from composer import base_model, model_traits
from composer.base_model import (
    BaseModelCache,
    BaseModelSource,
    LoadedBase,
    compute_module_table,
    default_cache_dir,
    load_base,
    local_folder,
    parse_source,
    resolve_device,
    resolve_dtype,
)
from composer.errors import BaseModelError, InsufficientMemory, StorageFull
from tests.composer.tiny import ATTENTION


def source_of(folder: Path) -> BaseModelSource:
    return BaseModelSource("folder", str(folder))


def test_it_works(causal: LoadedBase) -> None:
    assert causal.architecture == "LlamaForCausalLM"
    assert causal.module_table[ATTENTION[0]] == (32, 32)
    assert causal.module_table["model.layers.0.mlp.up_proj"] == (32, 64)
    assert causal.head_is_linear
    assert not causal.is_seq2seq
    assert causal.max_length == 256
    assert causal.n_bytes == 4 * sum(item.numel() for item in causal.model.parameters())


def test_a_seq2seq_model_is_recognised(seq2seq: LoadedBase) -> None:
    assert seq2seq.is_seq2seq
    assert "encoder.block.0.layer.0.SelfAttention.q" in seq2seq.module_table


@pytest.mark.parametrize("name", ["causal", "seq2seq"])
def test_the_module_table_needs_no_weights(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base: LoadedBase = request.getfixturevalue(name)
    folder: Path = request.getfixturevalue(f"{name}_folder")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert compute_module_table(source_of(tmp_path)) == base.module_table


def test_a_model_that_caps_its_logits_takes_the_long_way(causal_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(causal_folder)
    forward = model.forward

    def capped(**inputs):
        output = forward(**inputs)
        output.logits = torch.tanh(output.logits)
        return output

    model.forward = capped
    assert not model_traits.try_out(model)[0]


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"no config\.json"):
        load_base(source_of(tmp_path))


def test_an_unknown_architecture_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "perpetuum"}))
    with pytest.raises(BaseModelError, match="cannot be used") as caught:
        load_base(source_of(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_model_that_brings_its_own_code_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    config = {"model_type": "x", "auto_map": {"AutoConfig": "evil.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseModelError):
        load_base(source_of(tmp_path))
    assert "evil" not in sys.modules


def test_pickled_weights_are_refused(causal_folder: Path, tmp_path: Path) -> None:
    for path in causal_folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(BaseModelError):
        load_base(source_of(tmp_path))


def test_a_tokenizer_without_an_end_is_refused(causal_folder: Path, tmp_path: Path) -> None:
    for path in causal_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings.pop("eos_token")
    path.write_text(json.dumps(settings))
    with pytest.raises(BaseModelError, match="no end token"):
        load_base(source_of(tmp_path))


def test_a_hub_that_cannot_be_reached_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = BaseModelSource("hub", "nobody/nothing")
    with pytest.raises(BaseModelError, match="nobody/nothing cannot be read"):
        load_base(source, cache_dir=tmp_path)
    with pytest.raises(BaseModelError, match="nobody/nothing cannot be read"):
        compute_module_table(source, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left"), StorageFull),
        (MemoryError(), InsufficientMemory),
        (OSError(errno.EACCES, "Permission denied"), BaseModelError),
    ],
)
def test_what_the_machine_lacks_is_named(
    error: Exception,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    causal_folder: Path,
) -> None:
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(base_model, "local_folder", fail)
    with pytest.raises(kind, match=str(causal_folder)):
        load_base(source_of(causal_folder))


def test_what_a_user_typed_becomes_a_source(tmp_path: Path) -> None:
    assert parse_source(str(tmp_path)) == BaseModelSource("folder", str(tmp_path))
    assert parse_source("json") == BaseModelSource("gguf_package", "json")
    assert parse_source("owner/name@v1") == BaseModelSource("hub", "owner/name", revision="v1")
    assert BaseModelSource("hub", "owner/name").title == "owner/name"
    assert BaseModelSource("folder", "/x", name="owner/name").title == "owner/name"


def test_a_package_without_gguf_is_refused() -> None:
    with pytest.raises(BaseModelError, match="not installed"):
        local_folder(BaseModelSource("gguf_package", "no_such_package_here"))
    with pytest.raises(BaseModelError, match="not installed"):
        local_folder(BaseModelSource("gguf_package", "../etc"))
    with pytest.raises(BaseModelError, match="no GGUF file"):
        local_folder(BaseModelSource("gguf_package", "json"))
    with pytest.raises(BaseModelError, match="has no file"):
        local_folder(BaseModelSource("gguf_package", "json", file="../os.py"))


def test_devices_and_types() -> None:
    cpu = torch.device("cpu")
    assert resolve_device("cpu") == cpu
    assert resolve_dtype("float32", cpu) == torch.float32
    assert resolve_dtype("bfloat16", cpu) == torch.bfloat16
    assert resolve_dtype("auto", torch.device("meta")) == torch.float32
    with pytest.raises(BaseModelError, match="no device"):
        resolve_device("abacus")


@pytest.mark.parametrize("native", [True, False])
def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    chosen = resolve_dtype("auto", torch.device("cpu"))
    assert chosen == (torch.bfloat16 if native else torch.float32)


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPOSER_CACHE_DIR", str(tmp_path))
    assert default_cache_dir() == tmp_path


class TestBaseModelCache:
    def test_it_works(self, causal_folder: Path) -> None:
        cache = BaseModelCache()
        first = cache.load(source_of(causal_folder), dtype="float32", device="cpu")
        assert cache.load(source_of(causal_folder), dtype="float32", device="cpu") is first
        assert len(cache) == 1
        assert cache.n_bytes == first.n_bytes

    def test_the_oldest_base_leaves_when_it_is_full(
        self, causal_folder: Path, seq2seq_folder: Path
    ) -> None:
        cache = BaseModelCache(max_bytes=1)
        cache.load(source_of(causal_folder), dtype="float32", device="cpu")
        kept = cache.load(source_of(seq2seq_folder), dtype="float32", device="cpu")
        assert len(cache) == 1
        assert cache.n_bytes == kept.n_bytes

    def test_two_threads_load_once(self, causal_folder: Path) -> None:
        cache = BaseModelCache()
        loaded: list[LoadedBase] = []

        def load() -> None:
            loaded.append(cache.load(source_of(causal_folder), dtype="float32", device="cpu"))

        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert loaded[0] is loaded[1]
