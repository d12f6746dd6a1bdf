from __future__ import annotations

import json
from pathlib import Path

import lorahub
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, default_data_collator

import composer
from composer.adapter import LoraAdapter
from composer.base_model import LoadedBase, load_base, parse_source
from composer.errors import (
    ComposerError,
    IncompatibleAdapters,
    InvalidAdapter,
    InvalidExamples,
    SearchError,
)
from composer.lorahub import (
    FactorMerge,
    default_get_loss,
    default_l1_regularization,
    lorahub_inference,
    lorahub_learning,
    make_dataset,
)
from composer.merging import merge_adapters
from tests.composer.tiny import ATTENTION, ROWS, T5_ATTENTION, make_adapter

# What the libraries say about each other while the original runs.
pytestmark = pytest.mark.filterwarnings("ignore")
INPUTS = [row.input for row in ROWS[:5]]
OUTPUTS = [row.output for row in ROWS[:5]]


def save_modules(base: LoadedBase, folder: Path, base_folder: Path, count: int = 3) -> list[str]:
    modules = T5_ATTENTION if base.is_seq2seq else ATTENTION
    names = []
    for i in range(count):
        place = folder / f"module_{i}"
        make_adapter(base, f"module_{i}", seed=i, modules=modules, size=0.15).save(
            place, base.module_table
        )
        config = json.loads((place / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(base_folder)
        (place / "adapter_config.json").write_text(json.dumps(config))
        names.append(str(place))
    return names


@pytest.fixture(scope="module")
def t5_modules(
    seq2seq: LoadedBase, seq2seq_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    return save_modules(seq2seq, tmp_path_factory.mktemp("t5"), seq2seq_folder)


@pytest.fixture(scope="module")
def causal_modules(
    causal: LoadedBase, causal_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    return save_modules(causal, tmp_path_factory.mktemp("llama"), causal_folder)


@pytest.fixture(scope="module")
def original(t5_modules: list[str], seq2seq_folder: Path):
    """The original's model, tokenizer, stored modules and rows."""
    model, tokenizer, cache = lorahub.load_base_model_and_lora_modules(
        t5_modules, str(seq2seq_folder)
    )
    # With a current peft the last module's stored tensors are the model's own, so that every score
    # would overwrite them; copies are what the authors meant.
    cache = {
        name: {key: tensor.clone() for key, tensor in state.items()}
        for name, state in cache.items()
    }
    return model, cache, lorahub.load_dataset(INPUTS, OUTPUTS, tokenizer)


def ours(folder: Path | str, modules: list[str]):
    base = load_base(parse_source(str(folder)), dtype="float32", device="cpu")
    merge = FactorMerge(base, [LoraAdapter.load(Path(name)) for name in modules])
    return base, merge, make_dataset(base, ROWS[:5])


def test_it_works(t5_modules: list[str]) -> None:
    weights, model, tokenizer = lorahub_learning(t5_modules, INPUTS, OUTPUTS, 8, seed=1)
    assert weights.shape == (3,)
    assert np.abs(weights).max() <= 1.5
    assert model.lorahub_run.optimizer_resolved not in ("", "NGOpt")
    assert len(model.lorahub_run.scores) == model.lorahub_run.evaluations == 8
    answers, accuracy = lorahub_inference(INPUTS[:2], model, tokenizer, 2, OUTPUTS[:2])
    assert len(answers) == 2
    assert accuracy is not None
    assert 0 <= accuracy <= 100
    assert composer.lorahub_learning is lorahub_learning


@pytest.mark.parametrize("batch_size", [None, 1, 2, 5, 99])
def test_the_same_weights_score_as_in_the_original(
    original, t5_modules: list[str], seq2seq_folder: Path, batch_size: int | None
) -> None:
    their_model, cache, their_rows = original
    base, merge, rows = ours(seq2seq_folder, t5_modules)
    random = np.random.default_rng(batch_size)
    for weights in random.uniform(-1.5, 1.5, size=(50 if batch_size is None else 6, 3)):
        theirs = lorahub.get_score(
            weights,
            their_model,
            cache,
            their_rows,
            batch_size,
            lorahub.default_get_loss,
            lorahub.default_l1_regularization,
        )
        merge.set_weights(weights)
        score = default_get_loss(rows, base.model, batch_size) + default_l1_regularization(weights)
        assert score == pytest.approx(theirs, rel=1e-4)


def test_the_sum_of_batch_means_is_kept(seq2seq_folder: Path, t5_modules: list[str]) -> None:
    base, merge, rows = ours(seq2seq_folder, t5_modules)
    merge.set_weights([0.5, 0.1, -0.2])
    alone = default_get_loss(rows, base.model, 1)
    together = default_get_loss(rows, base.model, 5)
    assert alone / together == pytest.approx(5, rel=0.2)  # rows differ in length a little


def test_the_same_road_as_the_original(t5_modules: list[str]) -> None:
    """Optimiser, seed and start are the original's: its first steps are the same."""
    seen: list[list[float]] = []

    def constant(_rows, _model, _batch_size):
        return 1.0

    def note(weights) -> float:
        seen[-1].append([float(w) for w in weights])
        return float(np.abs(np.asarray(weights) - 0.5).sum())

    for learn in (lorahub.lorahub_learning, lorahub_learning):
        seen.append([])
        weights, *_ = learn(
            t5_modules, INPUTS, OUTPUTS, 6, get_loss=constant, get_regular=note, seed=7
        )
        seen[-1].append(list(weights))
    assert np.allclose(seen[0], seen[1], atol=1e-6)


def test_a_loss_of_ones_own_is_honoured(t5_modules: list[str]) -> None:
    calls = []

    def get_loss(dataset, model, batch_size) -> float:
        batch = default_data_collator([dataset[i] for i in range(len(dataset))])
        calls.append((len(dataset), list(dataset["input"]), batch_size))
        assert len(list(dataset)) == 5
        with torch.no_grad():
            return float(model(**batch).loss)

    _, model, _ = lorahub_learning(
        t5_modules, INPUTS, OUTPUTS, 4, batch_size=2, get_loss=get_loss, get_regular=lambda w: 7.0
    )
    assert calls == [(5, INPUTS, 2)] * 4
    assert all(score > 7 for score in model.lorahub_run.scores)


@pytest.mark.parametrize("name", ["causal", "seq2seq"])
def test_the_model_returned_is_the_merged_one(name: str, request: pytest.FixtureRequest) -> None:
    base: LoadedBase = request.getfixturevalue(name)
    modules: list[str] = request.getfixturevalue(
        "causal_modules" if name == "causal" else "t5_modules"
    )
    weights, model, _ = lorahub_learning(modules, INPUTS, OUTPUTS, 6)
    adapters = [LoraAdapter.load(Path(module)) for module in modules]
    merged = merge_adapters(adapters, list(weights), "factor").adapter
    for path, layer in merged.layers.items():
        expected = base.model.get_submodule(path).weight + layer.delta()
        assert torch.allclose(model.get_submodule(path).weight, expected, atol=1e-5)


def test_a_causal_model_learns_and_answers(causal_modules: list[str], causal_folder: Path) -> None:
    weights, model, tokenizer = lorahub_learning(causal_modules, INPUTS, OUTPUTS, 12)
    scores = model.lorahub_run.scores
    assert min(scores) <= scores[0]  # the first is the base alone
    rows = make_dataset(load_base(parse_source(str(causal_folder)), dtype="float32"), ROWS[:5])
    again = default_get_loss(rows, model, None) + default_l1_regularization(weights)
    assert again == pytest.approx(min(scores), rel=1e-4)
    answers, accuracy = lorahub_inference(INPUTS[:3], model, tokenizer, 2)
    assert len(answers) == 3
    assert accuracy is None
    assert not any(answer.startswith("Say the colour") for answer in answers)


def test_a_causal_loss_counts_answers_alone(causal: LoadedBase) -> None:
    """Against the plain model, row by row, without padding."""
    rows = make_dataset(causal, ROWS[:5])
    loss = default_get_loss(rows, causal.model, 1) / 1
    expected = []
    for row in rows:
        length = sum(row["attention_mask"])
        ids = torch.tensor([row["input_ids"][:length]])
        labels = torch.tensor([row["labels"][:length]])
        with torch.no_grad():
            expected.append(float(causal.model(input_ids=ids, labels=labels).loss))
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_names_of_folders_load_for_answers(causal_folder: Path) -> None:
    answers, accuracy = lorahub_inference(
        INPUTS[:1], str(causal_folder), str(causal_folder), 1, OUTPUTS[:1]
    )
    model = AutoModelForCausalLM.from_pretrained(causal_folder)
    tokenizer = AutoTokenizer.from_pretrained(causal_folder)
    assert answers == lorahub_inference(INPUTS[:1], model, tokenizer, 1)[0]
    assert accuracy == 0


def test_all_reasons_are_told(t5_modules: list[str], seq2seq: LoadedBase, tmp_path: Path) -> None:
    odd = make_adapter(seq2seq, "odd", modules=T5_ATTENTION[:2], rank=2)
    odd.save(tmp_path / "odd", seq2seq.module_table)
    with pytest.raises(IncompatibleAdapters) as caught:
        lorahub_learning([t5_modules[0], str(tmp_path / "odd")], INPUTS, OUTPUTS, 4)
    assert len(caught.value.reasons) >= 2
    (tmp_path / "empty").mkdir()
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InvalidAdapter) as broken:
        lorahub_learning([str(tmp_path / n) for n in ("empty", "hollow")], INPUTS, OUTPUTS, 4)
    assert "empty" in str(broken.value)
    assert "hollow" in str(broken.value)


def test_modules_that_cannot_be_found_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidAdapter) as caught:
        lorahub_learning(["nobody/one", "nobody/two"], INPUTS, OUTPUTS, 4)
    assert {"nobody/one", "nobody/two"} == {problem.file for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("modules", "outputs", "budget", "kind"),
    [
        ([], OUTPUTS, 4, IncompatibleAdapters),
        (["x"], OUTPUTS[:2], 4, InvalidExamples),
        (["x"], OUTPUTS, 0, SearchError),
    ],
)
def test_calls_that_cannot_work_are_refused(
    modules: list[str], outputs: list[str], budget: int, kind: type[ComposerError]
) -> None:
    with pytest.raises(kind):
        lorahub_learning(modules, INPUTS, outputs, budget)


def test_a_module_in_the_old_format_is_read(
    t5_modules: list[str], seq2seq_folder: Path, tmp_path: Path
) -> None:
    """The authors published `adapter_model.bin`."""
    from safetensors.torch import load_file

    source = Path(t5_modules[0])
    old = tmp_path / "old"
    old.mkdir()
    (old / "adapter_config.json").write_text((source / "adapter_config.json").read_text())
    torch.save(load_file(source / "adapter_model.safetensors"), old / "adapter_model.bin")
    first, *_ = lorahub_learning([t5_modules[0]], INPUTS, OUTPUTS, 3)
    second, *_ = lorahub_learning([str(old)], INPUTS, OUTPUTS, 3)
    assert np.allclose(first, second)


def test_modules_of_another_base_are_refused(
    causal_modules: list[str], seq2seq_folder: Path
) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        lorahub_learning(causal_modules, INPUTS, OUTPUTS, 4, str(seq2seq_folder))
    assert len(caught.value.problems) == len(causal_modules)
    assert "q_proj" in str(caught.value)
