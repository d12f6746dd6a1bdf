"""Who the caller is, what they may do with a repository, and the clients' housekeeping."""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest, HttpResponse, JsonResponse

from marketplace.accounts.models import ApiToken
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.finding import check_may_download, find_adapter, find_own_adapter


@hub_view(*READS)
def who_am_i(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Name the owner of the token; this is all that signing in is for the clients."""
    user = caller.require_user()
    token = cast("ApiToken", caller.token)
    return JsonResponse(
        {
            "type": "user",
            "id": f"{user.pk:024x}",
            "name": user.username,
            "fullname": user.get_full_name() or user.username,
            "email": user.email,
            "emailVerified": False,
            "isPro": False,
            "canPay": False,
            "avatarUrl": "",
            "orgs": [],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": token.name, "role": token.scope},
            },
        }
    )


@hub_view(*READS)
def check_read(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """Tell whether the caller may download."""
    check_may_download(find_adapter(request, caller, owner, name), caller)
    return JsonResponse({})


@hub_view(*READS)
def check_write(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """Tell whether the caller may push."""
    find_own_adapter(request, caller, owner, name)
    return JsonResponse({})


@hub_view(*READS)
def list_agent_harnesses(request: HttpRequest, caller: Caller) -> JsonResponse:
    """Name no harness: the clients ask once a day what to look for, and find nothing here."""
    return JsonResponse({"standardEnvVars": [], "harnesses": {}})


@hub_view(*READS)
def take_telemetry(request: HttpRequest, caller: Caller, topic: str) -> HttpResponse:
    """Keep nothing of what the clients tell of themselves."""
    return HttpResponse(status=204)
