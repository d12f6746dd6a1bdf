"""Sign up, in and out, passwords, settings and tokens.

Sign-in and the reset of a password answer alike for accounts that exist and that do not.
"""

from __future__ import annotations

from typing import Any

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
from django.views.decorators.http import require_http_methods, require_POST

from marketplace.accounts.forms import MAX_TOKENS, SettingsForm, SignUpForm, TokenForm
from marketplace.accounts.models import ApiToken, User

get_or_post = require_http_methods(["GET", "HEAD", "POST"])


@sensitive_post_parameters("password1", "password2")
@never_cache
@get_or_post
def sign_up(request: HttpRequest) -> HttpResponse:
    """Make an account and sign it in."""
    if request.user.is_authenticated:
        return redirect("front")
    form = SignUpForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.save()
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
        messages.success(request, f"Welcome, {user.username}. Your account is ready.")
        return redirect(_next_page(request))
    context = {"form": form, "next": request.GET.get("next", ""), "hide_search": True}
    return render(request, "accounts/sign_up.html", context, status=422 if form.errors else 200)


class SignIn(auth_views.LoginView):
    """Name and password; django-axes counts the failures."""

    template_name = "accounts/sign_in.html"
    redirect_authenticated_user = True
    extra_context = {"hide_search": True}  # noqa: RUF012


sign_in = never_cache(SignIn.as_view())
sign_out = auth_views.LogoutView.as_view(http_method_names=["post", "options"])


def locked_out(request: HttpRequest, credentials: dict[str, Any], **_: Any) -> HttpResponse:
    """Tell somebody with too many wrong passwords when to come back."""
    response = render(request, "accounts/locked_out.html", {"hide_search": True}, status=429)
    response["Retry-After"] = "300"
    return response


class ChangePassword(auth_views.PasswordChangeView):
    """The old password once, the new one twice."""

    template_name = "accounts/change_password.html"
    success_url = reverse_lazy("accounts:settings")

    def form_valid(self, form: Any) -> HttpResponse:
        """Change it, and revoke the tokens: whoever knew the old password may have made some."""
        response = super().form_valid(form)
        revoked, _ = ApiToken.objects.filter(user_id=self.request.user.pk).delete()
        tokens = f" Your {revoked} API tokens were revoked." if revoked else ""
        messages.success(self.request, f"The password is changed.{tokens}")
        return response


class ResetPassword(auth_views.PasswordResetView):
    """Ask for a mail with a link; the answer does not tell whether there is an account."""

    template_name = "accounts/reset_password.html"
    email_template_name = "accounts/reset_mail.txt"
    subject_template_name = "accounts/reset_subject.txt"
    success_url = reverse_lazy("accounts:reset_sent")
    extra_context = {"hide_search": True}  # noqa: RUF012


class ResetSent(auth_views.PasswordResetDoneView):
    """What to do now."""

    template_name = "accounts/reset_sent.html"


class ResetConfirm(auth_views.PasswordResetConfirmView):
    """The new password, from the mail's link."""

    template_name = "accounts/reset_confirm.html"
    success_url = reverse_lazy("accounts:sign_in")

    def form_valid(self, form: Any) -> HttpResponse:
        """Set it, revoke the tokens, and lead to the sign-in page."""
        response = super().form_valid(form)
        ApiToken.objects.filter(user=form.user).delete()
        messages.success(self.request, "The password is changed. Sign in with the new one.")
        return response


change_password = login_required(ChangePassword.as_view())
reset_password = ResetPassword.as_view()
reset_sent = ResetSent.as_view()
reset_confirm = ResetConfirm.as_view()


@login_required
@get_or_post
def settings(request: HttpRequest) -> HttpResponse:
    """Change what others see of the user, and the e-mail address."""
    user = _user(request)
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
    user = _user(request)
    form = TokenForm(request.POST or None, user=user)
    issued = ""
    if request.method == "POST" and form.is_valid():
        _, issued = form.issue()
        form = TokenForm(user=user)
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
    token = get_object_or_404(_user(request).api_tokens, pk=pk)
    token.delete()
    messages.success(request, f"The token “{token.name}” is revoked.")
    return redirect("accounts:tokens")


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 (login_required saw to it)
    return request.user


def _next_page(request: HttpRequest) -> str:
    target = request.POST.get("next", "")
    if url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        return target
    return reverse("front")
