"""Put a finished composition on the shelf, with its parents pinned, its card and its recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from composer.examples import Example as Row
from composer.inspection import AdapterSummary
from marketplace.accounts.models import User
from marketplace.blobs.models import Blob
from marketplace.blobs.services import store_bytes
from marketplace.catalogue.licences import Licensed, derive_licence, find_conflicts
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.services import (
    CardFields,
    NewRevision,
    Parent,
    PublishError,
    publish_revision,
)
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services.errors import CompositionError
from marketplace.compositions.services.suggesting import suggest_name, suggest_summary

_SAMPLES = 3


@dataclass(frozen=True)
class PublishRequest:
    """What the publish dialog holds."""

    name: str
    summary: str = ""
    licence: str = ""
    task: str = ""
    tags: Sequence[str] = field(default_factory=tuple)
    visibility: str = Adapter.Visibility.PUBLIC
    with_samples: bool = False


@dataclass(frozen=True)
class Terms:
    """The licence derived from the parents, or the reasons against publishing at all."""

    licence: str
    conflicts: tuple[str, ...]


def prefill_publication(job: CompositionJob) -> dict[str, Any]:
    """Return what the dialog shows at first: a free name, a summary, tags, the derived licence."""
    parents = _parents(job)
    terms = derive_terms([edge.revision for edge in parents], job.owner)
    return {
        "name": suggest_name(job),
        "summary": suggest_summary(job, parents=len(parents)),
        "licence": terms.licence,
        "licence_conflicts": list(terms.conflicts),
        "tags": ["composed"],
        "task": _common_task(parents),
        "visibility": Adapter.Visibility.PUBLIC,
    }


def derive_terms(parents: Sequence[Revision], owner: User) -> Terms:
    """Return the licence that a composition of these would have, or why it could have none."""
    licensed = [Licensed.of(parent.adapter, composer_id=owner.pk) for parent in parents]
    conflicts = find_conflicts(licensed)
    return Terms("" if conflicts else derive_licence(licensed), tuple(conflicts))


def publish_composition(job: CompositionJob, request: PublishRequest) -> Revision:
    """Publish the result as a revision with lineage and return it; a second time gives the same.

    Raises:
        CompositionError: the job has no result, or the shelf refuses it, with problems by field.
    """
    if job.published is not None:
        return job.published
    if job.state != CompositionJob.State.SUCCEEDED or not job.summary_json:
        raise CompositionError({"": ["Only a job that succeeded can be published."]})
    files = {item.path: item.blob for item in job.results.select_related("blob")}
    files["recipe.json"] = _recipe_with_parents(job, files)
    try:
        revision = publish_revision(_make_revision(job, request, files))
    except PublishError as error:
        raise CompositionError(error.problems) from error
    CompositionJob.objects.filter(pk=job.pk).update(published=revision)
    job.published = revision
    return revision


def _make_revision(
    job: CompositionJob, request: PublishRequest, files: dict[str, Blob]
) -> NewRevision:
    losses = _held_out_losses(job.report or {})
    return NewRevision(
        owner=job.owner,
        name=request.name.strip(),
        files=files,
        summary=AdapterSummary.from_dict(job.summary_json or {}),
        base_model=job.base_model,
        title=f"Publish the composition of job {job.number}",
        origin=Revision.Origin.COMPOSITION,
        card=CardFields(
            summary=request.summary,
            card=_strip_front_matter(job.card),
            licence=request.licence or None,
            task=request.task,
            prompt_format=job.prompt_format,
            tags=list(request.tags),
            samples=_samples(job) if request.with_samples else None,
            visibility=request.visibility,
        ),
        parents=_parents(job),
        provenance={
            "job": str(job.pk),
            "merge_method": job.merge_method,
            "recipe": job.recipe or {},
            "report": {**(job.report or {}), "answers": []},  # the user's rows stay with the job
        },
        kind=Adapter.Kind.COMPOSED,
        job_key=job.pk,
        base_loss=losses.get("base"),
        adapter_loss=losses.get("composed"),
    )


def _parents(job: CompositionJob) -> list[Parent]:
    used = job.ingredients.exclude(weight=None).exclude(weight=0)
    rows = used.select_related("revision__adapter__owner")
    return [Parent(item.revision, float(item.weight or 0)) for item in rows]


def _recipe_with_parents(job: CompositionJob, files: dict[str, Blob]) -> Blob:
    """Write the recipe anew with the parents as this catalogue pins them."""
    recipe = dict(job.recipe or {})
    recipe["parents"] = [
        {
            "adapter": parent.revision.adapter.full_name,
            "revision": parent.revision.oid,
            "sha256": parent.revision.weights_sha256,
            "weight": parent.weight,
        }
        for parent in _parents(job)
    ]
    return store_bytes(f"{json.dumps(recipe, indent=2, sort_keys=True)}\n".encode())


def _held_out_losses(report: dict[str, Any]) -> dict[str, float | None]:
    return {
        row["method"]: (row.get("held_out") or row.get("fit") or {}).get("loss")
        for row in report.get("rows", [])
    }


def _samples(job: CompositionJob) -> list[Row]:
    return [Row(row.input, row.output) for row in job.examples.all()[:_SAMPLES]]


def _common_task(parents: Sequence[Parent]) -> str:
    """Suggest the task of the heaviest parent."""
    heaviest = max(parents, key=lambda parent: abs(parent.weight), default=None)
    return heaviest.revision.adapter.task if heaviest else ""


def _strip_front_matter(card: str) -> str:
    """The card's text without its YAML head, which the site writes from the fields."""
    if not card.startswith("---\n"):
        return card
    _, _, rest = card.removeprefix("---\n").partition("\n---\n")
    return rest.lstrip("\n")
