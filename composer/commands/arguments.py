"""What the command line accepts; defaults and choices are those of the library."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from composer.compatibility import MERGE_METHODS

SELECTIONS = ("screened", "similar", "random", "all")
OPTIMIZERS = (
    "duel",
    "gauss-newton",
    "greedy+gn",
    "greedy",
    "gradient",
    "NGOpt",
    "CMA",
    "DE",
    "PSO",
    "OnePlusOne",
    "Cobyla",
)
PEFT_COMBINATIONS = (
    "linear",
    "cat",
    "svd",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_ties",
    "dare_linear_svd",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the arguments; a mistake prints how to use the command and exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m composer",
        description="Compose LoRA adapters for a new task from a few examples.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _compose(commands.add_parser("compose", help="search weights and write one adapter"))
    _inspect(commands.add_parser("inspect", help="check adapter folders and say what they are"))
    _merge(commands.add_parser("merge", help="merge adapters with weights of your own"))
    _evaluate(commands.add_parser("evaluate", help="score an adapter beside its base"))
    return parser.parse_args(argv)


def _compose(parser: argparse.ArgumentParser) -> None:
    _adapters(parser)
    _base(parser, required=True)
    _rows(parser)
    parser.add_argument(
        "--held-out", type=Path, metavar="FILE", help="rows to judge on; else rows are split"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder")
    parser.add_argument("--method", choices=MERGE_METHODS, default="concat", help="how to merge")
    parser.add_argument("--selection", choices=SELECTIONS, default="screened")
    parser.add_argument(
        "--similarity", choices=("tfidf", "embedding"), default="tfidf", help="how texts compare"
    )
    parser.add_argument(
        "--embedding-model", default="", metavar="MODEL", help="a folder of one, for embedding"
    )
    parser.add_argument("--candidates", type=int, default=8, metavar="N")
    parser.add_argument(
        "--optimizer",
        metavar="NAME",
        help=f"{', '.join(OPTIMIZERS)} or another of nevergrad's; gradient uses gradients, "
        "all others do not",
    )
    parser.add_argument(
        "--num-workers", type=int, default=1, metavar="N", help="asked of nevergrad at once"
    )
    parser.add_argument(
        "--weight-blocks",
        type=int,
        metavar="N",
        help="a weight for each of N blocks of layers; duel, gauss-newton (there 2), gradient",
    )
    parser.add_argument("--budget", type=int, default=52, metavar="K", help="evaluations")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--n-fit", type=int, metavar="N", help="rows to search on; others judge")
    parser.add_argument("--weight-bound", type=float, default=1.5, metavar="W")
    parser.add_argument("--l1-penalty", type=float, default=0.05, metavar="P")
    parser.add_argument(
        "--prior",
        choices=("auto", "zero", "start", "mean", "softmax"),
        default="auto",
        help="what weights stay near",
    )
    parser.add_argument("--prior-penalty", type=float, default=0.05, metavar="P")
    parser.add_argument("--svd-rank", type=int, metavar="R")
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="NAME=W",
        help="set a weight by hand, no search; repeat for each adapter",
    )
    parser.add_argument(
        "--quick-lora",
        action="store_true",
        help="train a LoRA on the fit rows, with gradients, and let it take part",
    )
    parser.add_argument("--prompting", action="store_true", help="also judge few-shot prompting")
    parser.add_argument(
        "--folds", type=int, default=0, metavar="K", help="cross-validate too: K more searches"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="resume from it if stopped")
    _judging(parser)
    _output(parser)


def _inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapters", nargs="+", type=Path, metavar="FOLDER")
    _base(parser, required=False)
    _output(parser)


def _merge(parser: argparse.ArgumentParser) -> None:
    _adapters(parser)
    _base(parser, required=False)
    parser.add_argument(
        "--weights", nargs="+", type=float, required=True, metavar="W", help="one an adapter"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new folder")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--method", choices=MERGE_METHODS, default="concat")
    chosen.add_argument(
        "--combination", choices=PEFT_COMBINATIONS, help="one of peft's own; needs --base"
    )
    parser.add_argument("--svd-rank", type=int, metavar="R")
    parser.add_argument("--density", type=float, default=0.5, help="kept share (ties, dare, ...)")
    parser.add_argument("--seed", type=int, default=42, help="for the random combinations (dare)")
    _output(parser)


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _adapters(parser)
    _base(parser, required=True)
    _rows(parser)
    _judging(parser)
    _output(parser)


def _adapters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--adapters",
        nargs="+",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="adapter folders, or folders that hold adapter folders",
    )


def _base(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--base",
        required=required,
        metavar="MODEL",
        help="a folder, owner/name[@revision] on a hub, or an installed package with a GGUF",
    )
    parser.add_argument("--base-name", default="", metavar="NAME", help="its name on the card")


def _rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--examples", type=Path, required=True, metavar="FILE", help="JSON Lines, CSV or pairs"
    )
    parser.add_argument("--prompt-format", choices=("plain", "chat"), default="plain")


def _judging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", choices=("auto", "exact_match", "rougeL"), default="auto")
    parser.add_argument("--exact-case", action="store_true", help="upper case matters")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--device", default="auto")


def _output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress")
