"""Celery entry points of accounts: mail is sent by a worker, so that no page waits for it."""

from __future__ import annotations

import smtplib
from urllib.parse import urlsplit

from celery import shared_task
from django.conf import settings
from django.contrib.auth.forms import PasswordResetForm


@shared_task(
    autoretry_for=(smtplib.SMTPException, OSError),
    max_retries=5,
    retry_backoff=10,
    retry_backoff_max=600,
)
def send_reset_mail(email: str) -> None:
    """Mail a link for a new password to every active user with this address, if there is one.

    The link leads to PUBLIC_URL, never to a host that a request named.
    """
    form = PasswordResetForm({"email": email})
    if not form.is_valid():
        return
    site = urlsplit(settings.PUBLIC_URL)
    form.save(
        domain_override=site.netloc,
        use_https=site.scheme == "https",
        subject_template_name="accounts/reset_subject.txt",
        email_template_name="accounts/reset_mail.txt",
        extra_email_context={"site_name": settings.SITE_NAME, "public_url": settings.PUBLIC_URL},
    )
