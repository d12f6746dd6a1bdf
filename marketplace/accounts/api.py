"""The JSON API of accounts: /me and the user's own tokens."""

from __future__ import annotations

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.accounts.permissions import SignedIn
from marketplace.accounts.serializers import (
    ErrorSerializer,
    IssuedTokenSerializer,
    NewTokenSerializer,
    TokenSerializer,
    UserSerializer,
)
from marketplace.accounts.services import issue_token
from marketplace.accounts.visitors import signed_in

UNAUTHORISED = {401: ErrorSerializer, 403: ErrorSerializer}


class Me(APIView):
    """Who the token or session belongs to."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={200: UserSerializer, **UNAUTHORISED})
    def get(self, request: Request) -> Response:
        """Return the user."""
        return Response(UserSerializer(signed_in(request)).data)


class Tokens(APIView):
    """The user's tokens."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={200: TokenSerializer(many=True), **UNAUTHORISED})
    def get(self, request: Request) -> Response:
        """List them, without their secrets."""
        return Response(TokenSerializer(signed_in(request).api_tokens.all(), many=True).data)

    @extend_schema(
        request=NewTokenSerializer,
        responses={201: IssuedTokenSerializer, 400: ErrorSerializer, **UNAUTHORISED},
    )
    def post(self, request: Request) -> Response:
        """Make one; its text is in this answer only."""
        user = signed_in(request)
        asked = NewTokenSerializer(data=request.data)
        asked.is_valid(raise_exception=True)
        token, text = issue_token(user, **asked.validated_data)
        body = {**TokenSerializer(token).data, "token": text}
        return Response(body, status=status.HTTP_201_CREATED)


class OneToken(APIView):
    """One of the user's tokens."""

    permission_classes = (SignedIn,)

    @extend_schema(responses={204: None, 404: ErrorSerializer, **UNAUTHORISED})
    def delete(self, request: Request, pk: int) -> Response:
        """Revoke it; it stops working at once."""
        get_object_or_404(signed_in(request).api_tokens, pk=pk).delete()
        return Response(status=status.HTTP_204_NO_CONTENT)
