"""Compose LoRA adapters for a new task from a handful of examples, without gradients.

This is the table of contents: every public name below is loaded from its own module when it is
first used, so `import composer` costs nothing and the light half never loads torch.

    from composer import BaseModelSource, ComposeRequest, Example, PoolMember, compose
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from composer.extras import explain_missing

if TYPE_CHECKING:
    from composer.adapter import LoraAdapter
    from composer.base_model import (
        BaseModelCache,
        BaseModelSource,
        compute_module_table,
        load_base,
    )
    from composer.compatibility import Compatibility, check_compatibility
    from composer.composing import ComposeRequest, Composition, PoolMember, compose
    from composer.errors import (
        BaseModelError,
        ComposerError,
        IncompatibleAdapters,
        InsufficientMemory,
        InvalidAdapter,
        InvalidExamples,
        Problem,
        SearchError,
        Stopped,
        StorageFull,
    )
    from composer.examples import Example, ExampleSplit, parse_examples, split_examples
    from composer.inspection import AdapterSummary, inspect_adapter
    from composer.limits import Limits
    from composer.lorahub import lorahub_inference, lorahub_learning
    from composer.pickle_reader import convert_pickle

__version__ = "0.1.0"
__all__ = [
    "AdapterSummary",
    "BaseModelCache",
    "BaseModelError",
    "BaseModelSource",
    "Compatibility",
    "ComposeRequest",
    "ComposerError",
    "Composition",
    "Example",
    "ExampleSplit",
    "IncompatibleAdapters",
    "InsufficientMemory",
    "InvalidAdapter",
    "InvalidExamples",
    "Limits",
    "LoraAdapter",
    "PoolMember",
    "Problem",
    "SearchError",
    "Stopped",
    "StorageFull",
    "check_compatibility",
    "compose",
    "compute_module_table",
    "convert_pickle",
    "inspect_adapter",
    "load_base",
    "lorahub_inference",
    "lorahub_learning",
    "parse_examples",
    "split_examples",
]

_NAMES_BY_MODULE = {
    # The light half: no torch.
    "errors": "BaseModelError ComposerError IncompatibleAdapters InsufficientMemory InvalidAdapter "
    "InvalidExamples Problem SearchError Stopped StorageFull",
    "limits": "Limits",
    "examples": "Example ExampleSplit parse_examples split_examples",
    "pickle_reader": "convert_pickle",
    "inspection": "AdapterSummary inspect_adapter",
    "compatibility": "Compatibility check_compatibility",
    # The heavy half: torch, transformers, nevergrad.
    "base_model": "BaseModelCache BaseModelSource compute_module_table load_base",
    "adapter": "LoraAdapter",
    "composing": "ComposeRequest Composition PoolMember compose",
    "lorahub": "lorahub_inference lorahub_learning",
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    except ModuleNotFoundError as error:
        raise ImportError(explain_missing(error) or str(error)) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
