"""Answers of many rows at once, written greedily, each row under its own weight vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from composer.base_model import LoadedBase
from composer.errors import InsufficientMemory
from composer.memory import fits_into_memory
from composer.scoring.encoding import (
    CPU_BATCH_TOKENS,
    GPU_BATCH_TOKENS,
    count_shared,
    cut_batches,
    pad_id,
    pad_sequences,
    read_shared,
)
from composer.scoring.losses import ONE_ROW_TOO_LARGE, FloatArray
from composer.stacking import AdapterStack

# A token of a shared beginning costs a row this part of what a token of its own costs.
SHARED_SHARE = 8


def answer_rows(
    base: LoadedBase,
    stack: AdapterStack,
    prompts: Sequence[Sequence[int]],
    weights: FloatArray,
    *,
    max_new_tokens: int,
    on_rows: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """Answer every prompt greedily, each row under its own weight vector: (rows, candidates).

    `on_rows` hears how many rows are done, before the first batch and after each; what it raises
    ends the work.

    Raises:
        InsufficientMemory: if not even one row fits.
    """
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    # A beginning that all rows share is read once a batch; each row still keeps it and looks back
    # at it, which counts for little.
    alike = base.head_is_linear and len(weights) > 0 and bool((weights == weights[0]).all())
    shared = count_shared(prompts) if alike else 0
    spared = shared - shared // SHARED_SHARE
    lengths = [len(prompts[i]) - spared + max_new_tokens for i in order]
    limit = CPU_BATCH_TOKENS * 2 if base.device.type == "cpu" else GPU_BATCH_TOKENS
    done = 0
    on_rows(done)
    pending = list(cut_batches(order, lengths, limit))
    while pending:
        rows = pending.pop(0)
        try:
            with fits_into_memory(ONE_ROW_TOO_LARGE):
                texts = _continue(
                    base, stack, [prompts[i] for i in rows], weights[rows], max_new_tokens
                )
        except InsufficientMemory:
            if len(rows) == 1:
                raise
            half = len(rows) // 2
            pending[:0] = [rows[:half], rows[half:]]
            continue
        for i, text in zip(rows, texts, strict=True):
            answers[i] = text
        done += len(rows)
        on_rows(done)
    return answers


def _continue(
    base: LoadedBase,
    stack: AdapterStack,
    prompts: Sequence[Sequence[int]],
    weights: FloatArray,
    max_new_tokens: int,
) -> list[str]:
    """Answer one batch greedily."""
    w = torch.as_tensor(weights, dtype=torch.float32, device=base.device)
    with torch.inference_mode():
        if base.head_is_linear:
            tokens = _continue_causal(base, stack, prompts, w, max_new_tokens)
        else:
            tokens = _generate(base, stack, prompts, w, max_new_tokens)
    texts = base.tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return [text.strip() for text in texts]


def _continue_causal(
    base: LoadedBase,
    stack: AdapterStack,
    prompts: Sequence[Sequence[int]],
    w: torch.Tensor,
    max_new_tokens: int,
) -> list[list[int]]:
    """Read the prompts, then write token by token; rows that have ended leave the batch.

    `generate` would multiply a strided slice by the output layer, for which torch copies that layer
    once a row: ten seconds for 64 rows of SmolLM2, against one.
    """
    shared = count_shared(prompts) if bool((w == w[0]).all()) else 0
    cache = read_shared(base, stack, w[:1], prompts[0][:shared])
    if cache is not None:
        cache.batch_repeat_interleave(len(prompts))
    ids, mask = pad_sequences([prompt[shared:] for prompt in prompts], base, left=True)
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)  # (rows, whole prompt)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]
    written: list[list[int]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts), device=base.device)
    for _ in range(max_new_tokens):
        with stack.applied(w[alive]):
            state = base.model.base_model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
            head = base.model.get_output_embeddings()
            tokens = head(state.last_hidden_state[:, -1].contiguous()).argmax(dim=-1)  # (rows,)
        going = tokens != base.tokenizer.eos_token_id
        for row, token in zip(alive[going].tolist(), tokens[going].tolist(), strict=True):
            written[row].append(token)
        # A model with learned positions cannot read beyond the last one.
        going &= positions[:, -1] + 1 < base.max_length
        if not going.any():
            break
        kept = going.nonzero().squeeze(1)
        cache = state.past_key_values
        cache.batch_select_indices(kept)
        alive, ids = alive[kept], tokens[kept][:, None]
        mask = torch.cat([mask[kept], mask.new_ones(len(kept), 1)], dim=1)
        positions = positions[kept][:, -1:] + 1
    return written


def _generate(
    base: LoadedBase,
    stack: AdapterStack,
    prompts: Sequence[Sequence[int]],
    w: torch.Tensor,
    max_new_tokens: int,
) -> list[list[int]]:
    """Take transformers' own loop: for seq2seq models and unusual output layers."""
    ids, mask = pad_sequences(prompts, base, left=not base.is_seq2seq)
    with stack.applied(w):
        output = base.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad_id(base),
            eos_token_id=base.tokenizer.eos_token_id,
        )
    end = base.tokenizer.eos_token_id
    # The decoder's start token is no part of the answer, and may be the end token.
    start = 1 if base.is_seq2seq else ids.shape[1]
    rows: list[list[int]] = output[:, start:].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]
