"""One case of the quality benchmark: a target, a number of rows and a seed, under every method.

`run_cases` is what a child process runs; every method goes through the composer's own steps, so a
score here is the score of what `compose` would write. Means, goals and time are left to `quality`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.zoo import BASE, Target, TestRows, Zoo, read_zoo
from composer.adapter import LoraAdapter
from composer.base_model import BaseModelCache, LoadedBase
from composer.composing.finishing import merge_found
from composer.composing.preparing import Work, fit_scorer
from composer.composing.request import ComposeRequest
from composer.composing.searching import Found, find_weights
from composer.composing.training import add_quick_lora
from composer.examples import ExampleSplit
from composer.merging import merge_adapters
from composer.progress import ignore, never
from composer.selection import keep_best, preselect, score_alone

# LoraHub draws its candidates: 20 of 196 there, 12 of 31 here, as in the first prototype.
LORAHUB_CANDIDATES = 12
DEFAULT = ComposeRequest(BASE, (), (), Path())

LORAHUB = "lorahub, random candidates"
PROMPTING = "prompting"
QUICK_ALONE = "quick LoRA alone"
ZERO_SHOT = "zero-shot"
DEFAULT_METHOD = "default"
WITH_LORA = "default with quick LoRA"

# What is searched, beside the default; all but lorahub on the screened candidates.
SEARCHES: dict[str, dict[str, Any]] = {
    DEFAULT_METHOD: {},
    LORAHUB: {
        "selection": "random",
        "n_candidates": LORAHUB_CANDIDATES,
        "optimizer": "NGOpt",
        "merge_method": "factor",
        "budget": 40,
    },
    "screened, NGOpt": {"optimizer": "NGOpt", "budget": 40},
    "screened, greedy": {"optimizer": "greedy", "budget": 40},
    "screened, greedy+gn": {"optimizer": "greedy+gn", "budget": 40},
    "screened, gauss-newton": {"optimizer": "gauss-newton", "budget": 40},
    "gauss-newton from the mean": {
        "optimizer": "gauss-newton",
        "prior": "mean",
        "weight_blocks": 1,
        "budget": 55,
    },
    "gradient on the weights": {"optimizer": "gradient", "budget": 60},
}
# Left out where time is short: they take longest and are no default.
SLOW = ("gradient on the weights",)
# What `--brief` runs: the searches that the goals speak of, and the nearest rival of the default.
BRIEF = (DEFAULT_METHOD, LORAHUB, "screened, greedy+gn")

Row = dict[str, Any]


class Bench:
    """The base in memory, the whole pool, and how many test rows are answered."""

    def __init__(self, zoo: Zoo, test_rows: int | None) -> None:
        self.zoo = zoo
        self.test_rows = test_rows
        self.cache = BaseModelCache()
        self.base: LoadedBase = self.cache.load(BASE)
        self.adapters = [
            LoraAdapter.load(item.folder, self.base.module_table, name=item.name)
            for item in zoo.pool
        ]


class Case:
    """A target with its fit rows and test rows, the base and the pool in memory."""

    def __init__(self, bench: Bench, target: Target, n_rows: int, seed: int) -> None:
        self.bench = bench
        self.target = target
        self.fit = target.draw(n_rows, seed)
        self.test = TestRows(bench.base, target, bench.test_rows)
        self.n_rows, self.seed = n_rows, seed
        self.rows: list[Row] = []

    def run(self, searches: Sequence[str]) -> list[Row]:
        """Score every method; screening is done once and counted for each that needs it."""
        bench = self.bench
        self.add(ZERO_SHOT, lambda: None)
        self._add_prompting()
        everyone = bench.adapters
        self.add("uniform mean of all", lambda: _mean(everyone))
        work = self.work({})
        began = time.perf_counter()
        alone = score_alone(bench.base, everyone, fit_scorer(work, bench.base))
        screening = (time.perf_counter() - began, len(everyone))
        candidates = keep_best(everyone, alone, DEFAULT.n_candidates)
        self.add("best single", lambda: candidates[0], before=screening)
        self.add("mean of the screened", lambda: _mean(candidates), before=screening)
        for name in searches:
            self._add_search(name, candidates, alone, screening)
        self._add_quick(candidates, alone, screening)
        return self.rows

    def work(self, changes: dict[str, Any]) -> Work:
        """Return the work of a request with these changes to the defaults."""
        settings = {"seed": 42 + self.seed, "base_cache": self.bench.cache, **changes}
        request = ComposeRequest(BASE, self.bench.zoo.pool, self.fit, Path(), **settings)
        places = tuple(range(len(self.fit)))
        return Work(request, ExampleSplit(self.fit, (), places, ()), ignore, never)

    def add(
        self,
        method: str,
        make: Callable[[], LoraAdapter | None],
        *,
        before: tuple[float, int] = (0.0, 0),
        evaluations: int = 0,
    ) -> None:
        """Make an adapter and score it; `before` are seconds and evaluations spent already."""
        began = time.perf_counter()
        adapter = make()
        seconds = time.perf_counter() - began + before[0]
        score, loss = self.test.score(adapter)
        self._note(method, score, loss, seconds, before[1] + evaluations)

    def _note(self, method: str, score: float, loss: float, seconds: float, spent: int) -> None:
        self.rows.append(
            {
                "target": self.target.name,
                "half": self.target.half,
                "rows": self.n_rows,
                "seed": self.seed,
                "method": method,
                "score": score,
                "loss": loss,
                "seconds": seconds,
                "evaluations": spent,
            }
        )

    def _add_prompting(self) -> None:
        began = time.perf_counter()
        score, loss = self.test.score_prompting(self.fit)
        self._note(PROMPTING, score, loss, time.perf_counter() - began, 0)

    def _add_search(
        self,
        name: str,
        screened: list[LoraAdapter],
        alone: dict[str, float],
        screening: tuple[float, int],
    ) -> None:
        work = self.work(SEARCHES[name])
        candidates, before = screened, screening
        if work.request.selection == "random":
            chosen = preselect(
                self.bench.zoo.pool,
                self.fit,
                "random",
                n_candidates=work.request.n_candidates,
                seed=work.request.seed,
            )
            names = {member.name for member in chosen}
            candidates = [item for item in self.bench.adapters if item.name in names]
            before = (0.0, 0)
        found: list[Found] = []

        def make() -> LoraAdapter:
            found.append(find_weights(work, self.bench.base, candidates, alone))
            return merge_found(work, candidates, found[0]).adapter

        self.add(name, make, before=before)
        self.rows[-1]["evaluations"] += found[0].n_evaluations

    def _add_quick(
        self,
        candidates: list[LoraAdapter],
        alone: dict[str, float],
        screening: tuple[float, int],
    ) -> None:
        """Score the LoRA that is trained alone, and another one on top of the default search."""
        work, base = self.work({"quick_lora": True}), self.bench.base
        began = time.perf_counter()
        found = find_weights(work, base, candidates, alone)
        searched = time.perf_counter() - began
        quick, found = add_quick_lora(work, base, candidates, found)
        # The two LoRAs take equally many steps; each method needs one of them.
        trained = (time.perf_counter() - began - searched) / 2
        self.add(QUICK_ALONE, lambda: quick.alone, before=(trained, 0))
        merged = merge_found(work, [*candidates, quick.adapter], found).adapter
        before = (screening[0] + searched + trained, screening[1])
        self.add(WITH_LORA, lambda: merged, before=before, evaluations=found.n_evaluations)


def run_cases(
    zoo: str | None,
    targets: Sequence[str],
    n_rows: int,
    seed: int,
    test_rows: int | None,
    searches: Sequence[str],
) -> dict[str, Any]:
    """Run these targets in this process, on one core; return `rows` and the seconds of each."""
    torch.set_num_threads(1)
    chosen = read_zoo(Path(zoo) if zoo else None).only(targets)
    bench = Bench(chosen, test_rows)
    rows: list[Row] = []
    for target in chosen.targets:
        rows += Case(bench, target, n_rows, seed).run(searches)
    return {"rows": rows}


def time_search(zoo: str | None, targets: Sequence[str], n_rows: int) -> dict[str, Any]:
    """Return the seconds of screening and the default search, on all cores, by target."""
    chosen = read_zoo(Path(zoo) if zoo else None).only(targets)
    bench = Bench(chosen, 1)
    seconds = []
    for target in chosen.targets:
        case = Case(bench, target, n_rows, 0)
        work = case.work({})
        began = time.perf_counter()
        alone = score_alone(bench.base, bench.adapters, fit_scorer(work, bench.base))
        candidates = keep_best(bench.adapters, alone, DEFAULT.n_candidates)
        find_weights(work, bench.base, candidates, alone)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "pool": len(bench.adapters)}


def _mean(adapters: Sequence[LoraAdapter]) -> LoraAdapter:
    return merge_adapters(adapters, [1 / len(adapters)] * len(adapters), "concat").adapter
