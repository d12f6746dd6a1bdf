"""Losses of weight vectors on rows, many vectors in one forward pass.

The loss of a row is the mean negative log-likelihood per answer token (end token included), in
nats; the loss of a weight vector is the mean over rows, so that long answers do not drown short
ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from composer.base_model import LoadedBase
from composer.errors import InsufficientMemory, Stopped
from composer.memory import fits_into_memory
from composer.progress import ShouldStop, never
from composer.scoring.encoding import (
    CPU_BATCH_TOKENS,
    GPU_BATCH_TOKENS,
    EncodedExample,
    count_shared,
    cut_batches,
    pad_id,
    pad_sequences,
    read_shared,
)
from composer.scoring.packing import Pack, cut_packs, pack_rows
from composer.stacking import AdapterStack

# Tokens of one forward pass from which a processor is no faster with more.
BUSY_TOKENS = 400

FloatArray = np.ndarray[Any, np.dtype[np.float64]]

ONE_ROW_TOO_LARGE = (
    "One row of the examples does not fit into memory. Shorten it or use a smaller base."
)
# Of a vocabulary of 50,000 a linear model of the logits needs the likeliest tokens only.
KEPT_TOKENS = 512


class Scorer:
    """The losses of weight vectors on a fixed set of rows, many vectors in one forward pass.

    Rows of one task often begin alike (their instruction); a causal model then reads the shared
    beginning once a weight vector, not once a row. Where the model allows, such rows are packed
    into one sequence (see `packing`), else they are padded.
    """

    def __init__(
        self,
        base: LoadedBase,
        examples: Sequence[EncodedExample],
        *,
        batch_tokens: int | None = None,
        should_stop: ShouldStop = never,
    ) -> None:
        self.base = base
        self.examples = tuple(examples)
        on_cpu = base.device.type == "cpu"
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)
        self._should_stop = should_stop
        self._shared = (
            0 if base.is_seq2seq else count_shared([item.prompt for item in self.examples])
        )
        longest = max((item.n_tokens for item in self.examples), default=0)
        self._packs: dict[tuple[int, ...], Pack] | None = None
        if base.packs_rows and base.head_is_linear and longest <= base.window:
            self._packs = {}

    def losses(self, stack: AdapterStack, weights: FloatArray) -> FloatArray:
        """Return the loss of every row under every weight vector, (vectors, rows).

        Raises:
            InsufficientMemory: if not even one row fits.
            Stopped: between two forward passes, if the caller asked to stop.
        """
        losses = np.empty((len(weights), len(self.examples)))
        for vectors, rows, logits, labels in self._passes(stack, weights):
            losses[np.ix_(vectors, rows)] = _row_losses(logits, labels, len(vectors), len(rows))
        return losses

    def answer_logits(self, stack: AdapterStack, weights: FloatArray) -> AnswerLogits:
        """Return losses, and the logits of the likeliest tokens at all answer positions.

        Which tokens those are is read off the first vector.
        """
        losses = np.empty((len(weights), len(self.examples)))
        logits: dict[tuple[int, int], torch.Tensor] = {}
        likeliest: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for first, part in ((0, weights[:1]), (1, weights[1:])):
            for vectors, rows, whole, labels in self._passes(stack, part):
                chosen = [first + vector for vector in vectors]
                losses[np.ix_(chosen, rows)] = _row_losses(whole, labels, len(chosen), len(rows))
                for place, (vector, row) in enumerate((v, r) for v in chosen for r in rows):
                    here = labels.row == place
                    if vector == 0:
                        likeliest[row] = _likeliest(whole[here], labels.tokens[here])
                    logits[vector, row] = whole[here].gather(1, likeliest[row][0])
        rows = sorted(likeliest)
        return AnswerLogits(
            logits=torch.stack(
                [torch.cat([logits[v, row] for row in rows]) for v in range(len(weights))]
            ),
            others=torch.cat([likeliest[row][1] for row in rows]),
            row=torch.cat([torch.full_like(likeliest[row][0][:, 0], row) for row in rows]),
            losses=losses,
        )

    def _passes(self, stack: AdapterStack, weights: FloatArray) -> Iterator[_Pass]:
        """Run over all pairs of vector and row in batches; halve them when memory runs out."""
        pending = list(self._batches(len(weights)))
        while pending:
            if self._should_stop():
                raise Stopped("Stopped by request.")
            vectors, rows = pending.pop(0)
            try:
                with torch.inference_mode(), fits_into_memory(ONE_ROW_TOO_LARGE):
                    logits, labels = self._forward(stack, weights[vectors], rows)
            except InsufficientMemory:
                if len(vectors) * len(rows) == 1:
                    raise
                pending[:0] = _halved(vectors, rows)
                continue
            yield vectors, rows, logits, labels

    def _batches(self, n_vectors: int) -> Iterator[tuple[list[int], list[int]]]:
        order = sorted(range(len(self.examples)), key=lambda i: self.examples[i].n_tokens)
        lengths = [self.examples[i].n_tokens for i in order]
        if self._packs is None:
            batches = cut_batches(order, lengths, self.batch_tokens)
        else:
            batches = cut_packs(order, lengths, self._shared)
        for rows in batches:
            cost = self._shared + self._cost(rows)
            # One vector alone can be folded into the layers: cheaper where the chip is busy anyway.
            busy = self.base.device.type == "cpu" and cost >= BUSY_TOKENS
            step = 1 if busy else max(1, self.batch_tokens // cost)
            for start in range(0, n_vectors, step):
                yield list(range(start, min(start + step, n_vectors))), rows

    def _cost(self, rows: Sequence[int]) -> int:
        """Return how many tokens a pass over the rows reads beside their shared beginning."""
        own = [self.examples[i].n_tokens - self._shared for i in rows]
        return max(own) * len(own) if self._packs is None else sum(own)

    def _forward(
        self, stack: AdapterStack, weights: FloatArray, rows: list[int]
    ) -> tuple[torch.Tensor, Labels]:
        """Return float32 logits at the answer positions, vector by vector and row by row."""
        examples = [self.examples[i] for i in rows]
        device = self.base.device
        w = torch.as_tensor(weights, dtype=torch.float32, device=device)
        if self.base.is_seq2seq:
            return _seq2seq_logits(self.base, stack, w, examples)
        if self._packs is not None:
            key = tuple(rows)
            if key not in self._packs:
                self._packs[key] = pack_rows(examples, self._shared, self.base)
            return _packed_logits(self.base, stack, w, self._packs[key], len(rows))
        ids, labels = _causal_batch(examples, self._shared, self.base)
        ids, labels = ids.repeat(len(w), 1), labels.repeat(len(w), 1)
        row_weights = w.repeat_interleave(len(rows), dim=0)
        cache = read_shared(self.base, stack, w, examples[0].prompt[: self._shared])
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": cache is not None}
        if cache is not None:
            cache.batch_repeat_interleave(len(rows))
            inputs["past_key_values"] = cache
        # Right padding needs no mask: no answer position looks at what follows it.
        row, column = (labels >= 0).nonzero(as_tuple=True)
        with stack.applied(row_weights):
            if self.base.head_is_linear:
                hidden = self.base.model.base_model(**inputs).last_hidden_state
                # An adapted head sees positions, not rows: each takes its row's weights along.
                with stack.applied(row_weights[row]):
                    logits = self.base.model.get_output_embeddings()(hidden[row, column])
            else:
                logits = self.base.model(**inputs).logits[row, column]
        return logits.float(), Labels(labels[row, column], row)


@dataclass(frozen=True)
class Labels:
    """The answer tokens of a batch, and the row each belongs to."""

    tokens: torch.Tensor  # (positions,)
    row: torch.Tensor  # (positions,)


@dataclass(frozen=True)
class AnswerLogits:
    """Logits at the answer positions under several vectors: the wanted token, then the likeliest.

    `others` is the logarithm of the summed exponentials of all other tokens under the first vector.
    """

    logits: torch.Tensor  # (vectors, positions, 1 + likeliest tokens)
    others: torch.Tensor  # (positions,)
    row: torch.Tensor  # (positions,): the row that each belongs to
    losses: FloatArray  # (vectors, rows), from the whole vocabulary


_Pass = tuple[list[int], list[int], torch.Tensor, Labels]


def l1_penalty(weights: FloatArray, strength: float) -> FloatArray:
    """Return LoraHub's penalty, `strength * mean_i |w_i|`, for each weight vector."""
    return np.asarray(strength * np.abs(weights).mean(axis=-1))


def _row_losses(logits: torch.Tensor, labels: Labels, n_vectors: int, n_rows: int) -> FloatArray:
    """Return the mean loss per answer token, (vectors, rows)."""
    per_token = functional.cross_entropy(logits, labels.tokens, reduction="none")
    sums = torch.zeros(n_vectors * n_rows, device=logits.device)
    sums.index_add_(0, labels.row, per_token)
    counts = torch.bincount(labels.row, minlength=n_vectors * n_rows)
    return np.asarray((sums / counts).view(n_vectors, n_rows).double().cpu().numpy())


def _likeliest(logits: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids, (positions, 1 + likeliest), the wanted one first, and what the rest sum to."""
    without = logits.scatter(1, wanted[:, None], -torch.inf)
    kept = min(KEPT_TOKENS, logits.shape[1] - 1)
    ids = torch.cat([wanted[:, None], without.topk(kept, dim=-1).indices], dim=1)
    return ids, logits.scatter(1, ids, -torch.inf).logsumexp(dim=-1)


def _causal_batch(
    examples: Sequence[EncodedExample], shared: int, base: LoadedBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right; label -1 where the next token is no answer token: both (rows, tokens)."""
    # The end token of the answer is predicted, never read.
    width = max(item.n_tokens for item in examples) - 1 - shared
    ids = torch.full((len(examples), width), pad_id(base))
    labels = torch.full((len(examples), width), -1)
    for row, item in enumerate(examples):
        tokens = (*item.prompt, *item.answer)[shared:]
        ids[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        first = len(item.prompt) - 1 - shared
        labels[row, first : first + len(item.answer)] = torch.tensor(item.answer)
    return ids.to(base.device), labels.to(base.device)


def _packed_logits(
    base: LoadedBase, stack: AdapterStack, w: torch.Tensor, pack: Pack, n_rows: int
) -> tuple[torch.Tensor, Labels]:
    vectors, answers = len(w), len(pack.place)
    with stack.applied(w):
        hidden = base.model.base_model(
            input_ids=pack.ids.expand(vectors, -1),
            position_ids=pack.positions,
            attention_mask=pack.mask,
            use_cache=False,
        ).last_hidden_state[:, pack.place]
    # An adapted head sees positions, not sequences: each takes its vector's weights along.
    with stack.applied(w.repeat_interleave(answers, dim=0)):
        logits = base.model.get_output_embeddings()(hidden.flatten(0, 1))
    first = torch.arange(vectors, device=base.device)[:, None] * n_rows
    labels = Labels(pack.wanted.repeat(vectors), (first + pack.row).flatten())
    return logits.float(), labels


def _seq2seq_logits(
    base: LoadedBase, stack: AdapterStack, w: torch.Tensor, examples: Sequence[EncodedExample]
) -> tuple[torch.Tensor, Labels]:
    ids, mask = pad_sequences([item.prompt for item in examples], base, left=False)
    targets, answer_mask = pad_sequences([item.answer for item in examples], base, left=False)
    labels = targets.masked_fill(answer_mask == 0, -100)
    decoder_ids = _shifted_right(targets, base)
    row_weights = w.repeat_interleave(len(examples), dim=0)
    labels = labels.repeat(len(w), 1)
    with stack.applied(row_weights):
        logits = base.model(
            input_ids=ids.repeat(len(w), 1),
            attention_mask=mask.repeat(len(w), 1),
            decoder_input_ids=decoder_ids.repeat(len(w), 1),
            use_cache=False,
        ).logits
    row, column = (labels >= 0).nonzero(as_tuple=True)
    return logits[row, column].float(), Labels(labels[row, column], row)


def _shifted_right(targets: torch.Tensor, base: LoadedBase) -> torch.Tensor:
    start = base.model.config.decoder_start_token_id
    shifted = torch.full_like(targets, pad_id(base) if start is None else start)
    shifted[:, 1:] = targets[:, :-1]
    return shifted


def _halved(vectors: list[int], rows: list[int]) -> list[tuple[list[int], list[int]]]:
    if len(vectors) > 1:
        half = len(vectors) // 2
        return [(vectors[:half], rows), (vectors[half:], rows)]
    half = len(rows) // 2
    return [(vectors, rows[:half]), (vectors, rows[half:])]
