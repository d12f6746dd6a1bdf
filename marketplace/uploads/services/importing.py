"""Begin an import: everything that can be told without asking the other hub is checked here."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction

from marketplace.accounts.models import User
from marketplace.accounts.names import validate_adapter_name
from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.uploads.errors import UploadError
from marketplace.uploads.hub_hosts import Source, read_source
from marketplace.uploads.models import Import
from marketplace.uploads.sealing import seal
from marketplace.uploads.services.transfers import check_limits, check_token, send_soon


@dataclass(frozen=True)
class ImportRequest:
    """What a user asks for, as typed."""

    repo: str  # owner/name, or the address of its page
    hub: str = ""
    revision: str = ""
    name: str = ""  # the adapter's name here; the repository's where it is empty
    visibility: str = ""
    base_model: BaseModel | None = None  # where the configuration names none that is known here
    token: str = ""


def start_import(owner: User, asked: ImportRequest) -> Import:
    """Make the job and send it to the queue.

    A job of the owner's for the same revision and name that is not over yet is returned as it is.

    Raises:
        UploadError: with every problem by field, or because the owner has to wait.
    """
    source, name, token = _check(asked)
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=owner.pk)
        running = (
            Import.objects.owned_by(owner)
            .active()
            .filter(
                hub=source.hub, repo_id=source.repo_id, asked_revision=source.revision, name=name
            )
        )
        same: Import | None = running.first()
        if same is not None:
            return same
        check_limits(owner)
        job = Import(
            owner=owner,
            hub=source.hub,
            repo_id=source.repo_id,
            asked_revision=source.revision,
            name=name,
            visibility=asked.visibility,
            base_model=asked.base_model,
        )
        job.sealed_token = seal(token, job.pk)
        job.save()
        send_soon(job)
    return job


def _check(asked: ImportRequest) -> tuple[Source, str, str]:
    problems: dict[str, list[str]] = {}
    source, token, name = Source("", "", ""), "", asked.name.strip()
    try:
        source = read_source(asked.hub, asked.repo, asked.revision)
    except UploadError as error:
        problems |= error.problems
    try:
        token = check_token(asked.token)
    except UploadError as error:
        problems |= error.problems
    name = name or source.repo_id.rpartition("/")[2]
    if name:
        try:
            validate_adapter_name(name)
        except ValidationError as error:
            problems["name"] = error.messages
    if asked.visibility and asked.visibility not in Adapter.Visibility.values:
        problems["visibility"] = [f"Choose one of {', '.join(Adapter.Visibility.values)}."]
    if problems:
        raise UploadError(problems)
    return source, name, token
