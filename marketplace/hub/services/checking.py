"""Tell what a tree is: a whole adapter, with its facts and its card, or a draft.

A push is an upload: a whole adapter is inspected in a child process before it exists for anybody
else. Its files stay as they were pushed, so that a client finds again what it sent, with three
exceptions: a .bin becomes safetensors, a configuration that would be read in another way than it
was checked is written anew, and nothing that runs code when it is loaded is taken in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from composer.errors import Problem
from composer.inspection import AdapterSummary
from composer.pickle_reader import PICKLE_NAME
from composer.safetensors_header import WEIGHTS_NAME
from composer.strict_json import JSONError, parse_json
from marketplace.blobs.models import Blob
from marketplace.blobs.services import copy_blob, read_blob, store_bytes, store_file
from marketplace.catalogue.front_matter import FrontMatterError, read_readme, split_front_matter
from marketplace.catalogue.models import Adapter, BaseModel, Revision
from marketplace.catalogue.services import CardFields
from marketplace.catalogue.validation import CONFIG, Outcome, validate_folder
from marketplace.hub.errors import BadRequest
from marketplace.hub.services.folders import working_folder

CARD = "README.md"
MAX_CARD = 512 * 1024
# What loads by running code, and weights that nobody checked.
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill")
_LEFTOVERS = re.compile(
    r"(?:.*/)?(?:training_args\.bin|optimizer\.(?:pt|bin)|scheduler\.(?:pt|bin)|scaler\.pt|"
    r"rng_state(?:_\d+)?\.pth|events\.out\.tfevents\..*|\.DS_Store|Thumbs\.db|\.gitattributes)\Z"
)
_GENERIC = ("[More Information Needed]", "# Model Card for Model ID")
_LITERAL = re.compile(r"[A-Za-z0-9_.]+\Z")
_NARROWING = ("auto_mapping", "exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True)
class Checked:
    """A tree as it goes on the branch; with `summary` and `base_model` it is a whole adapter."""

    files: Mapping[str, Blob]
    summary: AdapterSummary | None = None
    base_model: BaseModel | None = None
    card: CardFields = field(default_factory=CardFields)


def is_leftover(path: str) -> bool:
    """Tell whether a file is left over from training, or from git: no part of an adapter."""
    return _LEFTOVERS.match(path) is not None


def is_whole(paths: Iterable[str]) -> bool:
    """Tell whether a tree with these paths is meant to be an adapter."""
    names = set(paths)
    return CONFIG in names and bool(names & {WEIGHTS_NAME, PICKLE_NAME})


def find_forbidden(paths: Iterable[str]) -> list[str]:
    """Say of each file that a whole adapter may not have why."""
    return [
        f"{path}: a pickle can run code when it is loaded. Leave it out, or take it away with "
        "delete_file."
        for path in sorted(paths)
        if path.lower().endswith(_PICKLES) and path != PICKLE_NAME
    ] + [
        f"{path}: only the adapter in the folder above all others is checked. Push this one to a "
        "branch or a repository of its own."
        for path in sorted(paths)
        if path != CONFIG and path.endswith(f"/{CONFIG}")
    ]


def check_tree(adapter: Adapter, head: Revision, files: Mapping[str, Blob]) -> Checked:
    """Return what a tree is, its files converted where they have to be.

    Raises:
        BadRequest: it is a whole adapter that is refused; the text holds every problem.
    """
    if not is_whole(files):
        return Checked(files)
    problems = find_forbidden(files)
    card, of_card = _read_card(files.get(CARD))
    problems += of_card
    files = _without_older_weights(head, files)
    known = _find_known(head, files)
    checked = known or _inspect(adapter, files, problems)
    problems += _find_unchecked(checked)
    if problems:
        raise BadRequest(
            f"{adapter.full_name} cannot be published like this. " + " | ".join(problems),
            problems=problems,
        )
    return replace(checked, card=_without_generic(card, adapter))


def _without_older_weights(head: Revision, files: Mapping[str, Blob]) -> Mapping[str, Blob]:
    """Leave out the weights that were there before a .bin came to take their place."""
    weights = files.get(WEIGHTS_NAME)
    if PICKLE_NAME not in files or weights is None:
        return files
    if not head.files.filter(path=WEIGHTS_NAME, blob=weights).exists():
        return files
    return {path: blob for path, blob in files.items() if path != WEIGHTS_NAME}


def _find_known(head: Revision, files: Mapping[str, Blob]) -> Checked | None:
    """Return the facts of the head where configuration and weights are the ones in it."""
    if head.state != Revision.State.ACCEPTED or PICKLE_NAME in files:
        return None
    before = dict(head.files.filter(path__in=(CONFIG, WEIGHTS_NAME)).values_list("path", "blob_id"))
    if any(files[path].pk != before.get(path) for path in (CONFIG, WEIGHTS_NAME)):
        return None
    return Checked(files, head.adapter_summary, head.base_model)


def _inspect(adapter: Adapter, files: Mapping[str, Blob], problems: list[str]) -> Checked:
    """Inspect a copy of the files in a child process; add what it says to `problems`."""
    with working_folder() as folder:
        for path in (CONFIG, WEIGHTS_NAME, PICKLE_NAME):
            if path in files:
                copy_blob(files[path], folder / path)
        outcome = _validate(adapter, files, folder)
        problems += [str(problem) for problem in outcome.problems]
        if outcome.fitting_bases:
            problems.append(f"The tensors fit these bases: {', '.join(outcome.fitting_bases)}.")
        if outcome.summary is None or outcome.base_model is None:
            return Checked(files)
        kept = {path: blob for path, blob in files.items() if path != PICKLE_NAME}
        if WEIGHTS_NAME not in kept:
            sha256 = outcome.summary.weights_sha256
            kept[WEIGHTS_NAME] = store_file(folder / WEIGHTS_NAME, sha256=sha256)
    if not _means_the_same(read_blob(files[CONFIG]), outcome.summary.config, outcome.base_model):
        text = json.dumps(outcome.summary.config, indent=2, sort_keys=True)
        kept[CONFIG] = store_bytes(f"{text}\n".encode())
    return Checked(kept, outcome.summary, outcome.base_model)


def _validate(adapter: Adapter, files: Mapping[str, Blob], folder: Path) -> Outcome:
    """Check against the base that the configuration names, else the one known otherwise.

    A configuration saved beside a local base names a folder of the client's machine.
    """
    outcome = validate_folder(folder, base_model=None)
    if outcome.base_model is None and outcome.problems:
        base = _base_of_card(files.get(CARD)) or adapter.base_model
        if base is not None:
            return validate_folder(folder, base_model=base)
    return outcome


def _base_of_card(readme: Blob | None) -> BaseModel | None:
    try:
        fields, _ = split_front_matter(_read_text(readme))
    except (FrontMatterError, UnicodeDecodeError):
        return None
    name = fields.get("base_model")
    name = name[0] if isinstance(name, list) and name else name
    return BaseModel.objects.named(name) if isinstance(name, str) else None


def _means_the_same(pushed: bytes, rebuilt: Mapping[str, Any], base: BaseModel) -> bool:
    """Tell whether peft reads the pushed configuration as the one rebuilt from what was checked.

    Inspection has passed every key; what is left are patterns that peft would match by `re`, code
    it would import, and the name of the base.
    """
    try:
        config = parse_json(pushed)
    except JSONError:  # pragma: no cover - inspection has read it
        return False
    if not isinstance(config, dict):  # pragma: no cover - likewise
        return False
    plain = isinstance(config.get("target_modules"), list)
    narrowed = any(config.get(key) not in (None, [], "") for key in _NARROWING)
    patterns = [*(config.get("rank_pattern") or ()), *(config.get("alpha_pattern") or ())]
    literal = all(_LITERAL.match(key) for key in patterns)
    name = config.get("base_model_name_or_path")
    same_base = isinstance(name, str) and BaseModel.objects.named(name) == base
    return plain and not narrowed and literal and same_base


def _find_unchecked(checked: Checked) -> list[str]:
    """Name weights beside the checked ones; copies of these are fine."""
    if checked.summary is None:
        return []
    return [
        f"{path}: only {WEIGHTS_NAME} is checked. Push other weights to a branch or a repository "
        "of their own."
        for path, blob in sorted(checked.files.items())
        if path.endswith(".safetensors") and blob.pk != checked.summary.weights_sha256
    ]


def _read_card(readme: Blob | None) -> tuple[CardFields, list[str]]:
    if readme is None:
        return CardFields(), []
    if readme.size > MAX_CARD:
        told = Problem(CARD, "", f"It has {readme.size} bytes; at most {MAX_CARD} are allowed.")
        return CardFields(), [str(told)]
    try:
        return read_readme(_read_text(readme)), []
    except UnicodeDecodeError as error:
        told = Problem(CARD, "", f"Byte {error.start} is not UTF-8.", "Save the file as UTF-8.")
    except FrontMatterError as error:
        told = Problem(CARD, "front matter", str(error))
    return CardFields(), [str(told)]


def _without_generic(card: CardFields, adapter: Adapter) -> CardFields:
    """Keep what is known of the adapter where a card says nothing in its place.

    `push_to_hub` writes a template with blanks over whatever card was there.
    """
    text = card.card or ""
    generic = any(mark in text for mark in _GENERIC) or not text.strip()
    return replace(card, card=None) if generic else card


def _read_text(readme: Blob | None) -> str:
    if readme is None or readme.size > MAX_CARD:
        return ""
    return read_blob(readme, limit=MAX_CARD).decode("utf-8")
