"""Build what a test needs: users, base models, adapters on the shelf, and tiny real adapter files.

Adapters go through `publish_revision` like everything else, with real safetensors under them; no
factory needs torch.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.contrib.auth.hashers import make_password

from composer.examples import Example
from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.blobs.services import store_bytes
from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, BaseModel, Revision

PASSWORD = "correct-horse-battery"
LAYERS, HIDDEN = 2, 32
MODULE_TABLE = {
    f"model.layers.{layer}.{part}": [HIDDEN, HIDDEN]
    for layer in range(LAYERS)
    for part in (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
    )
}
_numbers = itertools.count(1)


def make_user(username: str = "", **fields: Any) -> User:
    """A user who can sign in with `PASSWORD`."""
    name = username or f"user{next(_numbers)}"
    return User.objects.create(username=name, password=_hash_password(), **fields)


@functools.cache
def _hash_password() -> str:
    # Slow on purpose, so once is enough for all users of a test run.
    return make_password(PASSWORD)


def make_base_model(name: str = "", **fields: Any) -> BaseModel:
    """A base model that is ready: two layers, hidden size 32; the same name gives the same row."""
    name = name or "tiny/base"
    defaults = {
        "source_kind": BaseModel.SourceKind.FOLDER,
        "location": f"/base-models/{name}",
        "licence": "Apache-2.0",
        "module_table": MODULE_TABLE,
        "architecture": "LlamaForCausalLM",
        "parameter_count": 135_000_000,
        "state": BaseModel.State.READY,
    }
    return BaseModel.objects.get_or_create(name=name, defaults=defaults | fields)[0]


def make_blob(content: bytes) -> Blob:
    """Store the content as a blob."""
    return store_bytes(content)


def make_adapter(
    owner: User | None = None,
    name: str = "",
    *,
    card: services.CardFields | None = None,
    parents: Sequence[services.Parent] = (),
    base_model: BaseModel | None = None,
    files: Mapping[str, bytes] | None = None,
    rank: int = 4,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    losses: tuple[float, float] | None = None,
    **card_fields: Any,
) -> Any:  # an Adapter whose `latest` is never None
    """An adapter on the shelf with one accepted revision; card fields may be given by keyword."""
    revision = make_revision(
        owner=owner or make_user(),
        name=name or f"adapter{next(_numbers)}",
        card=card or services.CardFields(**({"licence": "Apache-2.0"} | card_fields)),
        parents=parents,
        base_model=base_model,
        files=files,
        rank=rank,
        targets=targets,
        losses=losses,
    )
    return Adapter.objects.get(pk=revision.adapter_id)


def make_revision(
    adapter: Adapter | None = None,
    *,
    owner: User | None = None,
    name: str = "",
    base_model: BaseModel | None = None,
    files: Mapping[str, bytes] | None = None,
    rank: int = 4,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    losses: tuple[float, float] | None = None,
    origin: str = "",
    **fields: Any,
) -> Revision:
    """Publish a revision, of this adapter or of a new one; its files differ from all others'."""
    owner = owner or (adapter.owner if adapter else make_user())
    name = name or (adapter.name if adapter else f"adapter{next(_numbers)}")
    base_model = base_model or make_base_model()
    if files is None:
        files = tiny_adapter_files(rank=rank, targets=targets, base_name=base_model.name)
    parents = fields.get("parents") or ()
    return services.publish_revision(
        services.NewRevision(
            owner=owner,
            name=name,
            files={path: make_blob(content) for path, content in files.items()},
            summary=summary_of(files),
            base_model=base_model,
            title=fields.pop("title", "Publish"),
            origin=origin or (Revision.Origin.COMPOSITION if parents else Revision.Origin.UPLOAD),
            base_loss=losses[0] if losses else None,
            adapter_loss=losses[1] if losses else None,
            **fields,
        )
    )


def tiny_adapter_folder(folder: Path, **options: Any) -> Path:
    """Write a valid adapter for `make_base_model()`'s module table and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in tiny_adapter_files(**options).items():
        (folder / path).write_bytes(content)
    return folder


def tiny_adapter_files(
    *,
    rank: int = 4,
    alpha: float = 8,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    base_name: str = "tiny/base",
    seed: int | None = None,
    readme: str = "# A tiny adapter\n",
    config: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """The files of a valid adapter; the same seed gives the same bytes, none gives new ones."""
    seed = next(_numbers) if seed is None else seed
    tensors = {
        f"base_model.model.{path}.{side}.weight": shape
        for path in MODULE_TABLE
        if path.rpartition(".")[2] in targets
        for side, shape in (("lora_A", (rank, HIDDEN)), ("lora_B", (HIDDEN, rank)))
    }
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(targets),
        "bias": "none",
        "inference_mode": True,
    }
    return {
        "adapter_config.json": json.dumps(settings | dict(config or {}), indent=2).encode(),
        "adapter_model.safetensors": write_safetensors(tensors, seed=seed),
        "README.md": readme.encode(),
    }


def write_safetensors(tensors: Mapping[str, tuple[int, ...]], *, seed: int) -> bytes:
    """A float32 safetensors file with small finite values that depend on the seed."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = bytearray()
    for index, (name, shape) in enumerate(sorted(tensors.items())):
        count = shape[0] * shape[1]
        start = len(body)
        value = ((seed * 31 + index * 7) % 199 + 1) / 10_000
        body += struct.pack(f"<{count}f", *(value + step / 1_000_000 for step in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(body)]}
    # The seed is named in full: two seeds must never give one content.
    header["__metadata__"]["seed"] = str(seed)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def summary_of(files: Mapping[str, bytes]) -> AdapterSummary:
    """What inspection says of `tiny_adapter_files`, without running it."""
    config = json.loads(files["adapter_config.json"])
    weights = files["adapter_model.safetensors"]
    targets = tuple(config["target_modules"])
    modules = {path: config["r"] for path in MODULE_TABLE if path.rpartition(".")[2] in targets}
    return AdapterSummary(
        peft_type="LORA",
        task_type=config.get("task_type"),
        base_model_name_or_path=config["base_model_name_or_path"],
        rank=config["r"],
        alpha=config["lora_alpha"],
        use_rslora=False,
        rank_pattern={},
        alpha_pattern={},
        target_modules=targets,
        modules=modules,
        dtype="F32",
        tensor_count=2 * len(modules),
        parameter_count=2 * len(modules) * config["r"] * HIDDEN,
        weights_size=len(weights),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        peft_version=None,
        config=config,
    )


def make_samples(count: int = 2) -> list[Example]:
    """Input and output pairs."""
    return [Example(f"question {number}", f"answer {number}") for number in range(count)]
