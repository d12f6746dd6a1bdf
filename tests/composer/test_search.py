from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from composer.errors import SearchError, Stopped, StorageFull
from composer.scoring import AnswerLogits, FloatArray
from composer.search import (
    Evaluation,
    SearchSettings,
    WeightSearch,
    optimizer_names,
    require_optimizer,
)

TARGET = np.array([0.9, -0.4, 0.0, 0.2])
SETTINGS = SearchSettings("greedy", budget=40, seed=3, start=(1.0, 0.0, 0.0, 0.0))
OPTIMIZERS = (
    "duel",
    "gauss-newton",
    "greedy",
    "greedy+gn",
    "NGOpt",
    "CMA",
    "DE",
    "PSO",
    "OnePlusOne",
)


class Softmax:
    """A model whose logits are linear in the weights: four answer tokens over six words."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.slopes = torch.randn(4, 4, 6, generator=random)  # (weights, positions, words)
        wanted = torch.einsum("n,npk->pk", torch.tensor(TARGET, dtype=torch.float32), self.slopes)
        self.wanted = wanted.argmax(dim=-1)
        self.calls = 0

    def losses(self, weights: FloatArray) -> FloatArray:
        self.calls += 1
        logits = self._logits(weights).log_softmax(dim=-1)
        return -logits[:, range(4), self.wanted].mean(dim=1).double().numpy()

    def answer_logits(self, weights: FloatArray) -> AnswerLogits:
        logits = self._logits(weights)
        order = logits[0].scatter(1, self.wanted[:, None], torch.inf).argsort(descending=True)
        return AnswerLogits(
            logits=logits.gather(2, order.expand_as(logits)),
            others=torch.full((4,), -torch.inf),
            row=torch.tensor([0, 0, 1, 1]),
            losses=self.losses(weights)[:, None].repeat(2, axis=1),
        )

    def _logits(self, weights: FloatArray) -> torch.Tensor:
        w = torch.tensor(weights, dtype=torch.float32)
        return torch.einsum("cn,npk->cpk", w, self.slopes)


def run(settings: SearchSettings, objective: Softmax | None = None, **kwargs) -> WeightSearch:
    search = WeightSearch(objective or Softmax(), 4, settings, **kwargs)
    for _ in search.evaluations():
        pass
    return search


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_works(optimizer: str) -> None:
    search = run(replace(SETTINGS, optimizer=optimizer))
    assert search.history[0].weights == (0.0, 0.0, 0.0, 0.0)
    assert search.best.loss <= search.history[0].loss
    assert [item.number for item in search.history] == list(range(len(search.history)))
    assert len(search.history) <= 41
    assert all(abs(w) <= 1.5 for item in search.history for w in item.weights)
    penalty = 0.05 * np.abs(search.best.weights).mean()
    assert search.best.loss == pytest.approx(search.best.fit_loss + penalty)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_seed_gives_the_same_result(optimizer: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    assert run(settings).history == run(settings).history


@pytest.mark.parametrize("optimizer", ["duel", "gauss-newton", "greedy", "greedy+gn", "NGOpt"])
def test_the_search_begins_at_the_start(optimizer: str) -> None:
    search = run(replace(SETTINGS, optimizer=optimizer))
    assert search.history[1].weights == pytest.approx((1.0, 0.0, 0.0, 0.0))


def test_the_choice_of_ngopt_is_recorded() -> None:
    assert run(replace(SETTINGS, optimizer="NGOpt")).optimizer_resolved == "Cobyla"
    assert run(replace(SETTINGS, optimizer="DE")).optimizer_resolved == "DE"
    assert run(SETTINGS).optimizer_resolved == "greedy"


@pytest.mark.parametrize("optimizer", ["gauss-newton", "greedy+gn", "NGOpt"])
def test_a_prior_takes_the_place_of_the_sparse_penalty(optimizer: str) -> None:
    prior = (0.25,) * 4
    settings = replace(SETTINGS, optimizer=optimizer, start=prior, prior=prior, prior_penalty=0.3)
    best = run(settings).best
    distance = ((np.array(best.weights) - 0.25) ** 2).sum()
    assert best.loss == pytest.approx(best.fit_loss + 0.3 * distance)
    held = run(replace(settings, prior_penalty=100.0)).best
    assert held.weights == pytest.approx(prior, abs=0.05)


def test_gauss_newton_ends_lower_than_greedy() -> None:
    wide = replace(SETTINGS, l1_penalty=0.0)
    assert (
        run(replace(wide, optimizer="greedy+gn")).best.loss
        < run(replace(wide, budget=24)).best.loss
    )


@pytest.mark.parametrize("optimizer", ["greedy", "NGOpt"])
@pytest.mark.parametrize("budget", [1, 2, 11])
def test_any_budget_is_kept(optimizer: str, budget: int) -> None:
    search = run(replace(SETTINGS, optimizer=optimizer, budget=budget))
    assert len(search.history) == budget + 1


@pytest.mark.parametrize(("budget", "spent"), [(1, 1), (2, 2), (11, 9), (16, 16), (20, 16)])
def test_greedy_steps_are_cut_short_and_whole_rounds_are_not(budget: int, spent: int) -> None:
    search = run(replace(SETTINGS, optimizer="greedy+gn", budget=budget))
    assert len(search.history) == spent + 1


class TestGaussNewton:
    """One weight a candidate and block: two candidates in two blocks of layers."""

    BLOCKS = replace(SETTINGS, optimizer="gauss-newton", blocks=2, start=(1.0, 0.0) * 2)

    @pytest.mark.parametrize(("budget", "spent"), [(1, 1), (4, 1), (7, 6), (40, 40)])
    def test_no_round_begins_that_the_budget_cannot_hold(self, budget: int, spent: int) -> None:
        search = run(replace(self.BLOCKS, budget=budget))
        assert len(search.history) - 1 <= spent

    def test_the_first_round_moves_all_blocks_together(self) -> None:
        history = np.array([item.weights for item in run(self.BLOCKS).history])
        first = history[2:7]  # after the base and the start: the centre, two probes, two steps
        assert first[:, :2] == pytest.approx(first[:, 2:])
        assert first[0] == pytest.approx((1.0, 0.0, 1.0, 0.0))
        assert (np.abs(history[7:, :2] - history[7:, 2:]) > 0.01).any()

    def test_only_the_largest_weights_differ_between_blocks(self) -> None:
        search = run(replace(self.BLOCKS, apart=1))
        history = np.array([item.weights for item in search.history])
        centre, probes = history[7], history[8:10]  # after the first round, see above
        largest = int(np.abs(centre[:2]).argmax())
        assert (np.abs(probes - centre) > 0.01).nonzero()[1].tolist() == [largest, largest + 2]

    def test_blocks_end_lower_than_one_weight_for_all(self) -> None:
        wide = replace(self.BLOCKS, l1_penalty=0.0)
        tied = min(
            item.fit_loss for item in run(wide).history if item.weights[:2] == item.weights[2:]
        )
        assert run(wide).best.fit_loss < tied

    def test_it_goes_on_from_the_best_start(self) -> None:
        starts = ((0.8, -0.3, 0.0, 0.2), (-1.0, 1.0, 0.0, 0.0))
        settings = replace(SETTINGS, optimizer="gauss-newton", more_starts=starts)
        search = run(settings)
        begun = min(search.history[1:4], key=lambda item: item.loss)
        assert begun.weights == starts[0]
        assert search.history[4].weights == begun.weights

    def test_weights_at_the_bound_are_moved_inwards(self) -> None:
        start = (1.5, 0.0, 1.4, 0.0)
        search = run(replace(self.BLOCKS, start=start))
        assert all(abs(w) <= 1.5 for item in search.history for w in item.weights)
        assert search.history[3].weights == pytest.approx((1.3, 0.0, 1.2, 0.0))


class TestDuel:
    MEANS = ((0.5, 0.5, 0.0, 0.0), (0.25,) * 4)
    SETTINGS = replace(
        SETTINGS, optimizer="duel", more_starts=MEANS, prior_is_start=True, l1_penalty=0.0
    )

    def held_near(self, search: WeightSearch) -> np.ndarray | None:
        """Tell which start the last evaluation was held near, by its penalty; None: near none."""
        last = search.history[-1]
        penalty = last.loss - last.fit_loss
        for start in self.MEANS:
            if penalty == pytest.approx(0.05 * np.square(np.subtract(last.weights, start)).sum()):
                return np.array(start)
        assert penalty == 0
        return None

    def test_a_round_from_the_best_mean_comes_before_greedy_steps(self) -> None:
        history = run(self.SETTINGS).history
        weights = np.array([item.weights for item in history])
        assert weights[1:4] == pytest.approx(np.array([SETTINGS.start, *self.MEANS]))
        best = min(history[2:4], key=lambda item: item.loss)
        assert history[4].weights == best.weights
        assert weights[5:9] == pytest.approx(best.weights + 0.2 * np.eye(4))
        assert weights[11:15].clip(-1.5, 1.5) == pytest.approx(SETTINGS.start + 0.5 * np.eye(4))

    def test_greedy_steps_win_where_the_best_adapter_is_far_ahead(self) -> None:
        objective = Softmax()
        objective.wanted = objective._logits(np.array([[3.0, 0.0, -1.0, 0.0]]))[0].argmax(dim=-1)
        assert self.held_near(run(self.SETTINGS, objective)) is None

    def test_the_mean_wins_where_adapters_add_up(self) -> None:
        objective = Softmax()
        objective.wanted = objective._logits(np.full((1, 4), 2.0))[0].argmax(dim=-1)
        assert self.held_near(run(self.SETTINGS, objective)) is not None

    @pytest.mark.parametrize("budget", [1, 2, 3, 6, 9, 12, 20, 30])
    def test_small_budgets_are_kept(self, budget: int) -> None:
        search = run(replace(self.SETTINGS, budget=budget))
        assert 1 <= len(search.history) - 1 <= budget
        assert search.best.loss <= search.history[1].loss

    def test_alone_it_is_greedy_and_then_gauss_newton(self) -> None:
        plain = replace(SETTINGS, optimizer="greedy+gn")
        assert run(replace(plain, optimizer="duel")).history == run(plain).history


def test_a_budget_of_none_is_refused() -> None:
    with pytest.raises(SearchError, match="at least 1"):
        run(replace(SETTINGS, budget=0))


@pytest.mark.parametrize(
    "optimizer", ["duel", "gauss-newton", "greedy", "greedy+gn", "NGOpt", "CMA"]
)
def test_a_stopped_search_resumes_to_the_same_result(optimizer: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, optimizer=optimizer)
    undisturbed = run(settings)
    path = tmp_path / "deep" / "checkpoint.json"
    budget = iter([False] * 4)
    with pytest.raises(Stopped):
        run(settings, checkpoint=path, should_stop=lambda: next(budget, True))
    stored = len(json.loads(path.read_text())["evaluations"])
    assert 0 < stored < 41
    objective = Softmax()
    resumed = run(settings, objective, checkpoint=path)
    assert resumed.history == undisturbed.history
    assert objective.calls < 41 - stored + 1


def test_a_stop_is_heard_before_the_next_population() -> None:
    objective = Softmax()
    search = WeightSearch(objective, 4, SETTINGS, should_stop=lambda: objective.calls >= 3)
    with pytest.raises(Stopped):
        for _ in search.evaluations():
            pass
    assert objective.calls == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": "other", "evaluations": []}'])
def test_a_torn_or_foreign_checkpoint_is_ignored(content: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    path.write_text(content)
    assert run(SETTINGS, checkpoint=path).history == run(SETTINGS).history


def test_another_task_does_not_resume(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    run(SETTINGS, checkpoint=path, fingerprint="one")
    objective = Softmax()
    run(SETTINGS, objective, checkpoint=path, fingerprint="two")
    assert objective.calls > 0


def test_stored_weights_that_do_not_fit_are_searched_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.json"
    run(SETTINGS, checkpoint=path)
    data = json.loads(path.read_text())
    data["evaluations"][2]["weights"] = [9.0] * 4
    path.write_text(json.dumps(data))
    assert run(SETTINGS, checkpoint=path).history == run(SETTINGS).history


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFull, match="cannot be written"):
        run(SETTINGS, checkpoint=tmp_path / "file" / "checkpoint.json")


class Explodes(Softmax):
    """Any weight above 1.2 gives no number."""

    def losses(self, weights: FloatArray) -> FloatArray:
        losses = super().losses(weights)
        losses[(weights > 1.2).any(axis=1)] = np.nan
        losses[(weights < -1.2).any(axis=1)] = np.inf
        return losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_losses_that_are_no_numbers_are_never_chosen(optimizer: str) -> None:
    search = run(replace(SETTINGS, optimizer=optimizer), Explodes())
    assert all(np.isfinite(item.loss) for item in search.history)
    assert max(map(abs, search.best.weights)) <= 1.2


class Broken(Softmax):
    def losses(self, weights: FloatArray) -> FloatArray:
        return np.full(len(weights), np.nan)


def test_nothing_but_broken_losses_is_an_error() -> None:
    with pytest.raises(SearchError, match="loss that is a number"):
        run(SETTINGS, Broken())


def test_the_first_of_equals_is_the_best() -> None:
    search = WeightSearch(Softmax(), 1, SETTINGS)
    search.history = [Evaluation(i, (float(i),), 1.0, 1.0) for i in range(3)]
    assert search.best.number == 0


def test_names_of_optimizers() -> None:
    assert {"greedy", "greedy+gn", "NGOpt", "CMA"} <= set(optimizer_names())
    require_optimizer("greedy")
    with pytest.raises(SearchError, match="no optimiser called 'Oracle'"):
        require_optimizer("Oracle")


@pytest.mark.parametrize("optimizer", ["CMA", "DE", "PSO"])
def test_workers_are_asked_for_in_batches(optimizer: str) -> None:
    objective = Softmax()
    settings = replace(SETTINGS, optimizer=optimizer, num_workers=8)
    search = run(settings, objective)
    assert len(search.history) == 41
    assert objective.calls == 1 + 5  # the base, then five populations of eight
    assert run(settings).history == search.history


def test_an_optimizer_that_breaks_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_args: object) -> None:
        raise TypeError("only 0-dimensional arrays")

    for method in ("ask", "tell"):
        with monkeypatch.context() as patch:
            patch.setattr(f"nevergrad.optimization.base.Optimizer.{method}", break_down)
            with pytest.raises(SearchError, match="DE broke down"):
                run(replace(SETTINGS, optimizer="DE"))


def test_workers_beyond_the_budget_are_not_asked_for() -> None:
    search = run(replace(SETTINGS, optimizer="DE", budget=11, num_workers=8))
    assert len(search.history) == 12


def test_an_optimizer_that_works_alone_is_asked_one_by_one() -> None:
    objective = Softmax()
    search = run(replace(SETTINGS, optimizer="Cobyla", budget=6, num_workers=4), objective)
    assert len(search.history) == objective.calls == 7


DROPPED = """
import numpy as np
from composer.search import SearchSettings, WeightSearch

class Bowl:
    def losses(self, weights):
        return np.square(weights - 0.3).sum(axis=1)

search = WeightSearch(Bowl(), 4, SearchSettings({optimizer!r}, budget=40, seed=1))
evaluations = search.evaluations()
for _ in range(5):
    next(evaluations)
kept = evaluations  # still referred to when the interpreter ends
print("half-way", flush=True)
{ending}
"""


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "evaluations.close()"])
@pytest.mark.parametrize("optimizer", ["NGOpt", "Cobyla"])
def test_a_search_dropped_half_way_lets_the_process_end(optimizer: str, ending: str) -> None:
    program = DROPPED.format(optimizer=optimizer, ending=ending)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "half-way"), done.stderr


def test_a_closed_search_leaves_no_thread() -> None:
    before = threading.active_count()
    evaluations = WeightSearch(Softmax(), 4, replace(SETTINGS, optimizer="Cobyla")).evaluations()
    for _ in range(4):
        next(evaluations)
    evaluations.close()
    for thread in threading.enumerate():
        if type(thread).__name__ == "_MessagingThread":
            thread.join(20)
    assert threading.active_count() == before
