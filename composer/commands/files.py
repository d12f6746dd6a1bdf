"""Read what the arguments name: adapter folders and files of examples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from composer.errors import InvalidAdapter, InvalidExamples, Problem
from composer.examples import Example, parse_examples

CONFIG_NAME = "adapter_config.json"


def find_adapters(folders: Iterable[Path]) -> dict[str, Path]:
    """Return adapter folders by name; a folder of adapter folders stands for all of them.

    Raises:
        InvalidAdapter: naming each folder that holds no adapter and each name that occurs twice.
    """
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for folder in folders:
        inside = _adapters_in(folder)
        if not inside:
            message = f"holds no {CONFIG_NAME}."
            problems.append(Problem(str(folder), "", message, "Name a folder that peft saved."))
        for path in inside:
            if path.name in found:
                message = f"has the same name as {found[path.name]}."
                problems.append(Problem(str(path), "", message, "Rename one of them."))
            found[path.name] = path
    if problems:
        raise InvalidAdapter(problems)
    return found


def read_examples(path: Path) -> tuple[Example, ...]:
    """Read a file of examples.

    Raises:
        InvalidExamples: if it is no UTF-8 text, or with every line that is wrong.
    """
    try:
        return parse_examples(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        problem = Problem(path.name, "", "is not UTF-8 text.", "Save it as UTF-8.")
        raise InvalidExamples(problem) from error


def _adapters_in(folder: Path) -> list[Path]:
    folder = folder.resolve()
    if (folder / CONFIG_NAME).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_NAME}"))
