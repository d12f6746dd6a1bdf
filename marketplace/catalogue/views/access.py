"""Pages around gated adapters: ask, and withdraw; decide who is let in; what waits where."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from marketplace.accounts.models import User
from marketplace.accounts.visitors import signed_in
from marketplace.catalogue import services
from marketplace.catalogue.access_requests import list_by_asker, list_to_owner
from marketplace.catalogue.forms import GateForm, GrantForm
from marketplace.catalogue.models import AccessRequest, Adapter
from marketplace.catalogue.views.fetching import get_adapter, get_own_adapter

MAX_SHOWN = 500
DECISIONS = {"grant": AccessRequest.State.GRANTED, "refuse": AccessRequest.State.REFUSED}


@login_required
@require_safe
def list_requests(request: HttpRequest) -> HttpResponse:
    """List what waits for the visitor's decision, and what the visitor asked for."""
    waiting = list_to_owner(request.user).filter(state=AccessRequest.State.PENDING)
    context = {
        "nav": "catalogue",
        "waiting": waiting[:MAX_SHOWN],
        "asked": list_by_asker(request.user)[:MAX_SHOWN],
    }
    return render(request, "catalogue/requests.html", context)


@login_required
@require_safe
def show_access(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Show the owner who asked for the files, and who was let in."""
    return _render(request, get_own_adapter(request, owner, name), GrantForm())


@login_required
@require_POST
def set_gate(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Open the files to everybody, to whoever asks, or to whom the owner lets in."""
    adapter = get_own_adapter(request, owner, name)
    form = GateForm(request.POST)
    if form.is_valid():
        services.set_gate(adapter, form.cleaned_data["gated"], by=signed_in(request))
        messages.success(request, "The gate is set.")
    else:
        messages.error(request, "Choose whom the files are open to.")
    return redirect("catalogue:access", *adapter.full_name.split("/"))


@login_required
@require_POST
def ask(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Ask for the files of a gated adapter."""
    adapter = get_adapter(request, owner, name)
    try:
        services.ask_for_access(
            adapter, signed_in(request), message=request.POST.get("message", "").replace("\0", "")
        )
    except services.CatalogueError as error:
        messages.error(request, str(error))
    return redirect(adapter)


@login_required
@require_POST
def withdraw(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Take one's own request back."""
    adapter = get_adapter(request, owner, name)
    if services.withdraw_request(adapter, signed_in(request)):
        messages.success(request, "Your request is withdrawn.")
    return redirect(adapter)


@login_required
@require_POST
def decide(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Grant or refuse the request of one user."""
    adapter = get_own_adapter(request, owner, name)
    state = DECISIONS.get(request.POST.get("decision", ""))
    asker = _find_user(request.POST.get("user", ""))
    if state is None or asker is None:
        messages.error(request, "There is no such request.")
    else:
        try:
            decided = services.decide_access(adapter, asker, state, by=signed_in(request))
        except services.CatalogueError as error:
            messages.error(request, str(error))
        else:
            told = f"The request of {asker.username} is {decided.get_state_display()}."
            messages.success(request, told)
    if request.POST.get("back") == "requests":
        return redirect("catalogue:requests")
    return redirect("catalogue:access", *adapter.full_name.split("/"))


@login_required
@require_POST
def grant(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Let somebody in who did not ask."""
    adapter = get_own_adapter(request, owner, name)
    form = GrantForm(request.POST)
    if form.is_valid():
        user = _find_user(form.cleaned_data["user"])
        try:
            if user is None:
                raise services.NoSuchRequest("There is no user of this name.")
            services.grant_access(adapter, user, by=signed_in(request))
        except services.CatalogueError as error:
            form.add_error("user", str(error))
        else:
            messages.success(request, f"{user.username} is let in.")
            return redirect("catalogue:access", *adapter.full_name.split("/"))
    return _render(request, adapter, form, status=422)


def _render(
    request: HttpRequest, adapter: Adapter, grant_form: GrantForm, *, status: int = 200
) -> HttpResponse:
    rows = adapter.access_requests.select_related("user")
    context = {
        "nav": "catalogue",
        "adapter": adapter,
        "gate_form": GateForm(initial={"gated": adapter.gated}),
        "grant_form": grant_form,
        "groups": [
            (title, rows.filter(state=state)[:MAX_SHOWN])
            for title, state in (
                ("Waiting", AccessRequest.State.PENDING),
                ("Let in", AccessRequest.State.GRANTED),
                ("Refused", AccessRequest.State.REFUSED),
            )
        ],
    }
    return render(request, "catalogue/access.html", context, status=status)


def _find_user(name: str) -> User | None:
    name = name.strip().replace("\0", "")
    return User.objects.filter(username__iexact=name, is_active=True).first()
