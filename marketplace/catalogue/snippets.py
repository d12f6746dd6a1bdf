"""How to use an adapter from the usual tools, with its real ids: text to copy.

Where the site speaks the hub's protocol the stock clients fetch from it directly; otherwise the
snippets download the zip first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings

from marketplace.catalogue.models import Adapter, Revision

CLIENTS = {
    "peft": "peft",
    "transformers": "transformers",
    "vllm": "vLLM",
    "curl": "curl",
}


@dataclass(frozen=True)
class _Facts:
    address: str
    full_name: str
    name: str
    label: str
    oid: str
    base: str
    rank: int
    auto_class: str
    is_private: bool
    has_hub: bool

    @property
    def zip_address(self) -> str:
        return f"{self.address}/{self.full_name}/zip/{self.label}"


def write_snippet(client: str, revision: Revision, *, has_hub: bool) -> str:
    """Return the text for one of `CLIENTS`."""
    base = revision.base_model
    adapter = revision.adapter
    facts = _Facts(
        address=settings.PUBLIC_URL,
        full_name=adapter.full_name,
        name=adapter.name,
        label=revision.label,
        oid=revision.oid,
        base=base.name if base else "the/base-model",
        rank=revision.rank or 8,
        auto_class="AutoModelForSeq2SeqLM" if base and base.is_seq2seq else "AutoModelForCausalLM",
        is_private=adapter.visibility == Adapter.Visibility.PRIVATE,
        has_hub=has_hub,
    )
    return _WRITERS[client](facts)


def _fetch(facts: _Facts) -> str:
    return f"{_curl(facts)}\nunzip {facts.name}.zip -d {facts.name}"


def _curl(facts: _Facts) -> str:
    token = ' -H "Authorization: Bearer $TOKEN"' if facts.is_private else ""
    return f"curl -L{token} -o {facts.name}.zip \\\n  {facts.zip_address}"


def _shell_lines(facts: _Facts) -> str:
    token = "\n# export HF_TOKEN=lm_...  (your token)" if facts.is_private else ""
    return f"# export HF_ENDPOINT={facts.address}{token}"


def _peft(facts: _Facts) -> str:
    place = (
        f'base, "{facts.full_name}",\n    revision="{facts.oid}"'
        if facts.has_hub
        else f'base, "./{facts.name}"'
    )
    intro = _shell_lines(facts) if facts.has_hub else _as_comment(_fetch(facts))
    return (
        f"{intro}\n"
        "from peft import PeftModel\n"
        f"from transformers import {facts.auto_class}\n\n"
        f"base = {facts.auto_class}.from_pretrained(\n"
        f'    "{facts.base}")\n'
        f"model = PeftModel.from_pretrained(\n    {place})"
    )


def _transformers(facts: _Facts) -> str:
    place = (
        f'"{facts.full_name}",\n    revision="{facts.oid}"'
        if facts.has_hub
        else f'"./{facts.name}"'
    )
    intro = _shell_lines(facts) if facts.has_hub else _as_comment(_fetch(facts))
    return (
        f"{intro}\n"
        f"from transformers import {facts.auto_class}\n\n"
        f"model = {facts.auto_class}.from_pretrained(\n"
        f'    "{facts.base}")\n'
        f"model.load_adapter({place})"
    )


def _vllm(facts: _Facts) -> str:
    return (
        f"{_fetch(facts)}\n"
        f"vllm serve {facts.base} \\\n"
        f"  --enable-lora --max-lora-rank {_vllm_rank(facts.rank)} \\\n"
        f"  --lora-modules {facts.name}=./{facts.name}"
    )


def _vllm_rank(rank: int) -> int:
    """The smallest of vLLM's ranks that holds the adapter."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), 512)


def _as_comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in text.splitlines())


_WRITERS: dict[str, Callable[[_Facts], str]] = {
    "peft": _peft,
    "transformers": _transformers,
    "vllm": _vllm,
    "curl": _fetch,
}
