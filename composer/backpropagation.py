"""Losses of rows through the frozen base with gradients for whatever is hooked into its layers.

`composer.scoring` only ever runs forward; the two extras that use gradients, `composer.quick_lora`
and `composer.gradient`, share this module. What is trained and for how long is left to them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from composer.base_model import LoadedBase
from composer.errors import BaseModelError
from composer.memory import fits_into_memory
from composer.scoring import EncodedExample
from composer.scoring.encoding import count_shared, pad_id, pad_sequences

# What a hooked layer adds: (rows, tokens, in_features) -> (rows, tokens, out_features).
Update = Callable[[torch.Tensor], torch.Tensor]


@contextlib.contextmanager
def hooked(base: LoadedBase, updates: Mapping[str, Update]) -> Iterator[None]:
    """Add updates to the outputs of the base's layers inside the block.

    Raises:
        BaseModelError: naming a layer that the base does not have.
        InsufficientMemory: if a step does not fit into memory.
    """
    modules = dict(base.model.named_modules())
    handles = []
    message = "Training does not fit into memory. Give shorter or fewer rows, or leave it out."
    try:
        for path, update in updates.items():
            if path not in modules:
                lacking = f"The base model {base.source.title} has no layer {path}."
                raise BaseModelError(lacking)
            handles.append(modules[path].register_forward_hook(_hook(update)))
        with fits_into_memory(message):
            yield
    finally:
        for handle in handles:
            handle.remove()


def mean_loss(base: LoadedBase, rows: Sequence[EncodedExample]) -> torch.Tensor:
    """Return the mean over rows of the mean loss per answer token, differentiable.

    The same figure as `composer.scoring.Scorer` gives; rows that begin alike share a pass over
    their beginning, gradients included.
    """
    with torch.enable_grad():
        logits, tokens, row = _seq2seq(base, rows) if base.is_seq2seq else _causal(base, rows)
        per_token = functional.cross_entropy(logits.float(), tokens, reduction="none")
        counts = torch.bincount(row, minlength=len(rows))
        return (per_token / counts[row]).sum() / len(rows)


def _hook(
    update: Update,
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def add(
        module: nn.Module,
        inputs: tuple[torch.Tensor, ...],
        output: torch.Tensor,
    ) -> torch.Tensor:
        return output + update(inputs[0]).to(output.dtype)

    return add


# Logits at the answer positions, (positions, vocabulary), the tokens wanted there and their rows.
_Answers = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _causal(base: LoadedBase, rows: Sequence[EncodedExample]) -> _Answers:
    shared = count_shared([item.prompt for item in rows])
    cache = None
    if shared:
        ids = torch.tensor([list(rows[0].prompt[:shared])], device=base.device)
        cache = base.model.base_model(input_ids=ids, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(rows))
    # Right padding needs no mask: no answer position looks at what follows it.
    width = max(item.n_tokens for item in rows) - 1 - shared
    ids = torch.full((len(rows), width), pad_id(base))
    labels = torch.full((len(rows), width), -1)
    for i, item in enumerate(rows):
        tokens = (*item.prompt, *item.answer)[shared:-1]
        ids[i, : len(tokens)] = torch.tensor(tokens)
        first = len(item.prompt) - 1 - shared
        labels[i, first : first + len(item.answer)] = torch.tensor(item.answer)
    labels = labels.to(base.device)
    row, column = (labels >= 0).nonzero(as_tuple=True)
    inputs = {
        "input_ids": ids.to(base.device),
        "past_key_values": cache,
        "use_cache": cache is not None,
    }
    if base.head_is_linear:
        hidden = base.model.base_model(**inputs).last_hidden_state
        logits = base.model.get_output_embeddings()(hidden[row, column])
    else:
        logits = base.model(**inputs).logits[row, column]
    return logits, labels[row, column], row


def _seq2seq(base: LoadedBase, rows: Sequence[EncodedExample]) -> _Answers:
    ids, mask = pad_sequences([item.prompt for item in rows], base, left=False)
    targets, wanted = pad_sequences([item.answer for item in rows], base, left=False)
    start = base.model.config.decoder_start_token_id
    shifted = torch.full_like(targets, pad_id(base) if start is None else start)
    shifted[:, 1:] = targets[:, :-1]
    output = base.model(
        input_ids=ids, attention_mask=mask, decoder_input_ids=shifted, use_cache=False
    )
    row, column = wanted.nonzero(as_tuple=True)
    return output.logits[row, column], targets[row, column], row
