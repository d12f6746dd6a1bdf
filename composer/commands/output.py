"""How the command line speaks: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from composer.errors import ComposerError, InvalidInput

LEAST_TEXT = 10  # what a column of texts keeps of a table's width


class Output:
    """Prints results as tables or, on request, as one JSON object."""

    def __init__(self, *, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.console = Console(soft_wrap=True, highlight=False)
        self.progress_console = Console(stderr=True, quiet=quiet, highlight=False)

    def say(self, text: str) -> None:
        """Tell the user something that is no result."""
        Console(stderr=True, soft_wrap=True, highlight=False).print(text, markup=False)

    def show(self, data: dict[str, Any], *renderables: str | Table) -> None:
        """Print the result: `data` with --json, else the tables and texts."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2) + "\n")
            return
        for renderable in renderables:
            if isinstance(renderable, str):
                self.console.print(renderable, markup=False, soft_wrap=True)
            else:
                self._show_whole(renderable)

    def _show_whole(self, table: Table) -> None:
        """Print a table as wide as its figures need, even where the terminal is narrower."""
        figures = [column for column in table.columns if column.no_wrap]
        texts = len(table.columns) - len(figures)
        least = sum(max(map(len, map(str, (c.header, *c.cells)))) for c in figures)
        _, right, _, left = table.padding
        least += texts * LEAST_TEXT + len(table.columns) * (left + right + 1) + 1
        console = Console(width=max(least, self.console.width), highlight=False)
        console.print(table, markup=False)

    def show_error(self, error: ComposerError) -> None:
        """Print every reason; with --json also as an object."""
        if self.as_json:
            data: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
            if isinstance(error, InvalidInput):
                data["problems"] = [problem.to_dict() for problem in error.problems]
            sys.stdout.write(json.dumps(data, indent=2) + "\n")
        self.say(str(error))
