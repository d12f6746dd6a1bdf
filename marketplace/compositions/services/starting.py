"""Start a composition: everything is checked before a job exists, and all problems come at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from composer.compatibility import Compatibility, check_compatibility
from composer.errors import InvalidExamples
from composer.examples import (
    MAX_EXAMPLE_BYTES,
    ExampleSplit,
    default_fit_rows,
    parse_examples,
    split_examples,
)
from composer.examples import Example as Row
from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, BaseModel, Revision
from marketplace.compositions.models import CompositionJob, Example, Ingredient
from marketplace.compositions.optimizers import DEFAULT_OPTIMIZER, GRADIENT, OPTIMIZERS
from marketplace.compositions.services.errors import CompositionError
from marketplace.compositions.tasks import send_waiting

_MAX_KEY = 100
_MAX_WEIGHT = 10.0
_MIN_ROWS_TO_FIT = 1


@dataclass(frozen=True)
class CompositionRequest:
    """What the user asks for, already of the right types; meaning is checked by the service.

    `revisions` are the picked adapters; with `pick_for_me` the pool is every trained adapter of
    `base_model` that the owner may see. `rows` come parsed, or `examples` holds them as text.
    """

    owner: User
    revisions: Sequence[Revision] = ()
    pick_for_me: bool = False
    base_model: BaseModel | None = None
    examples: str = ""
    rows: Sequence[Row] = ()
    held_out: Sequence[Row] = ()
    instruction: str = ""
    title: str = ""
    n_fit: int | None = None
    hand_weights: Mapping[str, float] | None = None
    idempotency_key: str = ""
    cloned_from: CompositionJob | None = None
    options: Mapping[str, Any] = field(default_factory=dict)  # fields of CompositionJob


@dataclass(frozen=True)
class CheckedRequest:
    """What a request comes to, as far as it could be read, and what is wrong with it by field."""

    base_model: BaseModel | None
    pool: Sequence[Revision]
    split: ExampleSplit | None
    options: Mapping[str, Any]
    compatibility: Compatibility
    problems: Mapping[str, list[str]]


OPTION_NAMES = frozenset(
    {
        "selection", "n_candidates", "merge_method", "svd_rank", "optimizer", "budget", "seed",
        "weight_bound", "l1_penalty", "dtype", "prompt_format", "prompting", "quick_lora",
        "weight_blocks",
    }
)  # fmt: skip


def start_composition(request: CompositionRequest) -> CompositionJob:
    """Make a job, queue it when the transaction commits, and return it.

    The same idempotency key of the same owner gives the job that is there already. A queue that
    cannot be reached delays the job, it does not lose it: the reaper sends it later.

    Raises:
        CompositionError: with every problem by field; no job exists then.
    """
    if len(request.idempotency_key) > _MAX_KEY or not is_storable(request.idempotency_key):
        raise CompositionError({"idempotency_key": [f"At most {_MAX_KEY} plain characters."]})
    found = _find_started(request)
    if found:
        return found
    checked = check_composition(request)
    if checked.problems or checked.base_model is None or checked.split is None:
        raise CompositionError(checked.problems)
    with transaction.atomic():
        # The owner's row is the lock that makes the quotas below exact.
        User.objects.select_for_update(no_key=True).get(pk=request.owner.pk)
        found = _find_started(request)
        if found:
            return found
        _check_quotas(request.owner)
        job = _create(request, checked.base_model, checked.options)
        _fill(job, checked.pool, checked.split)
        transaction.on_commit(lambda: send_waiting(job.owner_id))
    return job


def check_composition(request: CompositionRequest) -> CheckedRequest:
    """Read a request and collect everything that is wrong with it; nothing is written."""
    problems: dict[str, list[str]] = {}
    base, pool = _check_pool(request, problems)
    split = _check_examples(request, problems)
    options = _check_options(request, pool, problems)
    for name in ("title", "instruction"):
        if not is_storable(getattr(request, name)):
            _add(problems, name, "Remove the characters that no text may hold, such as NUL.")
    return CheckedRequest(base, pool, split, options, compare(pool), problems)


def is_storable(text: str) -> bool:
    """Tell whether the database can hold the text: no NUL, no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def compatible_pool(owner: User, base: BaseModel) -> list[Revision]:
    """Return the newest revision of every adapter of a base that the owner may use."""
    rows = (
        Revision.objects.readable_files_by(owner)
        .on_shelf()
        .filter(pk__in=_latest_ids(owner, base))
        .select_related("adapter__owner")
        .order_by("-adapter__downloads", "-pk")
    )
    return list(rows[: settings.MAX_POOL])


def _latest_ids(owner: User, base: BaseModel) -> Any:
    shelf = Adapter.objects.visible_to(owner).filter(base_model=base, latest__isnull=False)
    # A composition of this very pool would only repeat its parents.
    return shelf.filter(kind=Adapter.Kind.TRAINED).values("latest")


def _find_started(request: CompositionRequest) -> CompositionJob | None:
    if not request.idempotency_key:
        return None
    jobs = CompositionJob.objects.owned_by(request.owner)
    return jobs.filter(idempotency_key=request.idempotency_key).first()


def _check_pool(
    request: CompositionRequest, problems: dict[str, list[str]]
) -> tuple[BaseModel | None, list[Revision]]:
    if request.pick_for_me:
        return _pick_pool(request, problems)
    wanted = list(dict.fromkeys(revision.pk for revision in request.revisions))
    readable = Revision.objects.readable_files_by(request.owner)
    usable = readable.on_shelf().select_related("adapter__owner")
    rows = usable.in_bulk(wanted)
    pool = [rows[pk] for pk in wanted if pk in rows]
    if len(wanted) < len(request.revisions):
        _add(problems, "adapters", "An adapter is there twice. Remove one of the two.")
    if len(pool) < len(wanted):
        _add(
            problems,
            "adapters",
            "An adapter you picked is not available any more. Remove it and pick another.",
        )
    if not pool:
        _add(problems, "adapters", "Pick at least one adapter, or choose “pick for me”.")
        return None, []
    if len(pool) > settings.MAX_POOL:
        _add(problems, "adapters", f"At most {settings.MAX_POOL} adapters; these are {len(pool)}.")
    bases = {revision.base_model_id for revision in pool}
    if len(bases) > 1:
        names = sorted({str(revision.base_model) for revision in pool})
        _add(
            problems,
            "adapters",
            f"These adapters belong to different base models ({', '.join(names)}). "
            "Keep those of one.",
        )
    return pool[0].base_model, pool


def _pick_pool(
    request: CompositionRequest, problems: dict[str, list[str]]
) -> tuple[BaseModel | None, list[Revision]]:
    base = request.base_model
    if base is None:
        _add(problems, "base_model", "Choose the base model whose adapters are to be tried.")
        return None, []
    pool = compatible_pool(request.owner, base)
    if not pool:
        _add(problems, "base_model", f"There is no adapter for {base.name} yet. Upload one first.")
    return base, pool


def _check_examples(
    request: CompositionRequest, problems: dict[str, list[str]]
) -> ExampleSplit | None:
    rows: Sequence[Row] = request.rows
    if not rows:
        try:
            rows = parse_examples(request.examples)
        except InvalidExamples as error:
            _add(problems, "examples", *(str(problem) for problem in error.problems))
            return None
    rows = [Row(_with_instruction(request.instruction, row.input), row.output) for row in rows]
    held_out = [
        Row(_with_instruction(request.instruction, row.input), row.output)
        for row in request.held_out
    ]
    if not _rows_fit(rows + held_out, problems):
        return None
    if held_out:
        return _given_split(rows, held_out)
    n_fit = request.n_fit
    if n_fit is not None and not _MIN_ROWS_TO_FIT <= n_fit <= len(rows):
        _add(problems, "n_fit", f"Between 1 and {len(rows)}, the number of your rows.")
        return None
    return split_examples(rows, n_fit=n_fit or default_fit_rows(len(rows)))


def _rows_fit(rows: Sequence[Row], problems: dict[str, list[str]]) -> bool:
    if len(rows) > settings.MAX_EXAMPLES:
        _add(problems, "examples", f"At most {settings.MAX_EXAMPLES} rows; these are {len(rows)}.")
        return False
    for number, row in enumerate(rows, start=1):
        size = len(row.input.encode(errors="replace")) + len(row.output.encode(errors="replace"))
        if size > MAX_EXAMPLE_BYTES:
            _add(
                problems,
                "examples",
                f"Row {number} has {size:,} bytes; at most {MAX_EXAMPLE_BYTES:,} are allowed. "
                "Shorten it.",
            )
        if not row.output.strip():
            _add(problems, "examples", f"Row {number} has no output. Write what you expect.")
        if not is_storable(row.input + row.output):
            _add(
                problems,
                "examples",
                f"Row {number} has a character that no text may hold, such as NUL. Remove it.",
            )
    return "examples" not in problems


def _given_split(rows: Sequence[Row], held_out: Sequence[Row]) -> ExampleSplit:
    count = len(rows)
    return ExampleSplit(
        fit=tuple(rows),
        held_out=tuple(held_out),
        fit_indices=tuple(range(count)),
        held_out_indices=tuple(range(count, count + len(held_out))),
    )


def _with_instruction(instruction: str, text: str) -> str:
    """Lay out an input as instruction-tuned adapters know it; without instruction as it is."""
    instruction = instruction.strip()
    return f"{instruction}\n\nInput: {text.strip()}\nOutput:" if instruction else text


def _check_options(
    request: CompositionRequest, pool: Sequence[Revision], problems: dict[str, list[str]]
) -> dict[str, Any]:
    unknown = set(request.options) - OPTION_NAMES
    for name in sorted(unknown):
        _add(problems, name, "There is no such option.")
    options = {name: value for name, value in request.options.items() if name in OPTION_NAMES}
    options.setdefault("optimizer", DEFAULT_OPTIMIZER)
    if options["optimizer"] not in OPTIMIZERS:
        _add(problems, "optimizer", f"Choose one of {', '.join(OPTIMIZERS)}.")
    options.setdefault("n_candidates", min(8, settings.MAX_CANDIDATES))
    draft = CompositionJob(owner=request.owner, number=0, **options)
    try:
        draft.full_clean(
            exclude=["owner", "base_model", "number"],
            validate_unique=False,
            validate_constraints=False,
        )
    except ValidationError as error:
        for name, texts in error.message_dict.items():
            _add(problems, name, *texts)
    if draft.n_candidates and draft.n_candidates > settings.MAX_CANDIDATES:
        _add(problems, "n_candidates", f"At most {settings.MAX_CANDIDATES} candidates.")
    if draft.selection == CompositionJob.Selection.ALL and len(pool) > settings.MAX_CANDIDATES:
        _add(
            problems,
            "selection",
            f"“All of them” takes at most {settings.MAX_CANDIDATES} adapters; these are "
            f"{len(pool)}. Choose screened search, which keeps the best.",
        )
    _check_gradients(request, draft, problems)
    _check_methods(draft, pool, problems)
    _check_hand_weights(request, pool, problems)
    return options


def _check_gradients(
    request: CompositionRequest, draft: CompositionJob, problems: dict[str, list[str]]
) -> None:
    """Refuse what the parts that use gradients cannot do, in the words of `composer`."""
    is_learned = draft.optimizer == GRADIENT and request.hand_weights is None
    if draft.weight_blocks and draft.weight_blocks > 1 and not is_learned:
        _add(
            problems,
            "weight_blocks",
            f"Weights by blocks of layers are learned by {GRADIENT} only. Choose it, or one block.",
        )
    if draft.merge_method != CompositionJob.MergeMethod.FACTOR:
        return
    if is_learned:
        _add(
            problems,
            "optimizer",
            f"{GRADIENT} learns the weights of an exact sum. Choose concat or svd.",
        )
    if draft.quick_lora:
        _add(
            problems,
            "quick_lora",
            "A quick LoRA is added to an exact sum. Choose concat or svd, or leave it out.",
        )


def _check_methods(
    draft: CompositionJob,
    pool: Sequence[Revision],
    problems: dict[str, list[str]],
) -> None:
    if not pool or "adapters" in problems:
        return
    reasons = compare(pool).methods.get(draft.merge_method, ())
    if reasons:
        _add(problems, "merge_method", *reasons)


def compare(pool: Sequence[Revision]) -> Compatibility:
    """Say which merge methods these adapters allow, and why not the others."""
    return check_compatibility(
        {
            revision.adapter.full_name: summary
            for revision in pool
            if (summary := revision.adapter_summary) is not None
        }
    )


def _check_hand_weights(
    request: CompositionRequest, pool: Sequence[Revision], problems: dict[str, list[str]]
) -> None:
    if request.hand_weights is None:
        return
    names = {revision.adapter.full_name for revision in pool}
    strangers = sorted(set(request.hand_weights) - names)
    if strangers:
        _add(problems, "hand_weights", f"{', '.join(strangers)} is not among the adapters.")
    for name, weight in request.hand_weights.items():
        if not isinstance(weight, int | float) or not -_MAX_WEIGHT <= weight <= _MAX_WEIGHT:
            _add(problems, "hand_weights", f"The weight of {name} must lie between -10 and 10.")
    if not any(request.hand_weights.values()):
        _add(problems, "hand_weights", "Give at least one adapter a weight other than zero.")


def _check_quotas(owner: User) -> None:
    jobs = CompositionJob.objects.owned_by(owner)
    waiting = jobs.queued().count()
    if waiting >= settings.MAX_QUEUED_JOBS_PER_USER:
        raise CompositionError(
            {"": [f"You have {waiting} jobs waiting, which is the most. Cancel one or wait."]}
        )
    today = jobs.filter(created_at__gte=timezone.now() - timedelta(days=1)).count()
    if today >= settings.MAX_JOBS_PER_DAY:
        raise CompositionError(
            {"": [f"You started {today} jobs in 24 hours, which is the most. Come back later."]}
        )


def _create(
    request: CompositionRequest, base: BaseModel, options: Mapping[str, Any]
) -> CompositionJob:
    jobs = CompositionJob.objects.owned_by(request.owner)
    highest = jobs.aggregate(highest=Max("number"))["highest"] or 0
    return CompositionJob.objects.create(
        owner=request.owner,
        number=highest + 1,
        base_model=base,
        title=request.title.strip()[:120] or request.instruction.strip()[:120],
        instruction=request.instruction.strip(),
        pick_for_me=request.pick_for_me,
        hand_weights=dict(request.hand_weights) if request.hand_weights is not None else None,
        idempotency_key=request.idempotency_key,
        cloned_from=request.cloned_from,
        **options,
    )


def _fill(job: CompositionJob, pool: Sequence[Revision], split: ExampleSplit) -> None:
    Ingredient.objects.bulk_create(
        Ingredient(job=job, revision=item, position=i, name=item.adapter.full_name)
        for i, item in enumerate(pool)
    )
    rows = dict(zip(split.fit_indices, split.fit, strict=True))
    held = dict(zip(split.held_out_indices, split.held_out, strict=True))
    Example.objects.bulk_create(
        Example(
            job=job,
            position=position,
            input=row.input,
            output=row.output,
            split=Example.Split.FIT if position in rows else Example.Split.HELD_OUT,
        )
        for position, row in sorted({**rows, **held}.items())
    )


def _add(problems: dict[str, list[str]], name: str, *texts: str) -> None:
    problems.setdefault(name, []).extend(texts)
