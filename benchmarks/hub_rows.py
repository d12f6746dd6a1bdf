"""Rows for the hub's benchmark, made in bulk: adapters of many owners, bases and tags, with files.

Run inside the site (`manage.py shell`); shares of owners, bases and tags are the same at any number
of adapters, so that a page is as full in a small catalogue as in a large one.
"""

from __future__ import annotations

import hashlib
import itertools
from datetime import timedelta

from django.db import connection, transaction
from django.utils import timezone

from composer.safetensors_header import WEIGHTS_NAME
from marketplace.accounts.models import ApiToken, User
from marketplace.blobs.services import store_bytes
from marketplace.catalogue.models import Adapter, BaseModel, Ref, Revision, RevisionFile, Tag
from tests.factories import MODULE_TABLE, make_adapter, make_user

BASES, TAGS, OWNERS = 4, 5, 10
FIRST_PK = 1_000_000
LARGE_BASE, LARGE_LAYERS, LARGE_WIDTH = "bench/large", 32, 4096
LARGE_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
BATCH = 2000


def prepare() -> str:
    """Make people, the adapters that are looked at one by one, and return a token to write with."""
    owner = make_user("bench")
    make_adapter(owner, "adapter")
    make_adapter(owner, "hidden", visibility="private")
    table = {
        f"model.layers.{layer}.self_attn.{projection}": [LARGE_WIDTH, LARGE_WIDTH]
        for layer in range(LARGE_LAYERS)
        for projection in LARGE_PROJECTIONS
    }
    for name, modules in [(LARGE_BASE, table)] + [
        (f"bench/base{number}", MODULE_TABLE) for number in range(BASES)
    ]:
        BaseModel.objects.create(
            name=name, source_kind=BaseModel.SourceKind.FOLDER, location="/none",
            licence="Apache-2.0", module_table=modules, architecture="LlamaForCausalLM",
            state=BaseModel.State.READY,
        )  # fmt: skip
    for number in range(OWNERS):
        make_user(f"owner{number}")
    Tag.objects.bulk_create(Tag(name=f"tag{number}") for number in range(TAGS))
    ends = timezone.now() + timedelta(days=1)
    return ApiToken.issue(user=owner, name="bench", scope="write", expires_at=ends)[1]


def fill(count: int) -> None:
    """Bring the number of bulk-made adapters to `count`."""
    there = Adapter.objects.filter(pk__gte=FIRST_PK).count()
    for start in range(there, count, BATCH):
        with transaction.atomic():
            _add(range(start, min(start + BATCH, count)))
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def _add(numbers: range) -> None:
    bases = list(BaseModel.objects.filter(name__startswith="bench/base").order_by("pk"))
    owners = list(User.objects.filter(username__startswith="owner").order_by("pk"))
    tags = list(Tag.objects.filter(name__startswith="tag").order_by("pk"))
    blobs = {name: store_bytes(name.encode()) for name in ("README.md", "config", WEIGHTS_NAME)}
    now = timezone.now()
    adapters, revisions, files, refs = [], [], [], []
    for number in numbers:
        pk, base, owner = FIRST_PK + number, bases[number % BASES], owners[number % OWNERS]
        name = f"adapter{number}"
        adapters.append(
            Adapter(
                pk=pk, owner=owner, name=name, full_name=f"{owner.username}/{name}",
                summary=f"Answers questions of kind {number % 97}", licence="Apache-2.0",
                base_model=base, latest_id=pk, rank=8, targets_key="q_proj, v_proj",
                weights_size=1000, downloads=number * 7919 % 10007, language="en",
            )
        )  # fmt: skip
        revisions.append(
            Revision(
                pk=pk, adapter_id=pk, number=1, author=owner, title="Publish",
                oid=hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest(),
                state=Revision.State.ACCEPTED, origin=Revision.Origin.UPLOAD, base_model=base,
                summary_json={"task_type": "CAUSAL_LM", "base_model_name_or_path": base.name},
                rank=8, target_modules=["q_proj", "v_proj"], targets_key="q_proj, v_proj",
                dtype="F32", parameter_count=1000, weights_size=1000,
                weights_sha256=blobs[WEIGHTS_NAME].sha256, created_at=now,
            )
        )  # fmt: skip
        paths = ("README.md", "adapter_config.json", WEIGHTS_NAME)
        files += [
            RevisionFile(revision_id=pk, path=path, blob=blob)
            for path, blob in zip(paths, blobs.values(), strict=True)
        ]
        refs.append(Ref(adapter_id=pk, name="main", revision_id=pk))
    Adapter.objects.bulk_create(adapters)
    Revision.objects.bulk_create(revisions)
    RevisionFile.objects.bulk_create(files)
    Ref.objects.bulk_create(refs)
    link = Adapter.tags.through
    link.objects.bulk_create(
        link(adapter_id=FIRST_PK + number, tag=tag)
        for number, tag in zip(numbers, itertools.cycle(tags), strict=False)
    )
