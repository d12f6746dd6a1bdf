"""How the command line speaks: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from composer.errors import ComposerError, InvalidInput


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

    def show(self, data: dict[str, Any], *renderables: object) -> None:
        """Print the result: `data` with --json, else the tables and texts."""
        if self.as_json:
            sys.stdout.write(json.dumps(data, indent=2) + "\n")
            return
        for renderable in renderables:
            self.console.print(renderable, markup=False)

    def show_error(self, error: ComposerError) -> None:
        """Print every reason; with --json also as an object."""
        if self.as_json:
            data: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
            if isinstance(error, InvalidInput):
                data["problems"] = [problem.to_dict() for problem in error.problems]
            sys.stdout.write(json.dumps(data, indent=2) + "\n")
        self.say(str(error))
