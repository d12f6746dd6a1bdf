"""`merge`: merge adapters with weights of your own, by our formulas or one of peft's."""

from __future__ import annotations

import argparse

from composer.adapter import LoraAdapter
from composer.base_model import compute_module_table, load_base, parse_source
from composer.commands.files import find_adapters
from composer.commands.output import Output
from composer.compatibility import check_compatibility
from composer.errors import IncompatibleAdapters, SearchError
from composer.inspection import inspect_adapter
from composer.merging import Merged, merge_adapters
from composer.peft_merging import merge_with_peft
from composer.writing import beside, room


def run(args: argparse.Namespace, output: Output) -> int:
    """Merge and write one adapter folder."""
    folders = find_adapters(args.adapters)
    if len(folders) != len(args.weights):
        message = f"There are {len(folders)} adapters and {len(args.weights)} weights."
        raise SearchError(f"{message} Give one weight an adapter, in the same order.")
    table = compute_module_table(parse_source(args.base)) if args.base else {}
    summaries = {name: inspect_adapter(path, table or None) for name, path in folders.items()}
    if args.combination is None:
        check_compatibility(summaries).require(args.method)
    adapters = [
        LoraAdapter.load(path, name=name, summary=summaries[name]) for name, path in folders.items()
    ]
    merged = _merge(args, adapters)
    with room(), beside(args.out) as folder:
        merged.adapter.save(folder, table)
        summary = inspect_adapter(folder, table or None)
    data = {"folder": str(args.out), "svd_error": merged.svd_error, "summary": summary.to_dict()}
    error = "" if merged.svd_error is None else f" Relative error {merged.svd_error:.4f}."
    output.show(data, f"Written to {args.out}, rank {summary.rank}.{error}")
    return 0


def _merge(args: argparse.Namespace, adapters: list[LoraAdapter]) -> Merged:
    if args.combination is None:
        return merge_adapters(adapters, args.weights, args.method, svd_rank=args.svd_rank)
    if not args.base:
        message = f"peft's {args.combination} works on the base model: name it with --base."
        raise IncompatibleAdapters(message)
    base = load_base(parse_source(args.base), dtype="float32", device="cpu")
    merged = merge_with_peft(
        base,
        adapters,
        args.weights,
        args.combination,
        options={"svd_rank": args.svd_rank, "density": args.density},
        seed=args.seed,
    )
    return Merged(merged)
