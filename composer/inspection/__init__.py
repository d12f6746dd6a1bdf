"""Inspect a folder that claims to be a LoRA adapter: accept it with its facts or list all problems.

Standard library and google-re2 only: it runs in a child process of the site that must start fast
and has no torch. Reading the two weight formats is left to `composer.safetensors_header` and
`composer.pickle_reader`.
"""

from __future__ import annotations

from composer.inspection.inspecting import inspect_adapter
from composer.inspection.summary import AdapterSummary, Inspection, ModuleTable
from composer.limits import DEFAULT, Limits

__all__ = ["DEFAULT", "AdapterSummary", "Inspection", "Limits", "ModuleTable", "inspect_adapter"]
