from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from composer.base_model import LoadedBase
from composer.errors import BaseModelError, InsufficientMemory, InvalidExamples, Stopped
from composer.examples import Example
from composer.scoring import Scorer, answer_rows, answers, encode_examples, l1_penalty
from composer.stacking import AdapterStack
from tests.composer import tiny
from tests.composer.tiny import ROWS, T5_ATTENTION, make_adapter

WEIGHTS = np.array([[0.0, 0.0], [1.0, 0.0], [0.4, -0.9]])


@pytest.fixture
def stack(causal: LoadedBase):
    adapters = [make_adapter(causal, str(seed), seed=seed) for seed in (1, 2)]
    with AdapterStack(causal, adapters) as stack:
        yield stack


def plain_loss(base: LoadedBase, stack: AdapterStack, example: Example, w: np.ndarray) -> float:
    """The textbook way: one row, one vector, the whole sequence through the whole model."""
    (item,) = encode_examples(base, [example])
    with torch.inference_mode(), stack.applied(torch.tensor(w[None], dtype=torch.float32)):
        if base.is_seq2seq:
            labels = torch.tensor([item.answer])
            return float(base.model(input_ids=torch.tensor([item.prompt]), labels=labels).loss)
        ids = torch.tensor([[*item.prompt, *item.answer]])
        logits = base.model(input_ids=ids).logits[0, len(item.prompt) - 1 : -1]
    return float(functional.cross_entropy(logits, torch.tensor(item.answer)))


def test_it_works(causal: LoadedBase, stack: AdapterStack) -> None:
    losses = Scorer(causal, encode_examples(causal, ROWS)).losses(stack, WEIGHTS)
    assert losses.shape == (3, len(ROWS))
    for i, w in enumerate(WEIGHTS):
        for j, row in enumerate(ROWS):
            assert losses[i, j] == pytest.approx(plain_loss(causal, stack, row, w), rel=1e-4)


def test_rows_that_share_nothing_are_scored_alike(causal: LoadedBase, stack: AdapterStack) -> None:
    rows = (Example("one", "a"), Example("Two words", "bb"), Example("x", "ccc"))
    losses = Scorer(causal, encode_examples(causal, rows)).losses(stack, WEIGHTS)
    for j, row in enumerate(rows):
        assert losses[2, j] == pytest.approx(plain_loss(causal, stack, row, WEIGHTS[2]), rel=1e-4)


def test_small_batches_give_the_same_losses(causal: LoadedBase, stack: AdapterStack) -> None:
    encoded = encode_examples(causal, ROWS)
    large = Scorer(causal, encoded).losses(stack, WEIGHTS)
    small = Scorer(causal, encoded, batch_tokens=70).losses(stack, WEIGHTS)
    assert np.allclose(large, small, rtol=1e-4)


def test_unusual_output_layers_take_the_long_way(causal: LoadedBase, stack: AdapterStack) -> None:
    encoded = encode_examples(causal, ROWS)
    slow = replace(causal, head_is_linear=False)
    expected = Scorer(causal, encoded).losses(stack, WEIGHTS)
    assert np.allclose(Scorer(slow, encoded).losses(stack, WEIGHTS), expected, rtol=1e-4)


def test_seq2seq_models_are_scored(seq2seq: LoadedBase) -> None:
    adapters = [make_adapter(seq2seq, str(i), seed=i, modules=T5_ATTENTION) for i in (1, 2)]
    with AdapterStack(seq2seq, adapters) as stack:
        losses = Scorer(seq2seq, encode_examples(seq2seq, ROWS)).losses(stack, WEIGHTS)
        for i, w in enumerate(WEIGHTS):
            expected = plain_loss(seq2seq, stack, ROWS[3], w)
            assert losses[i, 3] == pytest.approx(expected, rel=1e-4)


def test_answer_logits_belong_to_their_rows(causal: LoadedBase, stack: AdapterStack) -> None:
    scorer = Scorer(causal, encode_examples(causal, ROWS), batch_tokens=120)
    losses = scorer.losses(stack, WEIGHTS)
    found = scorer.answer_logits(stack, WEIGHTS)
    assert np.allclose(found.losses, losses, rtol=1e-4)
    # A vocabulary this small is kept whole, so the losses can be had from the logits.
    per_token = found.logits.logsumexp(dim=-1) - found.logits[:, :, 0]
    for row in range(len(ROWS)):
        means = per_token[:, found.row == row].mean(dim=1).double().numpy()
        assert means == pytest.approx(losses[:, row], rel=1e-4)


def test_unlikely_tokens_keep_their_joint_weight(
    causal: LoadedBase, stack: AdapterStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("composer.scoring.losses.KEPT_TOKENS", 5)
    scorer = Scorer(causal, encode_examples(causal, ROWS))
    found = scorer.answer_logits(stack, WEIGHTS)
    assert found.logits.shape[2] == 6
    every = torch.cat([found.logits[0], found.others[:, None]], dim=1)
    per_token = every.logsumexp(dim=-1) - found.logits[0, :, 0]
    mean = float(per_token[found.row == 2].mean())
    assert mean == pytest.approx(scorer.losses(stack, WEIGHTS)[0, 2], rel=1e-4)


class TestEncoding:
    def test_plain_is_input_space_output_end(self, causal: LoadedBase) -> None:
        (item,) = encode_examples(causal, [Example("Ask:", "yes")])
        assert causal.tokenizer.decode(item.prompt) == "Ask:"
        assert causal.tokenizer.decode(item.answer) == f" yes{tiny.END}"

    def test_chat_uses_the_template(self, causal: LoadedBase) -> None:
        (item,) = encode_examples(causal, [Example("Ask", "yes")], "chat")
        assert causal.tokenizer.decode(item.prompt) == "<user>Ask<assistant>"
        assert causal.tokenizer.decode(item.answer) == f"yes{tiny.END}"

    def test_chat_without_a_template_is_refused(self, tmp_path: Path) -> None:
        base = tiny.load_tiny(tiny.save_causal(tmp_path, chat=False))
        with pytest.raises(BaseModelError, match="no chat template"):
            encode_examples(base, ROWS, "chat")

    def test_a_tokenizer_that_ends_texts_does_not_end_the_prompt(self, causal: LoadedBase) -> None:
        base = replace(causal, tokenizer=tiny.tokenizer_of(ends_texts=True))
        (item,) = encode_examples(base, [Example("Ask:", "yes")])
        assert causal.tokenizer.decode(item.prompt) == "Ask:"
        assert causal.tokenizer.decode(item.answer) == f" yes{tiny.END}"

    def test_seq2seq_answers_end_once(self, seq2seq: LoadedBase) -> None:
        (item,) = encode_examples(seq2seq, [Example("Ask:", "yes")])
        assert item.prompt[-1] == item.answer[-1] == 256
        assert item.answer.count(256) == 1

    def test_every_row_that_is_too_long_is_named(self, causal: LoadedBase) -> None:
        rows = [Example("x" * 300, "y"), Example("x", "y"), Example("x", "y" * 300)]
        with pytest.raises(InvalidExamples) as caught:
            encode_examples(causal, rows)
        assert [problem.field for problem in caught.value.problems] == ["row 1", "row 3"]


class TestAnswers:
    def test_the_batch_answers_as_single_rows_do(
        self, causal: LoadedBase, stack: AdapterStack
    ) -> None:
        prompts = [item.prompt for item in encode_examples(causal, ROWS)]
        w = np.tile(WEIGHTS[1], (len(ROWS), 1))
        done: list[int] = []
        written = answer_rows(causal, stack, prompts, w, max_new_tokens=6, on_rows=done.append)
        single = [
            answer_rows(causal, stack, [prompt], WEIGHTS[1:2], max_new_tokens=6)[0]
            for prompt in prompts
        ]
        assert written == single
        assert done[-1] == len(ROWS)

    def test_own_loop_and_that_of_transformers_agree(
        self, causal: LoadedBase, stack: AdapterStack
    ) -> None:
        prompts = [item.prompt for item in encode_examples(causal, ROWS)]
        w = np.array([WEIGHTS[i % 3] for i in range(len(ROWS))])
        slow = replace(causal, head_is_linear=False)
        ours = answer_rows(causal, stack, prompts, w, max_new_tokens=8)
        assert ours == answer_rows(slow, stack, prompts, w, max_new_tokens=8)

    def test_an_answer_ends_at_the_end_token(self, causal: LoadedBase, stack: AdapterStack) -> None:
        prompts = [item.prompt for item in encode_examples(causal, ROWS)]
        w = torch.tensor(np.tile(WEIGHTS[1], (len(ROWS), 1)), dtype=torch.float32)
        longer = answers._continue_causal(causal, stack, prompts, w, 6)
        # Call what the first row wrote third the end: a row stops where it writes it.
        tokenizer = tiny.tokenizer_of(ends_texts=False)
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(longer[0][2])
        end = tokenizer.eos_token_id
        base = replace(causal, tokenizer=tokenizer)
        shorter = answers._continue_causal(base, stack, prompts, w, 6)
        for full, cut in zip(longer, shorter, strict=True):
            assert cut == (full[: full.index(end)] if end in full else full)

    def test_seq2seq_models_answer(self, seq2seq: LoadedBase) -> None:
        adapter = make_adapter(seq2seq, modules=T5_ATTENTION)
        prompts = [item.prompt for item in encode_examples(seq2seq, ROWS)]
        with AdapterStack(seq2seq, [adapter]) as stack:
            w = np.ones((len(ROWS), 1))
            written = answer_rows(seq2seq, stack, prompts, w, max_new_tokens=5)
            again = answer_rows(seq2seq, stack, prompts[:1], w[:1], max_new_tokens=5)
        assert written[0] == again[0]


class TestMemory:
    def test_batches_are_halved_until_they_fit(
        self, causal: LoadedBase, stack: AdapterStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scorer = Scorer(causal, encode_examples(causal, ROWS))
        expected = scorer.losses(stack, WEIGHTS)
        forward = Scorer._forward

        def small_memory(self, stack, weights, rows):
            if len(weights) * len(rows) > 3:
                raise torch.OutOfMemoryError
            return forward(self, stack, weights, rows)

        monkeypatch.setattr(Scorer, "_forward", small_memory)
        assert np.allclose(scorer.losses(stack, WEIGHTS), expected, rtol=1e-4)

    def test_answers_are_written_in_smaller_batches_too(
        self, causal: LoadedBase, stack: AdapterStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        prompts = [item.prompt for item in encode_examples(causal, ROWS)]
        weights = np.tile(WEIGHTS[1], (len(prompts), 1))
        expected = answer_rows(causal, stack, prompts, weights, max_new_tokens=3)
        proceed, room = answers._continue, [3]

        def small_memory(base, stack, prompts, weights, n):
            if len(prompts) > room[0]:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")
            return proceed(base, stack, prompts, weights, n)

        monkeypatch.setattr(answers, "_continue", small_memory)
        assert answer_rows(causal, stack, prompts, weights, max_new_tokens=3) == expected
        room[0] = 0
        with pytest.raises(InsufficientMemory, match="One row"):
            answer_rows(causal, stack, prompts, weights, max_new_tokens=3)

    def test_one_row_that_does_not_fit_is_told(
        self, causal: LoadedBase, stack: AdapterStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_memory(self, stack, weights, rows):
            raise MemoryError

        monkeypatch.setattr(Scorer, "_forward", no_memory)
        with pytest.raises(InsufficientMemory, match="does not fit"):
            Scorer(causal, encode_examples(causal, ROWS)).losses(stack, WEIGHTS)


def test_a_stop_is_heard_between_passes(causal: LoadedBase, stack: AdapterStack) -> None:
    calls = iter([False, True])
    encoded = encode_examples(causal, ROWS)
    scorer = Scorer(causal, encoded, batch_tokens=70, should_stop=lambda: next(calls))
    with pytest.raises(Stopped):
        scorer.losses(stack, WEIGHTS)


def test_the_penalty_is_that_of_lorahub() -> None:
    assert l1_penalty(np.array([[1.0, -1.0], [0.0, 0.5]]), 0.05) == pytest.approx([0.05, 0.0125])
