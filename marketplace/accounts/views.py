"""Sign up, in and out, passwords, settings and tokens.

Sign-in and the reset of a password answer alike for accounts that exist and that do not.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings as site_settings
from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from marketplace.accounts.forms import ResetForm, SettingsForm, SignInForm, SignUpForm, TokenForm
from marketplace.accounts.forms import add_problems as show_problems
from marketplace.accounts.limits import DAY, HOUR, Limit
from marketplace.accounts.services import (
    MAX_TOKENS,
    AccountError,
    MailAway,
    create_account,
    issue_token,
    request_reset,
    revoke_all_tokens,
)
from marketplace.accounts.visitors import signed_in
from marketplace.client_addresses import client_address

RESETS_PER_ADDRESS = 4  # times RESETS_PER_DAY: several people may share one internet address

get_or_post = require_http_methods(["GET", "HEAD", "POST"])


@sensitive_post_parameters("password1", "password2")
@never_cache
@get_or_post
def sign_up(request: HttpRequest) -> HttpResponse:
    """Make an account and sign it in."""
    if request.user.is_authenticated:
        return redirect("front")
    limit = Limit("sign-up", site_settings.SIGN_UPS_PER_HOUR, HOUR)
    if request.method == "POST" and limit.is_used_up(client_address(request)):
        return _too_many(request, "Too many accounts were made from your address.", HOUR)
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            user = create_account(form.save(commit=False))
        except AccountError as error:
            show_problems(form, error.problems)
        else:
            limit.use(client_address(request))
            login(request, user, backend="django.contrib.auth.backends.ModelBackend")
            messages.success(request, f"Welcome, {user.username}. Your account is ready.")
            return redirect(_next_page(request))
    context: dict[str, Any] = {
        "form": form,
        "next": request.GET.get("next", ""),
        "hide_search": True,
    }
    return render(request, "accounts/sign_up.html", context, status=422 if form.errors else 200)


@require_safe
def check_name(request: HttpRequest) -> HttpResponse:
    """Tell, while it is typed, whether a name can be had: a fragment for the sign-up page."""
    name = request.GET.get("username", "")
    form = SignUpForm({"username": name})
    form.is_valid()
    problems = list(form.errors.get("username", ())) if name else []
    context = {"name": name, "problems": problems}
    return render(request, "accounts/_name_check.html", context)


class AnswersInvalid:
    """Answers 422 with a form that has to be filled in again, as every page here does."""

    def form_invalid(self, form: Any) -> HttpResponse:
        """Show the form with its problems."""
        page: HttpResponse = super().form_invalid(form)  # type: ignore[misc]
        page.status_code = 422
        return page


class SignIn(AnswersInvalid, auth_views.LoginView):
    """Name and password; django-axes counts the failures."""

    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True
    extra_context = {"hide_search": True}  # noqa: RUF012


sign_in = never_cache(SignIn.as_view())
sign_out = auth_views.LogoutView.as_view(http_method_names=["post", "options"])


def locked_out(
    request: HttpRequest,
    response: HttpResponse | None = None,
    credentials: dict[str, Any] | None = None,
) -> HttpResponse:
    """Tell somebody with too many wrong passwords when to come back; called by django-axes."""
    response = render(request, "accounts/locked_out.html", {"hide_search": True}, status=429)
    response["Retry-After"] = "300"
    return response


class ChangePassword(AnswersInvalid, auth_views.PasswordChangeView):
    """The old password once, the new one twice."""

    template_name = "accounts/change_password.html"
    success_url = reverse_lazy("accounts:settings")

    def form_valid(self, form: Any) -> HttpResponse:
        """Change it, and revoke the tokens: whoever knew the old password may have made some."""
        response = super().form_valid(form)
        revoked = revoke_all_tokens(signed_in(self.request))
        tokens = f" Your API tokens ({revoked}) were revoked." if revoked else ""
        messages.success(self.request, f"The password is changed.{tokens}")
        return response


@never_cache
@get_or_post
def reset_password(request: HttpRequest) -> HttpResponse:
    """Ask for a mail with a link; the answer does not tell whether there is an account."""
    form = ResetForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        email = form.cleaned_data["email"]
        times = site_settings.RESETS_PER_DAY
        if not Limit("reset-from", times * RESETS_PER_ADDRESS, DAY).use(client_address(request)):
            return _too_many(request, "Too many mails were asked for from your address.", HOUR)
        try:
            # More mails to one mailbox are not sent, and that is not told either.
            if Limit("reset-to", times, DAY).use(email.lower()):
                request_reset(email)
        except MailAway:
            form.add_error(None, "Mail cannot be sent at the moment. Try again in a few minutes.")
        else:
            return redirect("accounts:reset_sent")
    context = {"form": form, "hide_search": True}
    status = 422 if form.errors else 200
    return render(request, "accounts/reset_password.html", context, status=status)


class ResetSent(auth_views.PasswordResetDoneView):
    """What to do now."""

    template_name = "accounts/reset_sent.html"


class ResetConfirm(AnswersInvalid, auth_views.PasswordResetConfirmView):
    """The new password, from the mail's link."""

    template_name = "accounts/reset_confirm.html"
    success_url = reverse_lazy("accounts:sign_in")

    def form_valid(self, form: Any) -> HttpResponse:
        """Set it, revoke the tokens, and lead to the sign-in page."""
        response = super().form_valid(form)
        revoke_all_tokens(form.user)
        messages.success(self.request, "The password is changed. Sign in with the new one.")
        return response


change_password = login_required(ChangePassword.as_view())
reset_sent = ResetSent.as_view()
reset_confirm = ResetConfirm.as_view()


@login_required
@get_or_post
def settings(request: HttpRequest) -> HttpResponse:
    """Change what others see of the user, and the e-mail address."""
    user = signed_in(request)
    form = SettingsForm(request.POST or None, instance=user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, "Your settings are saved.")
        return redirect("accounts:settings")
    return render(
        request, "accounts/settings.html", {"form": form}, status=422 if form.errors else 200
    )


@never_cache
@login_required
@get_or_post
def tokens(request: HttpRequest) -> HttpResponse:
    """List the user's tokens and make new ones; a new one's text is shown on this answer only."""
    user = signed_in(request)
    form = TokenForm(request.POST or None)
    issued = ""
    if request.method == "POST" and form.is_valid():
        try:
            _, issued = issue_token(user, **form.cleaned_data)
        except AccountError as error:
            show_problems(form, error.problems)
        else:
            form = TokenForm()
    context = {
        "form": form,
        "issued": issued,
        "tokens": user.api_tokens.all(),
        "max_tokens": MAX_TOKENS,
    }
    return render(request, "accounts/tokens.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def revoke_token(request: HttpRequest, pk: int) -> HttpResponse:
    """End a token of the user's at once."""
    token = get_object_or_404(signed_in(request).api_tokens, pk=pk)
    token.delete()
    messages.success(request, f"The token “{token.name}” is revoked.")
    return redirect("accounts:tokens")


def _too_many(request: HttpRequest, reason: str, seconds: int) -> HttpResponse:
    context = {"detail": f"{reason} Try again later.", "hide_search": True}
    response = render(request, "429.html", context, status=429)
    response["Retry-After"] = str(seconds)
    return response


def _next_page(request: HttpRequest) -> str:
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        return target
    return reverse("front")
