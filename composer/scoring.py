"""Score weight vectors on examples: prompts, losses and answers.

The loss of a row is the mean negative log-likelihood per answer token (end token included), in
nats; the loss of a weight vector is the mean over rows, so that long answers do not drown short
ones. Which vectors are worth scoring is left to `composer.search`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from composer.base_model import LoadedBase
from composer.errors import BaseModelError, InsufficientMemory, InvalidExamples, Problem, Stopped
from composer.examples import Example
from composer.progress import ShouldStop, never
from composer.stacking import AdapterStack

PromptFormat = Literal["plain", "chat"]
FloatArray = np.ndarray[Any, np.dtype[np.float64]]

# Padded tokens of one forward pass: throughput on a processor is flat from about 500 on.
CPU_BATCH_TOKENS = 2048
GPU_BATCH_TOKENS = 32768
# A shared beginning shorter than this is not worth a pass of its own.
MIN_SHARED_TOKENS = 6


@dataclass(frozen=True)
class EncodedExample:
    """One row as tokens: the prompt, and the answer with its end token."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Return the length of the whole sequence."""
        return len(self.prompt) + len(self.answer)


def encode_examples(
    base: LoadedBase, examples: Sequence[Example], prompt_format: PromptFormat = "plain"
) -> tuple[EncodedExample, ...]:
    """Turn rows into tokens.

    `plain`: the input as it stands, one space, the output, the end token. `chat`: the input as the
    user's turn in the tokenizer's chat template, the output as the reply.

    Raises:
        InvalidExamples: naming every row that is too long for the model.
    """
    encode = _encoder(base, prompt_format)
    encoded = tuple(encode(example) for example in examples)
    limit = base.max_length
    problems = [
        Problem(
            "examples",
            f"row {number}",
            f"has {item.n_tokens} tokens; {base.source.title} reads at most {limit}.",
            "Shorten the input.",
        )
        for number, item in enumerate(encoded, start=1)
        if item.n_tokens > limit
    ]
    if problems:
        raise InvalidExamples(problems)
    return encoded


def encode_prompt(base: LoadedBase, text: str, prompt_format: PromptFormat) -> tuple[int, ...]:
    """Turn an input alone into tokens, however many they are."""
    return _encoder(base, prompt_format)(Example(text, "")).prompt


class Scorer:
    """The losses of weight vectors on a fixed set of rows, many vectors in one forward pass.

    Rows of one task often begin alike (their instruction); a causal model then reads the shared
    beginning once a weight vector, not once a row.
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
            0 if base.is_seq2seq else _shared_tokens([item.prompt for item in self.examples])
        )

    def losses(self, stack: AdapterStack, weights: FloatArray) -> FloatArray:
        """Return the loss of every row under every weight vector, (vectors, rows).

        Raises:
            InsufficientMemory: if not even one row fits.
            Stopped: between two forward passes, if the caller asked to stop.
        """
        losses = np.empty((len(weights), len(self.examples)))
        for vectors, rows, logits, labels in self._passes(stack, weights):
            per_token = functional.cross_entropy(logits, labels.tokens, reduction="none")
            n_rows = len(vectors) * len(rows)
            sums = torch.zeros(n_rows, device=logits.device).index_add_(0, labels.row, per_token)
            counts = torch.bincount(labels.row, minlength=n_rows)
            means = (sums / counts).view(len(vectors), len(rows))
            losses[np.ix_(vectors, rows)] = means.double().cpu().numpy()
        return losses

    def answer_logits(
        self, stack: AdapterStack, weights: FloatArray
    ) -> list[tuple[torch.Tensor, Labels]]:
        """Return each vector's logits at all answer positions, (positions, vocabulary).

        The order of positions is the same for every vector.
        """
        parts: dict[int, list[tuple[torch.Tensor, Labels]]] = {}
        for vectors, rows, logits, labels in self._passes(stack, weights):
            for position, vector in enumerate(vectors):
                low, high = position * len(rows), (position + 1) * len(rows)
                here = (labels.row >= low) & (labels.row < high)
                row = torch.tensor(rows, device=labels.row.device)[labels.row[here] - low]
                part = (logits[here], Labels(labels.tokens[here], row))
                parts.setdefault(vector, []).append(part)
        return [_joined(parts[vector]) for vector in range(len(weights))]

    def _passes(self, stack: AdapterStack, weights: FloatArray) -> Iterator[_Pass]:
        """Run over all pairs of vector and row in batches; halve them when memory runs out."""
        pending = list(self._batches(len(weights)))
        while pending:
            if self._should_stop():
                raise Stopped("Stopped by request.")
            vectors, rows = pending.pop(0)
            try:
                with torch.inference_mode():
                    logits, labels = self._forward(stack, weights[vectors], rows)
            except (torch.OutOfMemoryError, MemoryError) as error:
                pending[:0] = _halved(vectors, rows, error)
                continue
            yield vectors, rows, logits, labels

    def _batches(self, n_vectors: int) -> Iterator[tuple[list[int], list[int]]]:
        order = sorted(range(len(self.examples)), key=lambda i: self.examples[i].n_tokens)
        for rows in _cut(order, [self.examples[i].n_tokens for i in order], self.batch_tokens):
            longest = self.examples[rows[-1]].n_tokens - self._shared
            cost = longest * len(rows) + self._shared
            step = max(1, self.batch_tokens // cost)
            for start in range(0, n_vectors, step):
                yield list(range(start, min(start + step, n_vectors))), rows

    def _forward(
        self, stack: AdapterStack, weights: FloatArray, rows: list[int]
    ) -> tuple[torch.Tensor, Labels]:
        """Return float32 logits at the answer positions, vector by vector and row by row."""
        examples = [self.examples[i] for i in rows]
        device = self.base.device
        w = torch.as_tensor(weights, dtype=torch.float32, device=device)
        if self.base.is_seq2seq:
            return _seq2seq_logits(self.base, stack, w, examples)
        ids, labels = _causal_batch(examples, self._shared, self.base)
        ids, labels = ids.repeat(len(w), 1), labels.repeat(len(w), 1)
        row_weights = w.repeat_interleave(len(rows), dim=0)
        cache = _read_shared(self.base, stack, w, examples[0].prompt[: self._shared])
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": cache is not None}
        if cache is not None:
            cache.batch_repeat_interleave(len(rows))
            inputs["past_key_values"] = cache
        # Right padding needs no mask: no answer position looks at what follows it.
        row, column = (labels >= 0).nonzero(as_tuple=True)
        with stack.applied(row_weights):
            if self.base.head_is_linear:
                hidden = self.base.model.base_model(**inputs).last_hidden_state
                logits = self.base.model.get_output_embeddings()(hidden[row, column])
            else:
                logits = self.base.model(**inputs).logits[row, column]
        return logits.float(), Labels(labels[row, column], row)


@dataclass(frozen=True)
class Labels:
    """The answer tokens of a batch, and the row each belongs to."""

    tokens: torch.Tensor  # (positions,)
    row: torch.Tensor  # (positions,)


_Pass = tuple[list[int], list[int], torch.Tensor, Labels]


def l1_penalty(weights: FloatArray, strength: float) -> FloatArray:
    """Return LoraHub's penalty, `strength * mean_i |w_i|`, for each weight vector."""
    return np.asarray(strength * np.abs(weights).mean(axis=-1))


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
    """
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    lengths = [len(prompts[i]) + max_new_tokens for i in order]
    limit = CPU_BATCH_TOKENS * 2 if base.device.type == "cpu" else GPU_BATCH_TOKENS
    done = 0
    on_rows(done)
    for rows in _cut(order, lengths, limit):
        texts = _continue(base, stack, [prompts[i] for i in rows], weights[rows], max_new_tokens)
        for i, text in zip(rows, texts, strict=True):
            answers[i] = text
        done += len(rows)
        on_rows(done)
    return answers


def _encoder(base: LoadedBase, prompt_format: PromptFormat) -> Callable[[Example], EncodedExample]:
    return _chat_encoder(base) if prompt_format == "chat" else _plain_encoder(base)


def _plain_encoder(base: LoadedBase) -> Callable[[Example], EncodedExample]:
    tokenizer, end = base.tokenizer, base.tokenizer.eos_token_id

    def encode(example: Example) -> EncodedExample:
        prompt = list(tokenizer(example.input).input_ids)
        if base.is_seq2seq:
            answer = list(tokenizer(text_target=example.output).input_ids)
            return EncodedExample(tuple(prompt), _ended(answer, end))
        whole = list(tokenizer(f"{example.input} {example.output}").input_ids)
        if prompt and prompt[-1] == end:
            # A tokenizer that ends every text: the prompt must go on.
            prompt, whole = prompt[:-1], whole[:-1]
        if whole[: len(prompt)] == prompt and len(whole) > len(prompt):
            answer = whole[len(prompt) :]
        else:
            # The last word of the input and the first of the output share a token.
            answer = list(tokenizer(f" {example.output}", add_special_tokens=False).input_ids)
        return EncodedExample(tuple(prompt), _ended(answer, end))

    return encode


def _chat_encoder(base: LoadedBase) -> Callable[[Example], EncodedExample]:
    tokenizer = base.tokenizer
    if not tokenizer.chat_template:
        message = f"{base.source.title} has no chat template. Choose the plain prompt format."
        raise BaseModelError(message)

    def encode(example: Example) -> EncodedExample:
        turns = [{"role": "user", "content": example.input}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        answer = list(tokenizer(example.output, add_special_tokens=False).input_ids)
        return EncodedExample(tuple(prompt), _ended(answer, tokenizer.eos_token_id))

    return encode


def _ended(tokens: list[int], end: int) -> tuple[int, ...]:
    return tuple(tokens) if tokens and tokens[-1] == end else (*tokens, end)


def _shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens with which all prompts begin, leaving each at least its last one."""
    if len(prompts) < 2:  # noqa: PLR2004 - sharing needs two
        return 0
    first = list(prompts[0])
    shared = min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        while shared > 0 and first[:shared] != list(prompt[:shared]):
            shared -= 1
    return shared if shared >= MIN_SHARED_TOKENS else 0


def _causal_batch(
    examples: Sequence[EncodedExample], shared: int, base: LoadedBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right; label -1 where the next token is no answer token: both (rows, tokens)."""
    # The end token of the answer is predicted, never read.
    width = max(item.n_tokens for item in examples) - 1 - shared
    ids = torch.full((len(examples), width), _pad(base))
    labels = torch.full((len(examples), width), -1)
    for row, item in enumerate(examples):
        tokens = (*item.prompt, *item.answer)[shared:]
        ids[row, : len(tokens) - 1] = torch.tensor(tokens[:-1])
        first = len(item.prompt) - 1 - shared
        labels[row, first : first + len(item.answer)] = torch.tensor(item.answer)
    return ids.to(base.device), labels.to(base.device)


def _seq2seq_logits(
    base: LoadedBase, stack: AdapterStack, w: torch.Tensor, examples: Sequence[EncodedExample]
) -> tuple[torch.Tensor, Labels]:
    ids, mask = _padded([item.prompt for item in examples], base, left=False)
    targets, answer_mask = _padded([item.answer for item in examples], base, left=False)
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
    shifted = torch.full_like(targets, _pad(base) if start is None else start)
    shifted[:, 1:] = targets[:, :-1]
    return shifted


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
    shared = _shared_tokens(prompts) if bool((w == w[0]).all()) else 0
    cache = _read_shared(base, stack, w[:1], prompts[0][:shared])
    if cache is not None:
        cache.batch_repeat_interleave(len(prompts))
    ids, mask = _padded([prompt[shared:] for prompt in prompts], base, left=True)
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
        if not going.any():
            break
        kept = going.nonzero().squeeze(1)
        cache = state.past_key_values
        cache.batch_select_indices(kept)
        alive, ids = alive[kept], tokens[kept][:, None]
        mask = torch.cat([mask[kept], mask.new_ones(len(kept), 1)], dim=1)
        positions = positions[kept][:, -1:] + 1
    return written


def _read_shared(
    base: LoadedBase, stack: AdapterStack, w: torch.Tensor, prefix: Sequence[int]
) -> Any:
    """Return the cache of a beginning under each weight vector; None if it is empty."""
    if not prefix:
        return None
    ids = torch.tensor([list(prefix)], device=base.device).repeat(len(w), 1)
    with stack.applied(w):
        return base.model.base_model(input_ids=ids, use_cache=True).past_key_values


def _generate(
    base: LoadedBase,
    stack: AdapterStack,
    prompts: Sequence[Sequence[int]],
    w: torch.Tensor,
    max_new_tokens: int,
) -> list[list[int]]:
    """Take transformers' own loop: for seq2seq models and unusual output layers."""
    ids, mask = _padded(prompts, base, left=not base.is_seq2seq)
    with stack.applied(w):
        output = base.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=_pad(base),
            eos_token_id=base.tokenizer.eos_token_id,
        )
    end = base.tokenizer.eos_token_id
    # The decoder's start token is no part of the answer, and may be the end token.
    start = 1 if base.is_seq2seq else ids.shape[1]
    rows: list[list[int]] = output[:, start:].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


def _padded(
    sequences: Sequence[Sequence[int]], base: LoadedBase, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, (rows, tokens); the mask comes from lengths: pad may equal the end."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), _pad(base))
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        start = width - len(sequence) if left else 0
        ids[row, start : start + len(sequence)] = torch.tensor(list(sequence))
        mask[row, start : start + len(sequence)] = 1
    return ids.to(base.device), mask.to(base.device)


def _pad(base: LoadedBase) -> int:
    pad = base.tokenizer.pad_token_id
    return int(base.tokenizer.eos_token_id if pad is None else pad)


def _halved(
    vectors: list[int], rows: list[int], error: BaseException
) -> list[tuple[list[int], list[int]]]:
    if len(vectors) > 1:
        half = len(vectors) // 2
        return [(vectors[:half], rows), (vectors[half:], rows)]
    if len(rows) > 1:
        half = len(rows) // 2
        return [(vectors, rows[:half]), (vectors, rows[half:])]
    message = "One row of the examples does not fit into memory. Shorten it or use a smaller base."
    raise InsufficientMemory(message) from error


def _cut(order: list[int], lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Cut rows that are sorted by length into batches of at most `limit` padded tokens."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[end] * (end + 1 - start) > limit:
            yield order[start:end]
            start = end


def _joined(parts: list[tuple[torch.Tensor, Labels]]) -> tuple[torch.Tensor, Labels]:
    logits = torch.cat([part[0] for part in parts])
    labels = [part[1] for part in parts]
    return logits, Labels(
        torch.cat([item.tokens for item in labels]), torch.cat([item.row for item in labels])
    )
