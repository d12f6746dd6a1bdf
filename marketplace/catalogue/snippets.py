"""How to use an adapter from the usual tools, with its real ids: text to copy and run.

Everything fetches over the hub's protocol, at the full id of the revision. The address of the site
is given to the one call that fetches the adapter, never to the whole program: its base model lives
on another hub, and so does the token for it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

from marketplace.catalogue.models import Adapter, Revision

CLIENTS = {
    "peft": "peft",
    "transformers": "transformers",
    "vllm": "vLLM",
    "hf": "hf",
    "curl": "curl",
}
FILES = ("adapter_config.json", "adapter_model.safetensors")
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class _Facts:
    address: str
    full_name: str
    name: str
    oid: str
    base: str
    rank: int
    auto_class: str
    needs_token: bool


def needs_token(adapter: Adapter) -> bool:
    """Whether nobody fetches its files without saying who they are."""
    return adapter.visibility == Adapter.Visibility.PRIVATE or adapter.is_gated


def write_snippet(client: str, revision: Revision) -> str:
    """Return the text for one of `CLIENTS`; a token is read from the variable TOKEN."""
    base = revision.base_model
    adapter = revision.adapter
    facts = _Facts(
        address=settings.PUBLIC_URL,
        full_name=adapter.full_name,
        name=adapter.name,
        oid=revision.oid,
        base=base.name if base else "the/base-model",
        rank=revision.rank or _VLLM_RANKS[0],
        auto_class="AutoModelForSeq2SeqLM" if base and base.is_seq2seq else "AutoModelForCausalLM",
        needs_token=needs_token(adapter),
    )
    return _WRITERS[client](facts)


def _fetch(facts: _Facts) -> str:
    """The call that brings the files here and gives their folder."""
    token = '\n    token=os.environ["TOKEN"],' if facts.needs_token else ""
    return (
        f'snapshot_download(\n    "{facts.full_name}",\n    revision="{facts.oid}",\n'
        f'    endpoint="{facts.address}",{token}\n)'
    )


def _imports(facts: _Facts, *lines: str) -> str:
    first = ["import os\n"] if facts.needs_token else []
    return "\n".join([*first, "from huggingface_hub import snapshot_download", *lines])


def _peft(facts: _Facts) -> str:
    imports = _imports(
        facts, "from peft import PeftModel", f"from transformers import {facts.auto_class}"
    )
    return (
        f"{imports}\n\nadapter = {_fetch(facts)}\n"
        f"base = {facts.auto_class}.from_pretrained(\n    {json.dumps(facts.base)}\n)\n"
        "model = PeftModel.from_pretrained(base, adapter)"
    )


def _transformers(facts: _Facts) -> str:
    imports = _imports(facts, f"from transformers import {facts.auto_class}")
    return (
        f"{imports}\n\nadapter = {_fetch(facts)}\n"
        f"model = {facts.auto_class}.from_pretrained(\n    {json.dumps(facts.base)}\n)\n"
        "model.load_adapter(adapter)"
    )


def _vllm(facts: _Facts) -> str:
    return (
        f"ADAPTER=$(python - <<'EOF'\n{_imports(facts)}\nprint({_fetch(facts)})\nEOF\n)\n"
        f"vllm serve {shlex.quote(facts.base)} \\\n"
        f"  --enable-lora --max-lora-rank {_vllm_rank(facts.rank)} \\\n"
        f'  --lora-modules "{facts.name}=$ADAPTER"'
    )


def _vllm_rank(rank: int) -> int:
    """The smallest of vLLM's ranks that holds the adapter."""
    return next((size for size in _VLLM_RANKS if size >= rank), _VLLM_RANKS[-1])


def _hf(facts: _Facts) -> str:
    token = 'HF_TOKEN="$TOKEN" ' if facts.needs_token else ""
    return (
        f"{token}HF_ENDPOINT={facts.address} \\\n  hf download {facts.full_name} \\\n"
        f"  --revision {facts.oid} \\\n  --local-dir {facts.name}"
    )


def _curl(facts: _Facts) -> str:
    token = '\n    -H "Authorization: Bearer $TOKEN" \\' if facts.needs_token else ""
    return (
        f"FROM={facts.address}/{facts.full_name}\n"
        f"AT={facts.oid}\n"
        f"for FILE in {FILES[0]} \\\n    {FILES[1]}; do\n"
        f'  curl -fL --create-dirs \\{token}\n    -o "{facts.name}/$FILE" \\\n'
        '    "$FROM/resolve/$AT/$FILE"\ndone'
    )


_WRITERS: dict[str, Callable[[_Facts], str]] = {
    "peft": _peft,
    "transformers": _transformers,
    "vllm": _vllm,
    "hf": _hf,
    "curl": _curl,
}
