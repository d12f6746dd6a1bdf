"""The worker's side of base models: everything that needs the heavy half of composer.

Imported only inside task bodies and management commands, never by the web process.
"""

from __future__ import annotations

from typing import cast

from django.conf import settings

from composer.base_model import BaseModelSource, SourceKind, describe_base
from composer.errors import BaseModelError
from marketplace.catalogue.models import BaseModel


def fill_module_table(base_model: BaseModel) -> BaseModel:
    """Read the base's layers, architecture and size from its configuration and store them.

    A base that cannot be read becomes `failed`, with the reason for the administrator.
    """
    source = BaseModelSource(
        kind=cast("SourceKind", base_model.source_kind),
        location=base_model.location,
        revision=base_model.revision,
        file=base_model.file,
        name=base_model.name,
    )
    try:
        described = describe_base(source, cache_dir=settings.BASE_MODELS_DIR)
    except BaseModelError as error:
        base_model.state, base_model.error = BaseModel.State.FAILED, str(error)
        base_model.save(update_fields=["state", "error"])
        return base_model
    base_model.module_table = {path: list(shape) for path, shape in described.module_table.items()}
    base_model.architecture = described.architecture
    base_model.is_seq2seq = described.is_seq2seq
    base_model.parameter_count = described.parameter_count
    base_model.state, base_model.error = BaseModel.State.READY, ""
    base_model.save()
    return base_model
