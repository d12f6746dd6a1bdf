"""Begin an export: what can be told without asking the other hub is checked here."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction

from marketplace.accounts.models import User
from marketplace.catalogue.models import Revision
from marketplace.uploads.errors import UploadError
from marketplace.uploads.hub_hosts import check_hub, is_repo_id
from marketplace.uploads.models import Export
from marketplace.uploads.sealing import seal
from marketplace.uploads.services.transfers import check_limits, check_token, send_soon


@dataclass(frozen=True)
class ExportRequest:
    """What a user asks for, as typed."""

    revision: Revision
    repo_id: str
    hub: str = ""
    private: bool = True
    token: str = ""


def start_export(owner: User, asked: ExportRequest) -> Export:
    """Make the job and send it to the queue.

    A job of the owner's for the same revision and place that is not over yet is returned as it is.

    Raises:
        UploadError: with every problem by field, or because the owner has to wait.
    """
    hub, repo_id, token = _check(owner, asked)
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        running = Export.objects.owned_by(owner).active()
        same: Export | None = running.filter(
            hub=hub, repo_id=repo_id, revision=asked.revision
        ).first()
        if same is not None:
            return same
        check_limits(owner)
        job = Export(
            owner=owner,
            hub=hub,
            repo_id=repo_id,
            revision=asked.revision,
            private=asked.private,
        )
        job.sealed_token = seal(token, job.pk)
        job.save()
        send_soon(job)
    return job


def _check(owner: User, asked: ExportRequest) -> tuple[str, str, str]:
    problems: dict[str, list[str]] = {}
    hub, token, repo_id = "", "", asked.repo_id.strip()
    mine = Revision.objects.accepted().filter(adapter__owner=owner, adapter__deleted_at=None)
    if not mine.filter(pk=asked.revision.pk).exists():
        problems["revision"] = ["Only accepted versions of your own adapters can be exported."]
    try:
        hub = check_hub(asked.hub)
    except UploadError as error:
        problems |= error.problems
    if not is_repo_id(repo_id):
        problems["repo_id"] = ["Write owner/name as it shall be called on the other hub."]
    try:
        token = check_token(asked.token)
    except UploadError as error:
        problems |= error.problems
    if not asked.token.strip():
        problems["token"] = ["Give a token of that hub that may write. It is not kept."]
    if problems:
        raise UploadError(problems)
    return hub, repo_id, token
