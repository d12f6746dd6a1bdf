"""Rows as tokens: prompts, answers with their end token, and how they are padded into batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from composer.base_model import LoadedBase
from composer.errors import BaseModelError, InvalidExamples, Problem
from composer.examples import Example
from composer.stacking import AdapterStack

PromptFormat = Literal["plain", "chat"]

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


def count_shared(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens with which all prompts begin, leaving each at least its last one."""
    if len(prompts) < 2:  # noqa: PLR2004 - sharing needs two
        return 0
    first = list(prompts[0])
    shared = min(len(prompt) for prompt in prompts) - 1
    for prompt in prompts[1:]:
        while shared > 0 and first[:shared] != list(prompt[:shared]):
            shared -= 1
    return shared if shared >= MIN_SHARED_TOKENS else 0


def read_shared(
    base: LoadedBase, stack: AdapterStack, w: torch.Tensor, prefix: Sequence[int]
) -> Any:
    """Return the cache of a beginning under each weight vector; None if it is empty."""
    if not prefix:
        return None
    ids = torch.tensor([list(prefix)], device=base.device).repeat(len(w), 1)
    with stack.applied(w):
        return base.model.base_model(input_ids=ids, use_cache=True).past_key_values


def pad_sequences(
    sequences: Sequence[Sequence[int]], base: LoadedBase, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, (rows, tokens); the mask comes from lengths: pad may equal the end."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), width), pad_id(base))
    mask = torch.zeros((len(sequences), width), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        start = width - len(sequence) if left else 0
        ids[row, start : start + len(sequence)] = torch.tensor(list(sequence))
        mask[row, start : start + len(sequence)] = 1
    return ids.to(base.device), mask.to(base.device)


def pad_id(base: LoadedBase) -> int:
    """Return the padding token, or the end token where there is none: lengths tell them apart."""
    pad = base.tokenizer.pad_token_id
    return int(base.tokenizer.eos_token_id if pad is None else pad)


def cut_batches(order: list[int], lengths: list[int], limit: int) -> Iterator[list[int]]:
    """Cut rows that are sorted by length into batches of at most `limit` padded tokens."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or lengths[end] * (end + 1 - start) > limit:
            yield order[start:end]
            start = end


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
