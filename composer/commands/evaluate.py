"""`evaluate`: score adapters beside their base on rows, without any search."""

from __future__ import annotations

import argparse

import numpy as np
from rich.table import Column, Table

from composer.adapter import LoraAdapter
from composer.base_model import load_base
from composer.commands.compose import source_of
from composer.commands.files import find_adapters, read_examples
from composer.commands.output import Output
from composer.report import MethodResult, Score, choose_metric, score_rows
from composer.scoring import Scorer, answer_rows, encode_examples
from composer.stacking import AdapterStack


def run(args: argparse.Namespace, output: Output) -> int:
    """Print score, interval and loss of the base and of every adapter."""
    examples = read_examples(args.examples)
    base = load_base(source_of(args), dtype=args.dtype, device=args.device)
    adapters = [
        LoraAdapter.load(path, base.module_table, name=name)
        for name, path in find_adapters(args.adapters).items()
    ]
    encoded = encode_examples(base, examples, args.prompt_format)
    metric = choose_metric(examples) if args.metric == "auto" else args.metric
    vectors = np.vstack([np.zeros(len(adapters)), np.eye(len(adapters))])
    scores: dict[str, Score] = {}
    with AdapterStack(base, adapters) as stack:
        losses = Scorer(base, encoded).losses(stack, vectors)
        for i, name in enumerate(["base", *(adapter.name for adapter in adapters)]):
            answers = answer_rows(
                base,
                stack,
                [row.prompt for row in encoded],
                np.tile(vectors[i], (len(encoded), 1)),
                max_new_tokens=args.max_new_tokens,
            )
            result = MethodResult(tuple(answers), tuple(map(float, losses[i])))
            scores[name] = score_rows(examples, result, metric, exact_case=args.exact_case)
    output.show(_data(scores, metric), _table(scores, metric))
    return 0


def _data(scores: dict[str, Score], metric: str) -> dict[str, object]:
    rows = {
        name: {
            "n": score.n,
            "correct": score.correct,
            "score": score.score,
            "interval": list(score.interval),
            "loss": score.loss,
            "loss_interval": score.loss_interval and list(score.loss_interval),
            "exact": score.exact,
            "rouge_l": score.rouge_l,
        }
        for name, score in scores.items()
    }
    return {"metric": metric, "scores": rows}


def _table(scores: dict[str, Score], metric: str) -> Table:
    figures = (Column(title, no_wrap=True) for title in (metric, "95 % interval", "loss"))
    table = Table(Column("method", overflow="fold"), *figures)
    for name, score in scores.items():
        figure = f"{score.score:.3f}" if score.correct is None else f"{score.correct}/{score.n}"
        low, high = score.interval
        loss = "" if score.loss is None else f"{score.loss:.3f}"
        table.add_row(name, figure, f"{low:.2f} to {high:.2f}", loss)
    return table
