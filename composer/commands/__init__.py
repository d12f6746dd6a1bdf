"""The command line, one file a command; `arguments` is light, the others load what they need.

Each command module has `run(args, output) -> exit code` and is imported only when it is called, so
that `--help` and `inspect` do not wait for torch.
"""

from __future__ import annotations
