"""The JSON API of gated adapters: ask for the files, and decide who is let in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.api_errors import Refused
from marketplace.accounts.models import User
from marketplace.accounts.permissions import SignedIn
from marketplace.accounts.serializers import ErrorSerializer
from marketplace.accounts.visitors import signed_in
from marketplace.catalogue import services
from marketplace.catalogue.access_requests import find_request
from marketplace.catalogue.models import AccessRequest
from marketplace.catalogue.views.fetching import MISSING, get_adapter, get_own_adapter

REFUSED = {400: ErrorSerializer, 401: ErrorSerializer, 403: ErrorSerializer, 404: ErrorSerializer}
State = AccessRequest.State


class AccessRequestSerializer(serializers.ModelSerializer[AccessRequest]):
    """A request: who, since when, and what became of it."""

    user = serializers.CharField(source="user.username")
    adapter = serializers.CharField(source="adapter.full_name")

    class Meta:
        model = AccessRequest
        fields = ("adapter", "user", "state", "message", "created_at", "decided_at")
        read_only_fields = fields


class AskSerializer(serializers.Serializer[AccessRequest]):
    """What the files are wanted for, in a sentence."""

    message = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=services.MAX_MESSAGE
    )


class DecisionSerializer(serializers.Serializer[AccessRequest]):
    """What becomes of a request."""

    state = serializers.ChoiceField(choices=State.choices)


class AccessList(ListAPIView[AccessRequest]):
    """Who asked for the files of one's own gated adapter."""

    permission_classes = (SignedIn,)
    serializer_class = AccessRequestSerializer
    queryset = AccessRequest.objects.none()

    def get_queryset(self) -> Any:
        """Everybody's requests, for the owner alone."""
        adapter = get_own_adapter(self.request, self.kwargs["owner"], self.kwargs["name"])
        return adapter.access_requests.select_related("user", "adapter")

    @extend_schema(responses={200: AccessRequestSerializer(many=True), **REFUSED})
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the requests, the newest first."""
        return super().get(request, *args, **kwargs)


class OwnRequest(APIView):
    """One's own request for somebody's gated adapter."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={200: AccessRequestSerializer, **REFUSED})
    def get(self, request: Request, owner: str, name: str) -> Response:
        """Return it, with what became of it."""
        found = find_request(get_adapter(request, owner, name), request.user)
        if found is None:
            raise Http404(MISSING)
        return Response(AccessRequestSerializer(found).data)

    @extend_schema(request=AskSerializer, responses={200: AccessRequestSerializer, **REFUSED})
    def put(self, request: Request, owner: str, name: str) -> Response:
        """Ask; a second time changes nothing."""
        adapter = get_adapter(request, owner, name)
        asked = AskSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        message = asked.validated_data["message"]
        user = signed_in(request)
        return _answer(lambda: services.ask_for_access(adapter, user, message=message))

    @extend_schema(request=None, responses={204: None, **REFUSED})
    def delete(self, request: Request, owner: str, name: str) -> Response:
        """Take it back; a refused one stays."""
        services.withdraw_request(get_adapter(request, owner, name), signed_in(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class AccessDecision(APIView):
    """What the owner decides for one user."""

    permission_classes = (SignedIn,)

    @extend_schema(request=DecisionSerializer, responses={200: AccessRequestSerializer, **REFUSED})
    def put(self, request: Request, owner: str, name: str, user: str) -> Response:
        """Grant (also without a request), refuse, revoke, or let it wait again."""
        adapter = get_own_adapter(request, owner, name)
        asked = DecisionSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        state = asked.validated_data["state"]
        name = user.replace("\0", "")
        asker = User.objects.filter(username__iexact=name, is_active=True).first()
        if asker is None:
            raise Http404("There is no user of this name.")
        by = signed_in(request)
        if state == State.GRANTED:
            return _answer(lambda: services.grant_access(adapter, asker, by=by))
        return _answer(lambda: services.decide_access(adapter, asker, state, by=by))


def _answer(do: Callable[[], AccessRequest]) -> Response:
    """Turn what the shelf refuses into the API's answers."""
    try:
        found = do()
    except services.NoSuchRequest as error:
        raise Http404(str(error)) from None
    except services.CatalogueError as error:
        raise Refused(error.problems) from error
    return Response(AccessRequestSerializer(found).data)
