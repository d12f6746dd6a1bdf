"""Do a composition job: the only module of the app that loads torch, and only workers import it.

Files of the ingredients are laid out as folders, `composer.compose` does the work, its progress is
written as rows while the lease holds, and its result becomes blobs. Everything that goes wrong ends
in a sentence for the user; what is a bug of ours also goes to the log.
"""

from __future__ import annotations

import errno
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from celery.exceptions import SoftTimeLimitExceeded, WorkerShutdown, WorkerTerminate
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection

from composer.base_model import BaseModelCache, BaseModelSource
from composer.composing import ComposeRequest, Composition, compose
from composer.errors import (
    BaseModelError,
    ComposerError,
    InsufficientMemory,
    SearchError,
    Stopped,
    StorageFull,
)
from composer.examples import Example as Row
from composer.selection import PoolMember, preselect
from marketplace.blobs.models import Blob
from marketplace.blobs.services import BlobError, copy_blob, store_file
from marketplace.blobs.services import StorageFull as BlobStorageFull
from marketplace.compositions.holding import Hold
from marketplace.compositions.memory import forget_peak, read_peak
from marketplace.compositions.models import CompositionJob, Example, Ingredient, ResultFile
from marketplace.compositions.optimizers import GRADIENT
from marketplace.compositions.recording import Recorder
from marketplace.leases import LeaseLost

logger = logging.getLogger(__name__)

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_cache: list[BaseModelCache] = []


@dataclass(frozen=True)
class _Failure:
    """What the user reads of a job that failed."""

    code: str
    error: str
    fix: str = ""


def run(job_id: UUID, *, worker: str = "") -> None:
    """Claim the job and do it; return at once where another worker has it or it is over."""
    hold = Hold.claim(job_id, worker=worker)
    if hold is None:
        logger.info("job %s is not to be done: taken or over", job_id)
        return
    job = CompositionJob.objects.select_related("base_model", "owner").get(pk=job_id)
    folder = settings.WORK_DIR / str(job_id)
    try:
        with hold:
            _do(job, hold, folder)
    except LeaseLost:
        logger.warning("job %s: the lease was lost, the work is dropped", job_id)
    except Stopped:
        hold.end(CompositionJob.State.CANCELLED)
    except (WorkerShutdown, WorkerTerminate, SystemExit):
        # The worker is told to go: the job goes back with its checkpoint, and no attempt is lost.
        hold.give_back()
        raise
    except (OperationalError, InterfaceError) as error:
        # The database is away. The lease runs out, and the reaper returns the job.
        logger.warning("job %s: left for another attempt, no database: %s", job_id, error)
        connection.close()
    except Exception as error:  # every cause must end in a state and a sentence
        _fail(hold, _explain(error, job_id))
    finally:
        _clean_up(job_id, folder)


def _do(job: CompositionJob, hold: Hold, folder: Path) -> None:
    recorder = Recorder(hold, job)
    recorder.log(f"claimed by {job.worker or 'a worker'}")
    folder.mkdir(parents=True, exist_ok=True)
    request = _make_request(job, folder)
    forget_peak()
    try:
        composition = compose(request, recorder, lambda: hold.cancel_requested or hold.is_lost)
    except Stopped:
        if hold.is_lost:  # the heart noticed before a write did
            raise LeaseLost from None
        raise
    recorder.flush()
    _finish(job, hold, composition)


def _make_request(job: CompositionJob, folder: Path) -> ComposeRequest:
    rows = list(job.examples.all())
    held_out = tuple(_row(row) for row in rows if row.split == Example.Split.HELD_OUT)
    fit = tuple(_row(row) for row in rows if row.split == Example.Split.FIT)
    output = folder / f"result-{job.fence}"
    shutil.rmtree(output, ignore_errors=True)
    return ComposeRequest(
        base=BaseModelSource(
            kind=job.base_model.source_kind,  # type: ignore[arg-type]
            location=job.base_model.location,
            revision=job.base_model.revision,
            file=job.base_model.file,
            name=job.base_model.name,
        ),
        pool=_lay_out_pool(job, fit, folder),
        examples=fit,
        held_out=held_out,
        output_folder=output,
        prompt_format=job.prompt_format,  # type: ignore[arg-type]
        merge_method=job.merge_method,  # type: ignore[arg-type]
        selection=job.selection,  # type: ignore[arg-type]
        n_candidates=job.n_candidates,
        optimizer=job.optimizer,
        weight_blocks=job.weight_blocks if job.optimizer == GRADIENT else None,
        quick_lora=job.quick_lora,
        budget=job.budget,
        seed=job.seed,
        n_fit=len(fit),
        weight_bound=job.weight_bound,
        l1_penalty=job.l1_penalty,
        svd_rank=job.svd_rank,
        hand_weights=job.hand_weights,
        prompting=job.prompting,
        dtype=job.dtype,  # type: ignore[arg-type]
        checkpoint=folder / "checkpoint.json",
        base_cache=_base_cache(),
    )


def _ingredients(job: CompositionJob) -> list[Ingredient]:
    rows = job.ingredients.select_related("revision__adapter__owner")
    return list(rows.prefetch_related("revision__files__blob", "revision__adapter__samples"))


def _lay_out_pool(
    job: CompositionJob, fit: tuple[Row, ...], folder: Path
) -> tuple[PoolMember, ...]:
    """Lay out the files of those members that the selection lets through, and only theirs.

    A large pool is made small by texts alone, so most files of it are never read. The job's rows
    keep the whole pool pinned; `compose` finds nothing left to drop.
    """
    items = {item.name: item for item in _ingredients(job)}
    members = [_member(item, folder) for item in items.values()]
    if job.hand_weights is None:
        members = preselect(
            members,
            fit,
            job.selection,  # type: ignore[arg-type]
            n_candidates=job.n_candidates,
            seed=job.seed,
        )
    for member in members:
        if job.hand_weights is None or job.hand_weights.get(member.name):
            _lay_out_member(items[member.name], member.folder)
    return tuple(members)


def _member(item: Ingredient, folder: Path) -> PoolMember:
    """Return a pinned revision as composer knows it; its folder may not be there yet."""
    adapter = item.revision.adapter
    return PoolMember(
        name=item.name,
        folder=folder / "pool" / item.revision.oid,
        revision=item.revision.oid,
        card_text=f"{adapter.name} {adapter.summary} {adapter.task} {adapter.card[:4000]}",
        samples=tuple(Row(sample.input, sample.output) for sample in adapter.samples.all()),
        # The shelf accepted these bytes, and copy_blob compares their hash: no second inspection.
        summary=item.revision.adapter_summary,
    )


def _lay_out_member(item: Ingredient, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for file in item.revision.files.all():
        if file.path in ADAPTER_FILES:
            _lay_out(file.blob, place / file.path)


def _lay_out(blob: Blob, target: Path) -> None:
    """Copy the file, checked on the way; weights are memory-mapped from there."""
    if target.exists() and target.stat().st_size == blob.size:
        return
    copy_blob(blob, target)


def _row(row: Example) -> Row:
    return Row(row.input, row.output)


def _base_cache() -> BaseModelCache:
    """One cache for the life of the worker process: the next job finds its base model loaded."""
    if not _cache:
        _cache.append(BaseModelCache(settings.BASE_CACHE_BYTES, cache_dir=settings.BASE_MODELS_DIR))
    return _cache[0]


def _finish(job: CompositionJob, hold: Hold, composition: Composition) -> None:
    blobs = {
        str(path.relative_to(composition.folder)): store_file(path)
        for path in sorted(composition.folder.rglob("*"))
        if path.is_file()
    }
    weights = dict(zip(composition.names, composition.weights, strict=True))
    with hold.writing() as row:
        for item in row.ingredients.all():
            item.is_candidate = item.name in weights
            item.weight = weights.get(item.name)
            item.save(update_fields=["is_candidate", "weight"])
        ResultFile.objects.filter(job=row).delete()
        ResultFile.objects.bulk_create(
            ResultFile(job=row, path=path, blob=blob) for path, blob in blobs.items()
        )
        hold.end(
            CompositionJob.State.SUCCEEDED,
            report=composition.report.to_dict(),
            recipe=composition.recipe,
            card=composition.card,
            summary_json=composition.summary.to_dict(),
            svd_error=composition.svd_error,
            optimizer_resolved=composition.optimizer_resolved,
            evaluations_spent=composition.evaluations_spent,
            peak_memory=read_peak(),
            phase="",
        )


def _fail(hold: Hold, failure: _Failure) -> None:
    try:
        hold.end(
            CompositionJob.State.FAILED,
            error_code=failure.code,
            error=failure.error,
            error_fix=failure.fix,
        )
    except DatabaseError:
        # The lease runs out and the reaper returns the job, so nothing is lost.
        logger.exception("job %s: its failure could not be written", hold.job_id)


def _explain(error: Exception, job_id: UUID) -> _Failure:
    """Turn a cause into a code, a sentence and what to do; log what is not the user's doing."""
    if isinstance(error, SoftTimeLimitExceeded):
        minutes = settings.JOB_SOFT_LIMIT_SECONDS // 60
        return _Failure(
            "time_limit",
            f"The job did not end within {minutes} minutes.",
            "Use fewer candidates, rows or evaluations.",
        )
    if isinstance(error, MemoryError | InsufficientMemory):
        text = str(error) or "The worker ran out of memory."
        return _Failure("memory", text, "Use fewer candidates or shorter rows.")
    if isinstance(error, StorageFull | BlobStorageFull) or _is_full(error):
        return _Failure(
            "storage",
            "The disk of the site is full, so the result could not be kept.",
            "Retry later; the administrator has to make room.",
        )
    if isinstance(error, BlobError):
        return _Failure("input_damaged", str(error), "Ask the owner to upload the adapter again.")
    if isinstance(error, ComposerError):
        codes = {BaseModelError: "base_model", SearchError: "did_not_converge"}
        return _Failure(codes.get(type(error), "not_possible"), str(error))
    logger.error("job %s failed", job_id, exc_info=error)
    return _Failure(
        "internal",
        "Something went wrong on our side.",
        f"Retry; if it fails again, tell the administrator the job's id, {job_id}.",
    )


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def _clean_up(job_id: UUID, folder: Path) -> None:
    """Remove the work folder of a job that has ended; one that will go on keeps its checkpoint."""
    try:
        state = CompositionJob.objects.filter(pk=job_id).values_list("state", flat=True).first()
    except DatabaseError:
        return  # nobody knows whether it has ended
    if state in CompositionJob.TERMINAL or state is None:
        shutil.rmtree(folder, ignore_errors=True)
