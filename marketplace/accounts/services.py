"""The writes of accounts that touch more than one row, or the outside.

Problems are sentences by field, as everywhere; forms and the API show them alike.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerError

from marketplace.accounts.models import ApiToken, User
from marketplace.accounts.tasks import send_reset_mail

logger = logging.getLogger(__name__)

MAX_TOKENS = 20
DEFAULT_DAYS = 90
MAX_DAYS = 365
NAME_TAKEN = "This name is taken. Choose another one."


class AccountError(Exception):
    """What was asked for cannot be done; `problems` are sentences by field."""

    def __init__(self, problems: Mapping[str, Sequence[str]]) -> None:
        super().__init__(" ".join(text for texts in problems.values() for text in texts))
        self.problems = {name: list(texts) for name, texts in problems.items()}


class MailAway(Exception):
    """The queue that mails wait in does not answer."""


def create_account(user: User) -> User:
    """Save a new user whose password is set.

    Raises:
        AccountError: somebody else took the name in the same moment.
    """
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise AccountError({"username": [NAME_TAKEN]}) from None
    return user


def issue_token(user: User, *, name: str, scope: str, days: int) -> tuple[ApiToken, str]:
    """Make a token; return it and its text, which is kept nowhere.

    Raises:
        AccountError: the name is in use, or the user has the most tokens one may have.
    """
    with transaction.atomic():
        # Two requests at once must not both count 19.
        locked = User.objects.select_for_update().get(pk=user.pk)
        problems: dict[str, list[str]] = {}
        if locked.api_tokens.count() >= MAX_TOKENS:
            problems[""] = [f"You have {MAX_TOKENS} tokens. Revoke one before you make another."]
        if locked.api_tokens.filter(name=name).exists():
            problems["name"] = ["You have a token of this name. Choose another name."]
        if problems:
            raise AccountError(problems)
        expires_at = timezone.now() + timedelta(days=days)
        return ApiToken.issue(user=user, name=name, scope=scope, expires_at=expires_at)


def revoke_all_tokens(user: User) -> int:
    """End every token of the user's at once; return how many there were."""
    revoked, _ = ApiToken.objects.filter(user=user).delete()
    return revoked


def request_reset(email: str) -> None:
    """Have a worker mail a link to whoever has this address.

    Whether anybody has it is looked up by the worker: this takes the same time either way.

    Raises:
        MailAway: the queue does not answer; nothing will be sent.
    """
    try:
        send_reset_mail.delay(email)
    except BrokerError as error:
        logger.warning("accounts: a mail could not be queued: %s", error)
        raise MailAway from error
