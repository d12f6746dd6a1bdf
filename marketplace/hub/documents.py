"""An adapter as the clients read a model: ids, tags, card data and configuration.

What is said of the files is derived from them, never from the card, which `push_to_hub` overwrites
with a generic one. The tags here and the filters of `filters` are two sides of one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from marketplace.catalogue.licences import HUB_NAMES
from marketplace.catalogue.models import Adapter, BaseModel, Revision, RevisionFile
from marketplace.hub.entries import sibling
from marketplace.hub.timestamps import utc

LIBRARY = "peft"
# Every accepted revision is a LoRA of peft in one safetensors file.
FORMAT_TAGS = (LIBRARY, "lora", "safetensors")
TEXT_GENERATION, TEXT_TO_TEXT = "text-generation", "text2text-generation"
_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?\Z")
_LICENCE_NAMES = {licence: name for name, licence in reversed(HUB_NAMES.items())}


@dataclass(frozen=True)
class Model:
    """An adapter at one revision, with what its document needs of the files."""

    adapter: Adapter
    revision: Revision | None
    tags: Sequence[str]  # the owner's
    task_type: str | None = None
    named_base: str | None = None  # as adapter_config.json has it
    files: Sequence[RevisionFile] | None = None
    with_sizes: bool = False


def make_document(model: Model, fields: Collection[str]) -> dict[str, Any]:
    """Return the document with these of its fields; `id` is always there."""
    full_name = model.adapter.full_name
    document: dict[str, Any] = {"_id": f"{model.adapter.pk:024x}", "id": full_name}
    document["modelId"] = full_name
    for name, produce in _FIELDS.items():
        if name in fields and (value := produce(model)) is not None:
            document[name] = value
    return document


def licence_name(licence: str) -> str:
    """Return what hub cards call a licence."""
    return _LICENCE_NAMES.get(licence, licence.lower())


def pipeline_tag(base: BaseModel | None) -> str | None:
    """Return what models of this kind are for, in the hub's words."""
    if base is None:
        return None
    return TEXT_TO_TEXT if base.is_seq2seq else TEXT_GENERATION


def list_tags(model: Model) -> list[str]:
    """Derive the tags: from the files, then from what the owner says."""
    adapter = model.adapter
    tags: list[str] = []
    if model.revision and model.revision.weights_sha256:
        tags += FORMAT_TAGS
    for base in _base_names(model):
        tags += [f"base_model:{base}", f"base_model:adapter:{base}"]
    purpose = pipeline_tag(adapter.base_model)
    tags += [purpose] if purpose else []
    tags += [f"license:{licence_name(adapter.licence)}"] if adapter.licence else []
    tags += [adapter.language] if adapter.language else []
    return list(dict.fromkeys([*tags, *model.tags]))


def _base_names(model: Model) -> list[str]:
    base = model.adapter.base_model
    names = [base.name] if base else []
    if model.named_base and _REPO_ID.match(model.named_base):
        names.append(model.named_base)
    return list(dict.fromkeys(names))


def _card_data(model: Model) -> dict[str, Any]:
    adapter = model.adapter
    said = {
        "base_model": next(iter(_base_names(model)), ""),
        "library_name": LIBRARY,
        "license": licence_name(adapter.licence),
        "language": [adapter.language] if adapter.language else [],
        "pipeline_tag": pipeline_tag(adapter.base_model),
        "tags": list(model.tags),
    }
    return {name: value for name, value in said.items() if value}


def _config(model: Model) -> dict[str, Any] | None:
    if model.revision is None or not model.revision.weights_sha256:
        return None
    base = model.named_base
    return {"peft": {"base_model_name_or_path": base, "task_type": model.task_type}}


def _safetensors(model: Model) -> dict[str, Any] | None:
    revision = model.revision
    if revision is None or not revision.dtype or revision.parameter_count is None:
        return None
    count = revision.parameter_count
    return {"parameters": {revision.dtype: count}, "total": count}


def _siblings(model: Model) -> list[dict[str, Any]] | None:
    if model.files is None:
        return None
    return [sibling(file, with_sizes=model.with_sizes) for file in model.files]


def _base_models(model: Model) -> dict[str, Any] | None:
    base = model.adapter.base_model
    return {"relation": "adapter", "models": [{"id": base.name}]} if base else None


def _gated(model: Model) -> bool | str:
    return model.adapter.gated if model.adapter.is_gated else False


_FIELDS: dict[str, Callable[[Model], Any]] = {
    "author": lambda model: model.adapter.full_name.partition("/")[0],
    "sha": lambda model: model.revision.oid if model.revision else None,
    "lastModified": lambda model: utc(model.adapter.updated_at),
    "createdAt": lambda model: utc(model.adapter.created_at),
    "private": lambda model: model.adapter.visibility == Adapter.Visibility.PRIVATE,
    "gated": _gated,
    "disabled": lambda _: False,
    "downloads": lambda model: model.adapter.downloads,
    "downloadsAllTime": lambda model: model.adapter.downloads,
    "likes": lambda model: model.adapter.likes,
    "library_name": lambda _: LIBRARY,
    "pipeline_tag": lambda model: pipeline_tag(model.adapter.base_model),
    "tags": list_tags,
    "cardData": _card_data,
    "config": _config,
    "safetensors": _safetensors,
    "baseModels": _base_models,
    "siblings": _siblings,
}
FIELDS = frozenset(_FIELDS)
# A list says less of each model than its own page, unless it is asked to.
RARE_FIELDS = frozenset({"downloadsAllTime", "baseModels"})
LISTED_FIELDS = FIELDS - RARE_FIELDS - {"cardData", "config", "safetensors", "siblings"}
