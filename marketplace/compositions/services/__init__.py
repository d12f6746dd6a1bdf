"""Every write of composition jobs that a user asks for; what a worker writes is in `runner`."""

from __future__ import annotations

from marketplace.compositions.services.controlling import (
    cancel_composition,
    clone_composition,
    forget_examples,
    make_clone_request,
    retry_composition,
)
from marketplace.compositions.services.errors import CompositionError
from marketplace.compositions.services.publishing import (
    PublishRequest,
    derive_terms,
    prefill_publication,
    publish_composition,
)
from marketplace.compositions.services.starting import (
    CheckedRequest,
    CompositionRequest,
    check_composition,
    compare,
    compatible_pool,
    start_composition,
)

__all__ = [
    "CheckedRequest",
    "CompositionError",
    "CompositionRequest",
    "PublishRequest",
    "cancel_composition",
    "check_composition",
    "clone_composition",
    "compare",
    "compatible_pool",
    "derive_terms",
    "forget_examples",
    "make_clone_request",
    "prefill_publication",
    "publish_composition",
    "retry_composition",
    "start_composition",
]
