"""Make, delete, change and move repositories, and look at a card before it is pushed."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase, JsonResponse

from marketplace.accounts.limits import HOUR, Limit
from marketplace.accounts.models import User
from marketplace.catalogue import services
from marketplace.catalogue.front_matter import FrontMatterError, split_front_matter
from marketplace.catalogue.languages import find_language
from marketplace.catalogue.licences import LicenceError, normalise_licence
from marketplace.catalogue.models import Adapter
from marketplace.hub.access import Caller, hub_view
from marketplace.hub.addresses import is_storable, repo_url, split_repo_id
from marketplace.hub.bodies import read_field, read_object
from marketplace.hub.errors import BadRequest, Conflict, NotAllowed, TooMany
from marketplace.hub.finding import find_own_adapter

_GATES: dict[Any, str] = {
    False: Adapter.Gate.OPEN,
    "auto": Adapter.Gate.AUTO,
    "manual": Adapter.Gate.MANUAL,
}


@hub_view("POST")
def create(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Make an empty repository that its owner alone sees until an adapter is pushed to it."""
    user = caller.require_writer()
    body = read_object(request)
    owner, name = _read_id(body, user)
    _check_namespace(owner, user)
    _check_type(body)
    limit = Limit("hub-create", settings.HUB_REPOSITORIES_PER_HOUR, HOUR)
    if not Adapter.objects.named(owner, name).exists() and not limit.use(str(user.pk)):
        raise TooMany(f"At most {limit.times} new repositories an hour.", seconds=HOUR // 4)
    visibility = _read_visibility(body) or Adapter.Visibility.PUBLIC
    try:
        adapter = services.create_adapter(user, name, visibility=visibility)
    except services.NameTaken as error:
        # Clients that were told `exist_ok` read the address here.
        taken = error.adapter.full_name
        raise Conflict(str(error), url=repo_url(taken), name=taken) from None
    except services.PublishError as error:
        raise BadRequest(str(error)) from None
    answer = {"url": repo_url(adapter.full_name), "name": adapter.full_name, "id": str(adapter.pk)}
    return JsonResponse(answer)


@hub_view("DELETE")
def delete(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Delete a repository as the site's own page does."""
    user = caller.require_writer()
    body = read_object(request)
    _check_type(body)
    owner, name = _read_id(body, user)
    adapter = find_own_adapter(request, caller, owner, name)
    services.delete_adapter(adapter, by=user)
    return JsonResponse({"success": True})


@hub_view("PUT")
def change_settings(
    request: HttpRequest, caller: Caller, owner: str, name: str
) -> HttpResponseBase:
    """Change who sees a repository, and who may download from it."""
    adapter = find_own_adapter(request, caller, owner, name)
    user = caller.require_writer()
    body = read_object(request)
    visibility = _read_visibility(body)
    gate = body.get("gated", None)
    if gate is not None and (isinstance(gate, list | dict) or gate not in _GATES):
        raise BadRequest("“gated” has to be “auto”, “manual” or false.")
    try:
        if visibility:
            services.set_visibility(adapter, visibility, by=user)
        if gate is not None:
            services.set_gate(adapter, _GATES[gate], by=user)
    except services.CatalogueError as error:
        raise BadRequest(str(error)) from None
    adapter = Adapter.objects.get(pk=adapter.pk)
    gated = False if adapter.gated == Adapter.Gate.OPEN else adapter.gated
    private = adapter.visibility == Adapter.Visibility.PRIVATE
    return JsonResponse({"private": private, "visibility": adapter.visibility, "gated": gated})


@hub_view("POST")
def move(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Give a repository another name; the old address leads to it from then on."""
    user = caller.require_writer()
    body = read_object(request)
    _check_type(body)
    source = split_repo_id(_read_text(body, "fromRepo"), default_owner=user.username)
    target = split_repo_id(_read_text(body, "toRepo"), default_owner=user.username)
    adapter = find_own_adapter(request, caller, *source)
    _check_namespace(target[0], user)
    try:
        moved = services.move_adapter(adapter, target[1], by=user)
    except services.NameTaken as error:
        raise Conflict(str(error), url=repo_url(error.adapter.full_name)) from None
    except services.CatalogueError as error:
        raise BadRequest(str(error)) from None
    return JsonResponse({"success": True, "url": repo_url(moved.full_name)})


@hub_view("POST")
def validate_yaml(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Look at a README.md as a push would; clients ask before every upload that holds one."""
    content = read_field(read_object(request), "content", str, "")
    if len(content.encode(errors="replace")) > settings.MAX_CARD_BYTES:
        told = f"README.md has more than {settings.MAX_CARD_BYTES} bytes. Shorten it."
        return _tell([told])
    try:
        fields, _ = split_front_matter(content)
    except FrontMatterError as error:
        return _tell([str(error)])
    return _tell([], list(_warn(fields)))


def _warn(fields: dict[str, Any]) -> list[str]:
    """Name what would be left out, because this site does not know it."""
    warnings = []
    licence, language = fields.get("license"), fields.get("language")
    if isinstance(licence, str):
        try:
            normalise_licence(licence)
        except LicenceError as error:
            warnings.append(str(error))
    if isinstance(language, str) and find_language(language) is None:
        warnings.append(f"The language “{language[:40]}” is not known here.")
    return warnings


def _tell(errors: list[str], warnings: list[str] | None = None) -> HttpResponseBase:
    answer = {
        "errors": [{"message": text} for text in errors],
        "warnings": [{"message": text} for text in warnings or ()],
    }
    return JsonResponse(answer, status=400 if errors else 200)


def _read_id(body: dict[str, Any], user: User) -> tuple[str, str]:
    name, owner = _read_text(body, "name"), read_field(body, "organization", str, "")
    full = f"{owner}/{name}" if owner and "/" not in name else name
    if not is_storable(full):
        raise BadRequest("The name holds characters that cannot be stored.")
    return split_repo_id(full, default_owner=user.username)


def _read_text(body: dict[str, Any], name: str) -> str:
    text = read_field(body, name, str, "")
    if not text:
        raise BadRequest(f"“{name}” is missing.")
    return text


def _read_visibility(body: dict[str, Any]) -> str:
    visibility = read_field(body, "visibility", str, "")
    if visibility and visibility not in Adapter.Visibility.values:
        raise BadRequest("“visibility” has to be “public” or “private”.")
    private = body.get("private")
    if visibility or private is None:
        return visibility
    is_private = read_field(body, "private", bool, default=False)
    return Adapter.Visibility.PRIVATE if is_private else Adapter.Visibility.PUBLIC


def _check_type(body: dict[str, Any]) -> None:
    if read_field(body, "type", str, "model") != "model":
        raise BadRequest("This site holds LoRA adapters: repositories of the type “model” alone.")


def _check_namespace(owner: str, user: User) -> None:
    if owner.lower() != user.username.lower():
        raise NotAllowed(
            f"You don't have the rights to use the namespace “{owner}”. Yours is “{user.username}”."
        )
