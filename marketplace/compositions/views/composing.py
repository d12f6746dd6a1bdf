"""The compose page: adapters, rows, method; and the answer beside it, renewed while one types.

The page is one form. Without script its buttons do everything; with it, `check` keeps estimate,
licence and the reason why the search cannot start yet in step with what is typed.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from composer.compatibility import MERGE_METHODS, Compatibility
from composer.examples import MIN_ROWS_TO_SPLIT, default_fit_rows
from composer.examples import Example as Row
from marketplace.accounts.models import User
from marketplace.accounts.visitors import signed_in
from marketplace.catalogue.models import BaseModel, Revision
from marketplace.catalogue.tray import clear_tray, read_tray, remove_from_tray
from marketplace.compositions.estimating import Plan, estimate
from marketplace.compositions.forms import (
    BLANK_ROWS,
    BY_HAND,
    LEAST_ROWS,
    LORAHUB,
    PICK_FOR_ME,
    PICKED,
    SEARCHED,
    ComposeForm,
    typed_rows,
    typed_weights,
)
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import (
    CompositionError,
    CompositionRequest,
    check_composition,
    compare,
    derive_terms,
    start_composition,
)

GOOD_ROWS = 16
MAX_SHOWN_REVISIONS = 200
# What a start still lacks, in the order one fills the page, in words for a button.
_LACKS = {
    "adapters": "Pick adapters to start",
    "base_model": "Choose another base model to start",
    "examples": "Add rows to start",
    "n_fit": "Correct the number of fit rows to start",
    "merge_method": "Choose another merge method to start",
    "hand_weights": "Set the weights to start",
}


@dataclass(frozen=True)
class Draft:
    """What the page holds at the moment."""

    form: ComposeForm
    revisions: Sequence[Revision]
    rows: Sequence[Row]
    weights: Mapping[int, str]


@login_required
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponse:
    """Show the form; read rows or remove an adapter; or start the job."""
    if request.method == "GET":
        return _show(request, _first_draft(request))
    user = signed_in(request)
    form = ComposeForm(request.POST, request.FILES)
    form.is_valid()
    revisions = _posted_revisions(user, request.POST)
    if "remove" in request.POST:
        return _without(request, form, revisions)
    rows = form.read_rows(request.POST)
    draft = Draft(form, revisions, rows, typed_weights(request.POST))
    if request.POST.get("action") == "read":
        return _show_read(request, draft)
    if form.errors:
        return _show(request, draft, status=422)
    try:
        job = start_composition(_request(user, draft, request.POST))
    except CompositionError as error:
        form.add_problems(error.problems)
        return _show(request, draft, status=422)
    if not job.pick_for_me:
        clear_tray(request)
    return redirect(job.get_absolute_url())


@login_required
@require_POST
def check(request: HttpRequest) -> HttpResponse:
    """Answer with what the form comes to as it stands: a fragment for the page."""
    user = signed_in(request)
    form = ComposeForm(request.POST)
    form.is_valid()
    rows = form.read_rows(request.POST)
    draft = Draft(form, _posted_revisions(user, request.POST), rows, typed_weights(request.POST))
    return render(request, "compositions/_check.html", _answer(user, draft, request.POST))


def _first_draft(request: HttpRequest) -> Draft:
    user = signed_in(request)
    cloned = _cloned_job(user, request.GET.get("clone", ""))
    initial: dict[str, Any] = {"idempotency_key": uuid.uuid4().hex, "pool": PICKED}
    if cloned is not None:
        return _draft_of(cloned, initial)
    revisions = read_tray(request).revisions
    base = BaseModel.objects.filter(state=BaseModel.State.READY).order_by("pk").first()
    initial["base_model"] = revisions[0].base_model_id if revisions else base and base.pk
    if not revisions:
        initial["pool"] = PICK_FOR_ME
    return Draft(ComposeForm(initial=initial), revisions, (), {})


def _cloned_job(user: User, text: str) -> CompositionJob | None:
    try:
        pk = uuid.UUID(text)
    except ValueError:
        return None
    return CompositionJob.objects.owned_by(user).filter(pk=pk).first()


def _draft_of(job: CompositionJob, initial: dict[str, Any]) -> Draft:
    """The form as it was when the job started."""
    same = (
        "merge_method", "svd_rank", "budget", "seed", "selection", "n_candidates", "optimizer",
        "weight_bound", "l1_penalty", "prompt_format", "dtype", "prompting", "title", "instruction",
        "quick_lora", "weight_blocks",
    )  # fmt: skip
    initial |= {name: getattr(job, name) for name in same}
    initial |= {
        "pool": PICK_FOR_ME if job.pick_for_me else PICKED,
        "base_model": job.base_model_id,
        "method": SEARCHED if job.is_searched else BY_HAND,
        "n_fit": job.examples.filter(split="fit").count() or None,
    }
    usable = Revision.objects.visible_to(job.owner).on_shelf()
    items = job.ingredients.filter(revision__in=usable).select_related("revision__adapter__owner")
    weights = {item.revision_id: str((job.hand_weights or {}).get(item.name, "")) for item in items}
    revisions = () if job.pick_for_me else [item.revision for item in items]
    rows = [Row(_bare(job, row.input), row.output) for row in job.examples.all()]
    return Draft(ComposeForm(initial=initial), revisions, rows, weights)


def _bare(job: CompositionJob, text: str) -> str:
    """The input without the instruction that was laid around it."""
    head, tail = f"{job.instruction}\n\nInput: ", "\nOutput:"
    if job.instruction and text.startswith(head) and text.endswith(tail):
        return text[len(head) : -len(tail)]
    return text


def _posted_revisions(user: User, data: QueryDict) -> list[Revision]:
    """The adapters listed in the form, as far as the user may still use them."""
    ids = [int(text) for text in data.getlist("revision") if text.isdigit() and len(text) < 18]  # noqa: PLR2004
    usable = Revision.objects.visible_to(user).on_shelf().select_related("adapter__owner")
    rows = usable.in_bulk(ids[:MAX_SHOWN_REVISIONS])
    return [rows[pk] for pk in dict.fromkeys(ids) if pk in rows]


def _request(user: User, draft: Draft, data: QueryDict) -> CompositionRequest:
    asked = draft.form.request(user, revisions=draft.revisions, rows=draft.rows, data=data)
    if not asked.idempotency_key:
        return asked
    # The page's key and all that was asked: the same sent twice is one job, a change is another.
    content = repr(
        [
            [revision.pk for revision in asked.revisions],
            asked.pick_for_me and asked.base_model,
            asked.rows,
            asked.instruction,
            asked.title,
            asked.n_fit,
            asked.hand_weights,
            sorted(asked.options.items()),
        ]
    )
    digest = hashlib.sha256(content.encode(errors="replace")).hexdigest()[:32]
    return replace(asked, idempotency_key=f"{asked.idempotency_key[:64]}-{digest}")


def _without(
    request: HttpRequest, form: ComposeForm, revisions: Sequence[Revision]
) -> HttpResponse:
    """Show the form with an adapter less; it leaves the tray as well."""
    gone = request.POST["remove"]
    for revision in revisions:
        if str(revision.pk) == gone:
            remove_from_tray(request, revision.adapter_id)
    kept = [revision for revision in revisions if str(revision.pk) != gone]
    rows = typed_rows(request.POST)
    quiet = ComposeForm(initial=_typed(form, request.POST))
    return _show(request, Draft(quiet, kept, rows, typed_weights(request.POST)))


def _show_read(request: HttpRequest, draft: Draft) -> HttpResponse:
    """Show pasted or uploaded rows in the table, and the errors where they cannot be read."""
    if draft.form.errors.keys() & {"examples", "examples_file"}:
        return _show(request, draft, status=422)
    initial = {**_typed(draft.form, request.POST), "examples": ""}
    form = ComposeForm(initial=initial)
    return _show(request, Draft(form, draft.revisions, draft.rows, draft.weights))


def _typed(form: ComposeForm, data: QueryDict) -> dict[str, Any]:
    """What was typed, as the initial values of a form that complains of nothing yet."""
    ticks = ("prompting", "quick_lora")
    names = [name for name in form.fields if name not in {"examples_file", *ticks}]
    return {name: data.get(name, "") for name in names} | {name: name in data for name in ticks}


def _show(request: HttpRequest, draft: Draft, *, status: int = 200) -> HttpResponse:
    user = signed_in(request)
    data = request.POST if request.method == "POST" else QueryDict()
    context = _answer(user, draft, data) | {
        "nav": "compose",
        "form": draft.form,
        "table": _adapter_table(draft),
        "methods": MERGE_METHODS,
        "rows": draft.rows,
        "blank_rows": range(max(BLANK_ROWS, LEAST_ROWS - len(draft.rows))),
        "has_own_pool": bool(draft.revisions),
    }
    return render(request, "compositions/compose.html", context, status=status)


def _adapter_table(draft: Draft) -> list[dict[str, Any]]:
    fits = compare(draft.revisions).fits
    return [
        {
            "revision": revision,
            "adapter": revision.adapter,
            "fits": [
                (method, fits.get(revision.adapter.full_name, {}).get(method, True))
                for method in MERGE_METHODS
            ],
            "weight": draft.weights.get(revision.pk, ""),
        }
        for revision in draft.revisions
    ]


def _answer(user: User, draft: Draft, data: QueryDict) -> dict[str, Any]:
    """Everything that changes while one types."""
    bound = draft.form if draft.form.is_bound else _bind(draft.form)
    asked = bound.request(user, revisions=draft.revisions, rows=draft.rows, data=data)
    checked = check_composition(asked)
    problems = dict(checked.problems)
    if not draft.rows:
        problems["examples"] = ["There are no rows yet."]
    problems |= {name: [str(text) for text in errors] for name, errors in bound.errors.items()}
    count = len(draft.rows)
    n_fit = len(checked.split.fit) if checked.split else default_fit_rows(count)
    method = bound.cleaned_data.get("method") or SEARCHED
    return {
        "checked": checked,
        "reasons": _reasons_by_method(checked.compatibility),
        "problems": {
            name: texts for name, texts in problems.items() if name != "examples" or count
        },
        "lack": _first_lack(problems),
        "split": {
            "rows": count,
            "fit": min(n_fit, count),
            "held_out": max(0, count - n_fit),
            "is_small": count < MIN_ROWS_TO_SPLIT,
            "wants_more": count < GOOD_ROWS,
            "good": GOOD_ROWS,
        },
        "estimate": estimate(
            checked.base_model,
            Plan.of(checked.options, checked.pool, checked.split, is_searched=method != BY_HAND),
        ),
        "method": method,
        "is_by_hand": method == BY_HAND,
        "wants_lora": bool(checked.options.get("quick_lora")),
        "is_lorahub": method == LORAHUB,
        "hand_rows": _hand_rows(asked.hand_weights),
        "terms": derive_terms(checked.pool, user),
    }


def _bind(form: ComposeForm) -> ComposeForm:
    """The unbound form's initial values, read as if they had been sent."""
    data = QueryDict(mutable=True)
    for name, field in form.fields.items():
        value = form.get_initial_for_field(field, name)
        if value not in (None, False):
            data[name] = str(getattr(value, "pk", value))
    bound = ComposeForm(data)
    bound.is_valid()
    return bound


def _reasons_by_method(compatibility: Compatibility) -> list[tuple[str, list[str]]]:
    """Methods with reasons against them; a reason of several methods is told once."""
    told: set[str] = set()
    found = []
    for method, reasons in compatibility.methods.items():
        fresh = [reason for reason in reasons if reason not in told]
        told.update(fresh)
        if fresh:
            found.append((method, fresh))
    return found


def _first_lack(problems: Mapping[str, Sequence[str]]) -> str:
    """Why the button does not work yet; empty where it does."""
    for name, words in _LACKS.items():
        if problems.get(name):
            return words
    return "Correct the marked fields to start" if problems else ""


def _worth_showing(problems: Mapping[str, Sequence[str]], count: int) -> dict[str, Sequence[str]]:
    """Leave out what a page just opened lacks anyway."""
    return {name: texts for name, texts in problems.items() if name != "examples" or count}


def _hand_rows(weights: Mapping[str, float] | None) -> list[tuple[str, float]]:
    return [(name, weight) for name, weight in (weights or {}).items() if weight]
