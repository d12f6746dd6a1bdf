"""Who likes what; the clients read it, and take a like of the caller's back."""

from __future__ import annotations

from django.http import HttpRequest, JsonResponse

from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Like
from marketplace.hub.access import READS, Caller, hub_view
from marketplace.hub.addresses import is_storable
from marketplace.hub.finding import find_adapter
from marketplace.hub.timestamps import utc

MAX_LISTED = 1000


@hub_view("POST", "DELETE")
def change_like(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """Like a repository, or take the like back; a second time changes nothing."""
    adapter = find_adapter(request, caller, owner, name)
    user = caller.require_writer()
    change = services.like if request.method == "POST" else services.unlike
    return JsonResponse({"likes": change(adapter, user)})


@hub_view(*READS)
def list_likers(request: HttpRequest, caller: Caller, owner: str, name: str) -> JsonResponse:
    """List the users who like a repository, the latest first."""
    adapter = find_adapter(request, caller, owner, name)
    likes = adapter.liked_by.filter(user__is_active=True).select_related("user").order_by("-id")
    found = [
        {
            "user": like.user.username,
            "fullname": like.user.get_full_name() or like.user.username,
            "avatarUrl": "",
        }
        for like in likes[:MAX_LISTED]
    ]
    return JsonResponse(found, safe=False)


@hub_view(*READS)
def list_liked(request: HttpRequest, caller: Caller, user: str) -> JsonResponse:
    """List what a user likes, as far as the caller may know of it."""
    visible = Adapter.objects.visible_to(caller.user)
    likes = Like.objects.filter(adapter__in=visible, user__is_active=True)
    likes = likes.filter(user__username__iexact=user if is_storable(user) else "")
    found = [
        {"createdAt": utc(at), "repo": {"name": full_name, "type": "model"}}
        for at, full_name in likes.order_by("-id").values_list("created_at", "adapter__full_name")[
            :MAX_LISTED
        ]
    ]
    return JsonResponse(found, safe=False)
