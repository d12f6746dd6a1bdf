"""What only the owner of an adapter sees: editing its card, yanking a revision, deleting it all."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from marketplace.accounts.visitors import signed_in
from marketplace.catalogue import services
from marketplace.catalogue.forms import (
    CardForm,
    DeleteForm,
    YankForm,
    add_problems,
    licence_options,
)
from marketplace.catalogue.front_matter import FrontMatterError, split_front_matter
from marketplace.catalogue.markdown import render_markdown
from marketplace.catalogue.models import Adapter
from marketplace.catalogue.views.fetching import get_own_adapter, get_revision

MAX_TASKS = 50


@login_required
@require_http_methods(["GET", "POST"])
def edit_card(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Edit what is said of an adapter; its files stay as they are."""
    adapter = get_own_adapter(request, owner, name)
    form = CardForm(request.POST) if request.method == "POST" else CardForm.of(adapter)
    if request.method == "POST" and form.is_valid():
        try:
            services.update_card(adapter, form.card_fields(), by=signed_in(request))
        except services.CatalogueError as error:
            form.add_problems(error)
        else:
            messages.success(request, "The card is saved.")
            return redirect(adapter)
    tasks = Adapter.objects.visible_to(request.user).exclude(task="").order_by("task")
    context = {
        "nav": "catalogue",
        "adapter": adapter,
        "form": form,
        "licences": licence_options(),
        "tasks": tasks.values_list("task", flat=True).distinct()[:MAX_TASKS],
    }
    return render(request, "catalogue/edit.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def preview_card(request: HttpRequest) -> HttpResponse:
    """Render what is being typed; htmx shows it beside the field."""
    try:
        _, body = split_front_matter(request.POST.get("card", ""))
    except FrontMatterError as error:
        return render(request, "catalogue/_preview.html", {"problem": str(error)})
    return render(request, "catalogue/_preview.html", {"card": render_markdown(body)})


@login_required
@require_http_methods(["GET", "POST"])
def yank(request: HttpRequest, owner: str, name: str, label: str) -> HttpResponse:
    """Take a revision off the shelf, with a reason."""
    adapter = get_own_adapter(request, owner, name)
    revision = get_revision(request, owner, name, label)
    form = YankForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            reason = form.cleaned_data["reason"]
            services.yank_revision(revision, by=signed_in(request), reason=reason)
        except services.CatalogueError as error:
            add_problems(form, error)
        else:
            messages.success(request, f"{revision.label} is off the shelf. Exact pins still work.")
            return redirect(f"{adapter.get_absolute_url()}?tab=versions")
    context = {"nav": "catalogue", "adapter": adapter, "revision": revision, "form": form}
    return render(request, "catalogue/yank.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def unyank(request: HttpRequest, owner: str, name: str, label: str) -> HttpResponse:
    """Put a yanked revision back."""
    adapter = get_own_adapter(request, owner, name)
    revision = get_revision(request, owner, name, label)
    services.unyank_revision(revision, by=signed_in(request))
    messages.success(request, f"{revision.label} is back on the shelf.")
    return redirect(f"{adapter.get_absolute_url()}?tab=versions")


@login_required
@require_http_methods(["GET", "POST"])
def delete(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Delete an adapter, once its name is typed again."""
    adapter = get_own_adapter(request, owner, name)
    form = DeleteForm(request.POST or None, expected=adapter.full_name)
    if request.method == "POST" and form.is_valid():
        services.delete_adapter(adapter, by=signed_in(request))
        messages.success(request, f"{adapter.full_name} is deleted.")
        return redirect("catalogue:owner", adapter.owner.username)
    context = {"nav": "catalogue", "adapter": adapter, "form": form}
    return render(request, "catalogue/delete.html", context, status=422 if form.errors else 200)
