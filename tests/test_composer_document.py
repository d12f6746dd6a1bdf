"""What docs/composer.md says of defaults, options and names is true."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from composer import ComposeRequest
from composer.commands.arguments import parse_arguments
from composer.search import require_optimizer

PROJECT = Path(__file__).resolve().parent.parent
PAGE = (PROJECT / "docs" / "composer.md").read_text(encoding="utf-8")
COMMANDS = re.search(r"```console\n(.*?)```", PAGE, re.DOTALL)


def _commands() -> list[list[str]]:
    assert COMMANDS is not None
    text = COMMANDS[1].replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines()]


def test_it_works() -> None:
    assert len(_commands()) == 5
    for name in re.findall(r"\((images/[^)]+)\)", PAGE):
        assert (PROJECT / "docs" / name).is_file(), name


@pytest.mark.parametrize("command", _commands(), ids=lambda words: words[3])
def test_commands_are_understood_and_their_files_exist(command: list[str]) -> None:
    assert command[:3] == ["python", "-m", "composer"]
    parse_arguments(command[3:])
    assert all((PROJECT / word).exists() for word in command if word.startswith("marketplace/"))


def test_the_defaults_are_those_of_a_request_and_of_the_command_line() -> None:
    section = PAGE.partition("## The defaults, and why")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
    defaults = {field.name: field.default for field in dataclasses.fields(ComposeRequest)}
    assert len(told) >= 10
    assert told == {name: str(defaults[name]) for name in told}
    words = "compose --adapters a --base b --examples c --out d"
    line = vars(parse_arguments(shlex.split(words)))
    names = {"merge_method": "method", "n_candidates": "candidates"}
    for name, value in told.items():
        if name != "optimizer":  # None there: the library's
            assert str(line[names.get(name, name)]) == value, name


def test_the_optimizers_exist() -> None:
    section = PAGE.partition("## Searching")[2].partition("\n## ")[0]
    names = re.findall(r"`([\w+-]+)`", section.partition("| `gradient`")[0].partition("|---")[2])
    assert {"greedy+gn", "gauss-newton", "NGOpt"} <= set(names)
    for name in names:
        require_optimizer(name)


def test_the_python_of_the_page_compiles() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "docs/composer.md", "exec")
