"""LoraHub's own two functions, `lorahub_learning` and `lorahub_inference`, faster and for any base.

Names, arguments and meaning are those of the authors' package (arXiv 2307.13269), so that a script
moves over by changing its import; docs/lorahub.md lists what differs. The formula is `factor` in
float32. Selection, held-out rows and the other formulas are left to `composer.compose`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from composer.adapter import CONFIG_NAME, WEIGHTS_NAME, LoraAdapter
from composer.base_model import LoadedBase, load_base, parse_source
from composer.compatibility import check_compatibility
from composer.errors import (
    IncompatibleAdapters,
    InvalidAdapter,
    InvalidExamples,
    Problem,
    SearchError,
)
from composer.examples import Example
from composer.inspection import AdapterSummary, inspect_adapter
from composer.pickle_reader import convert_pickle
from composer.scoring import encode_examples
from composer.scoring.encoding import pad_id
from composer.search import RunningOptimizer, SearchSettings

PICKLE_NAME = "adapter_model.bin"
WEIGHT_BOUND = 1.5
MAX_TOKENS = 2048
MAX_NEW_TOKENS = 256

GetLoss = Callable[[Any, PreTrainedModel, "int | None"], float]
GetRegular = Callable[[Any], float]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LorahubRun:
    """What a search did; `lorahub_learning` leaves it on its model as `model.lorahub_run`."""

    optimizer_resolved: str  # what NGOpt chose
    evaluations: int
    scores: tuple[float, ...]  # of every evaluation, penalty included


class ExampleDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """The rows that `get_loss` receives: `len(rows)`, `rows[0]`, `rows["input"]`.

    Columns: `input`, `output`, and `input_ids`, `attention_mask`, `labels` (-100 where nothing is
    predicted), padded to one length each.
    """

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["input"])

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: column[key] for name, column in self.columns.items()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))


def default_get_loss(example_dataset: Any, model: PreTrainedModel, batch_size: int | None) -> float:
    """Return the sum of the batches' mean losses, divided by the number of examples.

    This is the original's quirk, kept: a batch's loss is a mean over its tokens, so the same five
    examples give a loss five times smaller at batch size 5 (or None) than at 1, and the penalty
    weighs five times more. Every other mode of the composer takes the mean over examples.
    """
    n_examples = len(example_dataset)
    step = n_examples if batch_size is None else min(n_examples, batch_size)
    total = 0.0
    for start in range(0, n_examples, step):
        rows = [example_dataset[i] for i in range(start, min(start + step, n_examples))]
        batch = {
            name: torch.as_tensor([row[name] for row in rows], device=model.device)
            for name in ("input_ids", "attention_mask", "labels")
        }
        with torch.inference_mode():
            total += float(model(**batch, use_cache=False).loss)
    return total / n_examples


def default_l1_regularization(weights: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Return 0.05 times the mean of the absolute weights."""
    return 0.05 * float(np.abs(np.asarray(weights)).mean())


def lorahub_learning(  # noqa: PLR0913, PLR0917 - the original's signature
    lora_module_list: Sequence[str],
    example_inputs: Sequence[str],
    example_outputs: Sequence[str],
    max_inference_step: int,
    model_name_or_path: str | None = None,
    batch_size: int | None = None,
    get_loss: GetLoss = default_get_loss,
    get_regular: GetRegular = default_l1_regularization,
    seed: int = 42,
) -> tuple[np.ndarray[Any, Any], PreTrainedModel, PreTrainedTokenizerBase]:
    """Learn one weight a module without gradients and merge them all into the base.

    Args:
        lora_module_list: folders, or `owner/name` of a hub (`HF_ENDPOINT`: ours or another).
        example_inputs: the rows' inputs.
        example_outputs: the rows' outputs, as many.
        max_inference_step: the budget of evaluations.
        model_name_or_path: the base, seq2seq or causal; by default what the first module names.
        batch_size: rows a forward pass; None takes all at once.
        get_loss: called with (dataset, model, batch_size); the dataset is an `ExampleDataset`.
        get_regular: called with the weights; its value is added to the loss.
        seed: of the optimiser.

    Returns:
        Weights (modules,), the merged model (float32; `model.lorahub_run` says which optimiser
        NGOpt resolved to and every score), and the tokenizer.

    Raises:
        ComposerError: naming every reason why these modules or examples cannot be used.
    """
    if max_inference_step < 1:
        raise SearchError(f"max_inference_step must be at least 1, not {max_inference_step}.")
    names = list(lora_module_list)
    if not names:
        raise IncompatibleAdapters("No LoRA modules are given. Give at least one.")
    examples = _pair_examples(example_inputs, example_outputs)
    with ExitStack() as scratch:
        folders = _find_modules(names, scratch)
        summaries = _inspect_modules(names, folders, model_name_or_path)
        base_name = model_name_or_path or summaries[0].base_model_name_or_path
        if not base_name:
            raise IncompatibleAdapters(f"{names[0]} names no base. Give model_name_or_path.")
        base = load_base(parse_source(base_name), dtype="float32")
        adapters = [
            LoraAdapter.load(folder, name=name, summary=summary)
            for name, folder, summary in zip(names, folders, summaries, strict=True)
        ]
        check_fit(base, adapters)
        merge = FactorMerge(base, adapters)
        del adapters
    dataset = make_dataset(base, examples)

    def score(weights: np.ndarray[Any, Any]) -> float:
        merge.set_weights(weights)
        return float(get_loss(dataset, base.model, batch_size) + get_regular(weights))

    weights, run = _minimise(score, len(names), max_inference_step, seed)
    merge.set_weights(weights)
    base.model.lorahub_run = run  # type: ignore[assignment]
    return weights, base.model, base.tokenizer


def lorahub_inference(
    example_inputs: Sequence[str],
    model_or_name_path: PreTrainedModel | str,
    tokenizer_or_tokenizer_path: PreTrainedTokenizerBase | str,
    batch_size: int,
    example_outputs: Sequence[str] | None = None,
) -> tuple[list[str], float | None]:
    """Answer inputs greedily; with outputs, say how many percent match.

    Answers match when they are equal without case, full stops and outer spaces.

    Raises:
        InvalidExamples: if inputs and outputs differ in number.
        BaseModelError: if model or tokenizer cannot be loaded.
    """
    if example_outputs is not None:
        _pair_examples(example_inputs, example_outputs)
    model, tokenizer = _load_for_inference(model_or_name_path, tokenizer_or_tokenizer_path)
    predictions: list[str] = []
    for start in range(0, len(example_inputs), max(1, batch_size)):
        texts = list(example_inputs[start : start + max(1, batch_size)])
        predictions += _answer(model, tokenizer, texts)
    if example_outputs is None:
        return predictions, None
    pairs = zip(predictions, example_outputs, strict=True)
    correct = sum(_plain(answer) == _plain(wanted) for answer, wanted in pairs)
    return predictions, correct / max(1, len(predictions)) * 100


class FactorMerge:
    """LoraHub's formula folded into the base: `W + s (sum w_i B_i) (sum w_i A_i)` for any weights.

    All factors of a module are one row of a matrix `M`, so a weight vector costs one product
    `w @ M` into a flat buffer that the layers' factors view, and one small product a layer.
    """

    def __init__(self, base: LoadedBase, adapters: Sequence[LoraAdapter]) -> None:
        first = adapters[0]
        sizes = [(path, layer.a.shape, layer.b.shape) for path, layer in first.layers.items()]
        self._stacked = torch.empty(
            len(adapters), sum(a.numel() + b.numel() for _, a, b in sizes), device=base.device
        )  # (modules, all factors)
        for row, adapter in zip(self._stacked, adapters, strict=True):
            parts = [t for path, _, _ in sizes for t in _factors(adapter, path)]
            torch.cat([part.to(base.device, torch.float32).flatten() for part in parts], out=row)
        self._flat = torch.zeros_like(self._stacked[0])
        self._layers = []
        start = 0
        for path, a_shape, b_shape in sizes:
            middle = start + a_shape.numel()
            end = middle + b_shape.numel()
            a = self._flat[start:middle].view(a_shape)  # (rank, in_features)
            b = self._flat[middle:end].view(b_shape)  # (out_features, rank)
            module = base.model.get_submodule(path)
            pair = (a.T, b.T) if isinstance(module, Conv1D) else (b, a)
            weight: torch.Tensor = module.weight.data  # type: ignore[assignment]
            scaling = first.layers[path].scaling
            self._layers.append((weight, weight.clone(), *pair, scaling))
            start = end

    def set_weights(self, weights: Sequence[float] | np.ndarray[Any, Any]) -> None:
        """Make the base the merged model of these weights."""
        w = torch.as_tensor(np.asarray(weights), dtype=torch.float32, device=self._flat.device)
        with torch.no_grad():
            torch.mv(self._stacked.T, w, out=self._flat)
            for weight, original, left, right, scaling in self._layers:
                torch.addmm(original, left, right, alpha=scaling, out=weight)


def check_fit(base: LoadedBase, adapters: Sequence[LoraAdapter]) -> None:
    """Refuse modules that change layers which the base has not, or has in another size.

    Raises:
        InvalidAdapter: naming the first such layer of every module.
    """
    problems = []
    for adapter in adapters:
        for path, layer in adapter.layers.items():
            if base.module_table.get(path) != (layer.a.shape[1], layer.b.shape[0]):
                message = f"changes {path}, which {base.source.title} has not, or in another size."
                fix = "Name the base that the module was made for."
                problems.append(Problem(adapter.name, path, message, fix))
                break
    if problems:
        raise InvalidAdapter(problems)


def make_dataset(base: LoadedBase, examples: Sequence[Example]) -> ExampleDataset:
    """Tokenise the rows once, padded to one length.

    A seq2seq model reads the input and predicts the output; a causal one reads both and predicts
    the output's tokens and the end.
    """
    columns = (
        _seq2seq_columns(base, examples) if base.is_seq2seq else _causal_columns(base, examples)
    )
    return ExampleDataset(
        {
            "input": [row.input for row in examples],
            "output": [row.output for row in examples],
            **columns,
        }
    )


def _seq2seq_columns(base: LoadedBase, examples: Sequence[Example]) -> dict[str, list[Any]]:
    options = {"max_length": MAX_TOKENS, "padding": True, "truncation": True}
    read = base.tokenizer([row.input for row in examples], **options)
    wanted = base.tokenizer([row.output for row in examples], **options)
    labels = [
        [token if token != base.tokenizer.pad_token_id else -100 for token in row]
        for row in wanted["input_ids"]
    ]
    return {
        "input_ids": read["input_ids"],
        "attention_mask": read["attention_mask"],
        "labels": labels,
    }


def _causal_columns(base: LoadedBase, examples: Sequence[Example]) -> dict[str, list[Any]]:
    encoded = encode_examples(base, examples)
    width = max(row.n_tokens for row in encoded)
    columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in encoded:
        padding = width - row.n_tokens
        columns["input_ids"].append([*row.prompt, *row.answer, *[pad_id(base)] * padding])
        columns["attention_mask"].append([1] * row.n_tokens + [0] * padding)
        columns["labels"].append([-100] * len(row.prompt) + [*row.answer] + [-100] * padding)
    return columns


def _minimise(
    score: Callable[[np.ndarray[Any, Any]], float], n_modules: int, budget: int, seed: int
) -> tuple[np.ndarray[Any, Any], LorahubRun]:
    """Search with NGOpt from zero in [-1.5, 1.5]; the answer is its recommendation."""
    # The original seeds numpy's global generator, from which nevergrad draws its own seed.
    drawn = int(np.random.RandomState(seed).randint(2**32, dtype=np.uint32))
    scores = []
    settings = SearchSettings("NGOpt", budget, drawn, weight_bound=WEIGHT_BOUND)
    with RunningOptimizer(settings, np.zeros(n_modules), sigma="sixth") as optimizer:
        for _ in range(budget):
            candidate = optimizer.ask()
            scores.append(score(np.asarray(candidate.value)))
            optimizer.tell(candidate, scores[-1])
        weights = optimizer.recommend()
        resolved = optimizer.resolved
    logger.info("NGOpt resolved to %s", resolved)
    return weights, LorahubRun(resolved, budget, tuple(scores))


def _pair_examples(inputs: Sequence[str], outputs: Sequence[str]) -> list[Example]:
    if len(inputs) != len(outputs) or not inputs:
        message = f"{len(inputs)} inputs and {len(outputs)} outputs are given."
        raise InvalidExamples(Problem("", "examples", message, "Give one output for every input."))
    return [Example(*pair) for pair in zip(inputs, outputs, strict=True)]


def _find_modules(names: Sequence[str], scratch: ExitStack) -> list[Path]:
    """Return a folder with safetensors for every module; fetch and convert where needed."""
    problems: list[Problem] = []
    folders = []
    for name in names:
        folder = Path(name) if Path(name).is_dir() else _fetch_module(name, problems)
        if (
            folder is not None
            and (folder / PICKLE_NAME).is_file()
            and not (folder / WEIGHTS_NAME).is_file()
        ):
            converted = Path(scratch.enter_context(tempfile.TemporaryDirectory()))
            if (folder / CONFIG_NAME).is_file():
                shutil.copy(folder / CONFIG_NAME, converted / CONFIG_NAME)
            convert_pickle(folder / PICKLE_NAME, converted / WEIGHTS_NAME)
            folder = converted
        if folder is not None:
            folders.append(folder)
    if problems:
        raise InvalidAdapter(problems)
    return folders


def _fetch_module(name: str, problems: list[Problem]) -> Path | None:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - folders do not need it

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=[CONFIG_NAME, WEIGHTS_NAME, PICKLE_NAME],
                endpoint=os.environ.get("HF_ENDPOINT") or None,
            )
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        message = f"is neither a folder nor to be had from the hub: {reason}"
        problems.append(Problem(name, "", message, "Check the name and HF_ENDPOINT."))
        return None


def _inspect_modules(
    names: Sequence[str], folders: Sequence[Path], base_name: str | None
) -> list[AdapterSummary]:
    """Read what every module is; refuse broken ones, then unequal ones, with all reasons.

    A base that the caller names counts for all of them, as in the original.
    """
    problems: list[Problem] = []
    summaries = []
    for name, folder in zip(names, folders, strict=True):
        try:
            summary = inspect_adapter(folder, None)
            if base_name is not None:
                summary = replace(summary, base_model_name_or_path=base_name)
            summaries.append(summary)
        except InvalidAdapter as error:
            problems += [
                Problem(f"{name}/{item.file}", item.field, item.message, item.fix)
                for item in error.problems
            ]
    if problems:
        raise InvalidAdapter(problems)
    check_compatibility(dict(zip(names, summaries, strict=True))).require("factor")
    return summaries


def _factors(adapter: LoraAdapter, path: str) -> tuple[torch.Tensor, torch.Tensor]:
    layer = adapter.layers[path]
    return layer.a, layer.b


def _load_for_inference(
    model: PreTrainedModel | str, tokenizer: PreTrainedTokenizerBase | str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if isinstance(model, str):
        model = load_base(parse_source(model), dtype="float32").model
    if isinstance(tokenizer, str):
        from transformers import AutoTokenizer  # noqa: PLC0415 - only where a name is given

        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tokenizer)
        tokenizer = loaded
    return model, tokenizer


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> list[str]:
    is_seq2seq = bool(model.config.is_encoder_decoder)
    batch = tokenizer(
        texts,
        return_tensors="pt",
        padding=True,
        padding_side="right" if is_seq2seq else "left",
        max_length=MAX_TOKENS,
        truncation=True,
    ).to(model.device)
    with torch.inference_mode():
        output = model.generate(  # type: ignore[operator]
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    start = 0 if is_seq2seq else batch["input_ids"].shape[1]
    answers: list[str] = tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)
    return answers


def _plain(text: str) -> str:
    return text.strip().lower().replace(".", "")
