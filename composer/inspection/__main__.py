"""Inspect a folder in a process of its own: `python -m composer.inspection FOLDER`.

Prints {"summary": ...} and exits with 0, or {"problems": [...]} and exits with 1. The caller limits
time, memory and network; this process reads the folder and writes nothing but, when asked to, the
converted weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from composer.errors import InvalidAdapter
from composer.inspection import Inspection, ModuleTable, inspect_adapter
from composer.pickle_reader import PICKLE_NAME, convert_pickle
from composer.safetensors_header import WEIGHTS_NAME
from composer.strict_json import parse_json


def main(arguments: list[str] | None = None) -> int:
    """Run one inspection and print its outcome as JSON."""
    options = _parser().parse_args(arguments)
    try:
        if options.convert:
            _convert(options.folder)
        table = None if options.table is None else _read_table(options.table)
        summary = inspect_adapter(options.folder, table, base_name=options.base)
    except InvalidAdapter as error:
        outcome = Inspection(None, error.problems)
    else:
        outcome = Inspection(summary)
    json.dump(outcome.to_dict(), sys.stdout)
    return 0 if outcome.summary is not None else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m composer.inspection", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the adapter's two files")
    parser.add_argument("--table", type=Path, help='the base\'s module table, {"path": [in, out]}')
    parser.add_argument("--base", help="what messages and the rebuilt config call the base")
    parser.add_argument(
        "--convert",
        action="store_true",
        help=f"turn {PICKLE_NAME} into {WEIGHTS_NAME} first, if there is only the former",
    )
    return parser


def _convert(folder: Path) -> None:
    source, target = folder / PICKLE_NAME, folder / WEIGHTS_NAME
    if source.is_file() and not target.exists():
        convert_pickle(source, target)


def _read_table(path: Path) -> ModuleTable:
    table = parse_json(path.read_bytes())
    if not isinstance(table, dict):
        message = f"{path} does not hold a module table"
        raise TypeError(message)
    return {name: (int(sizes[0]), int(sizes[1])) for name, sizes in table.items()}


if __name__ == "__main__":
    sys.exit(main())
