"""The JSON of accounts: who am I, and my tokens."""

from __future__ import annotations

from typing import ClassVar

from rest_framework import serializers

from marketplace.accounts.models import ApiToken, User
from marketplace.accounts.services import DEFAULT_DAYS, MAX_DAYS

TOKEN_FIELDS = ("id", "name", "key", "scope", "created_at", "expires_at", "last_used_at")


class UserSerializer(serializers.ModelSerializer[User]):
    """The user behind the request."""

    class Meta:
        model = User
        fields = ("username", "email", "bio", "date_joined")
        read_only_fields = fields


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    """A token without its secret."""

    class Meta:
        model = ApiToken
        fields: ClassVar[tuple[str, ...]] = TOKEN_FIELDS
        read_only_fields: ClassVar[tuple[str, ...]] = TOKEN_FIELDS


class NewTokenSerializer(serializers.Serializer[ApiToken]):
    """What to make a token of."""

    name = serializers.CharField(max_length=60)
    scope = serializers.ChoiceField(choices=ApiToken.Scope.choices, default=ApiToken.Scope.READ)
    days = serializers.IntegerField(min_value=1, max_value=MAX_DAYS, default=DEFAULT_DAYS)


class IssuedTokenSerializer(TokenSerializer):
    """A token with its text, which is in this one answer and nowhere else."""

    token = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields: ClassVar[tuple[str, ...]] = (*TOKEN_FIELDS, "token")
        read_only_fields: ClassVar[tuple[str, ...]] = fields


class ErrorSerializer(serializers.Serializer[None]):
    """The form that every error has."""

    error = serializers.CharField()
    problems = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()), required=False
    )
    request_id = serializers.CharField(required=False)
