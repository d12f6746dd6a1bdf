from __future__ import annotations

import re

import pytest
from django.core import mail

from marketplace.accounts.tasks import send_reset_mail

pytestmark = pytest.mark.django_db


def test_it_works(client, ann, settings):
    settings.PUBLIC_URL = "https://loras.example.org"
    send_reset_mail("ann@example.org")
    [message] = mail.outbox
    assert message.to == ["ann@example.org"]
    assert message.subject == "Choose a new password"
    assert "Ann" in message.body
    [link] = re.findall(r"https://loras\.example\.org(/accounts/reset/\S+)", str(message.body))
    assert client.get(link, follow=True).status_code == 200


@pytest.mark.parametrize("email", ["nobody@example.org", "no address", ""])
def test_where_nobody_has_the_address_nothing_is_sent(ann, email):
    send_reset_mail(email)
    assert mail.outbox == []


def test_an_inactive_user_gets_no_mail(ann):
    ann.is_active = False
    ann.save()
    send_reset_mail("ann@example.org")
    assert mail.outbox == []
