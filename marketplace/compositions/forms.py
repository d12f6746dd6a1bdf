"""Forms of compositions: what to compose, and how the result is published.

A form turns what was typed into the services' requests; what it means is checked by the services,
whose problems come back to the fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.http import QueryDict

from composer.errors import InvalidExamples
from composer.examples import Example as Row
from composer.examples import parse_examples
from marketplace.accounts.models import User
from marketplace.catalogue.models import Adapter, BaseModel, PromptFormat, Revision
from marketplace.compositions.models import CompositionJob
from marketplace.compositions.optimizers import (
    DEFAULT_BUDGET,
    DEFAULT_OPTIMIZER,
    GRADIENT,
    OPTIMIZERS,
)
from marketplace.compositions.services import CompositionRequest, PublishRequest

MAX_FILE_BYTES = 4 * 1024 * 1024
BLANK_ROWS = 3
LEAST_ROWS = 5
SEARCHED, LORAHUB, BY_HAND = "screened", "lorahub", "hand"
PICKED, PICK_FOR_ME = "picked", "all"
_WEIGHT = "weight_"


class ComposeForm(forms.Form):
    """Everything the compose page asks, but for the adapters and the rows, which are lists."""

    pool = forms.ChoiceField(
        choices=[(PICKED, "The adapters I picked"), (PICK_FOR_ME, "Pick for me")],
        widget=forms.RadioSelect,
        required=False,
    )
    base_model = forms.ModelChoiceField(
        queryset=BaseModel.objects.filter(state=BaseModel.State.READY),
        required=False,
        empty_label=None,
        help_text="Every trained adapter of this base that you may see is tried alone; "
        "the best of them go into the search.",
    )
    instruction = forms.CharField(
        required=False,
        max_length=2000,
        label="Instruction",
        widget=forms.TextInput(
            attrs={"placeholder": "Find the vehicle among these words.", "autocomplete": "off"}
        ),
        help_text="Put in front of every input. Adapters trained on instructions need it.",
    )
    examples = forms.CharField(
        required=False,
        strip=False,
        label="Paste rows",
        widget=forms.Textarea(attrs={"rows": 5, "class": "code"}),
        help_text="JSON Lines with input and output, CSV, or one pair a line: input =&gt; output.",
    )
    examples_file = forms.FileField(
        required=False,
        label="Or a file",
        help_text="JSON Lines or CSV, UTF-8.",
        widget=forms.FileInput(attrs={"accept": ".jsonl,.json,.csv,.tsv,.txt"}),
    )
    n_fit = forms.IntegerField(
        required=False,
        min_value=1,
        label="Fit rows",
        widget=forms.NumberInput(attrs={"placeholder": "automatic"}),
        help_text="The first rows choose the weights; all others only judge the result.",
    )
    method = forms.ChoiceField(
        choices=[
            (SEARCHED, "Screened search"),
            (LORAHUB, "LoraHub"),
            (BY_HAND, "Set weights by hand"),
        ],
        initial=SEARCHED,
        widget=forms.RadioSelect,
        required=False,
    )
    merge_method = forms.ChoiceField(
        choices=CompositionJob.MergeMethod.choices, label="Merge", required=False
    )
    svd_rank = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=256,
        label="Rank of the result",
        widget=forms.NumberInput(attrs={"placeholder": "automatic"}),
        help_text="Only for svd.",
    )
    budget = forms.IntegerField(
        initial=DEFAULT_BUDGET, min_value=1, max_value=500, label="Evaluations"
    )
    seed = forms.IntegerField(initial=42, min_value=0, max_value=2**31 - 1)
    selection = forms.ChoiceField(
        choices=CompositionJob.Selection.choices,
        label="Candidates are picked",
        required=False,
    )
    n_candidates = forms.IntegerField(
        initial=8, min_value=1, max_value=64, label="Candidates in the search"
    )
    optimizer = forms.ChoiceField(
        choices=list(OPTIMIZERS.items()), initial=DEFAULT_OPTIMIZER, required=False
    )
    weight_blocks = forms.IntegerField(
        initial=1,
        min_value=1,
        max_value=16,
        required=False,
        label="Blocks of layers",
        help_text="Each has weights of its own.",
    )
    quick_lora = forms.BooleanField(
        required=False, label="Train a small LoRA on your rows and let it join"
    )
    weight_bound = forms.FloatField(initial=1.5, min_value=0.1, max_value=10, label="Weight limit")
    l1_penalty = forms.FloatField(
        initial=0.05, min_value=0, max_value=10, label="Penalty on |weight|"
    )
    prompt_format = forms.ChoiceField(choices=PromptFormat.choices, required=False)
    dtype = forms.ChoiceField(choices=CompositionJob.Dtype.choices, label="Numbers", required=False)
    prompting = forms.BooleanField(
        required=False,
        initial=True,
        label="Compare with prompting",
        help_text="The base alone, with the fit rows in its prompt.",
    )
    title = forms.CharField(
        required=False,
        max_length=120,
        label="Title of the job",
        widget=forms.TextInput(attrs={"placeholder": "the instruction"}),
    )
    idempotency_key = forms.CharField(required=False, max_length=100, widget=forms.HiddenInput)

    def read_rows(self, data: QueryDict) -> list[Row]:
        """Return the rows typed into the table, then those pasted or uploaded.

        What cannot be read becomes an error of `examples`.
        """
        rows = typed_rows(data)
        texts = [self.cleaned_data.get("examples") or "", self._file_text()]
        for text in texts:
            if not text.strip():
                continue
            try:
                rows.extend(parse_examples(text))
            except InvalidExamples as error:
                self.add_error("examples", [str(problem) for problem in error.problems])
        return rows

    def request(
        self, owner: User, *, revisions: Sequence[Revision], rows: Sequence[Row], data: QueryDict
    ) -> CompositionRequest:
        """Return what was asked, for `services.start_composition`."""
        given = self.cleaned_data
        is_picked = given.get("pool") != PICK_FOR_ME
        return CompositionRequest(
            owner=owner,
            revisions=revisions if is_picked else (),
            pick_for_me=not is_picked,
            base_model=None if is_picked else given.get("base_model"),
            rows=rows,
            instruction=given.get("instruction", "").replace("\r\n", "\n"),
            title=given.get("title", ""),
            n_fit=given.get("n_fit"),
            hand_weights=self._hand_weights(revisions, data),
            idempotency_key=given.get("idempotency_key", ""),
            options=self._options(revisions),
        )

    def add_problems(self, problems: Mapping[str, Sequence[str]]) -> None:
        """Put a service's problems beside their fields, the rest above the form."""
        for name, texts in problems.items():
            for text in texts:
                self.add_error(name if name in self.fields else None, text)

    def _file_text(self) -> str:
        file = self.cleaned_data.get("examples_file")
        if file is None:
            return ""
        if file.size > MAX_FILE_BYTES:
            self.add_error("examples_file", "The file is larger than 4 MB. Take fewer rows.")
            return ""
        try:
            text: str = file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            self.add_error("examples_file", "The file is not UTF-8 text. Save it as UTF-8.")
            return ""
        return text

    def _hand_weights(
        self, revisions: Sequence[Revision], data: QueryDict
    ) -> dict[str, float] | None:
        if self.cleaned_data.get("method") != BY_HAND:
            return None
        weights = {}
        for revision in revisions:
            text = data.get(f"{_WEIGHT}{revision.pk}", "").strip() or "0"
            try:
                weights[revision.adapter.full_name] = float(text)
            except ValueError:
                self.add_error(None, f"The weight of {revision.adapter.full_name} is no number.")
        return weights

    def _options(self, revisions: Sequence[Revision]) -> dict[str, Any]:
        given = self.cleaned_data
        names = (
            "budget", "seed", "n_candidates", "weight_bound", "l1_penalty", "prompting",
            "quick_lora", "weight_blocks",
        )  # fmt: skip
        options = {name: given[name] for name in names if given.get(name) is not None}
        choices = ("merge_method", "selection", "optimizer", "prompt_format", "dtype")
        options |= {name: given[name] for name in choices if given.get(name)}
        if options.get("merge_method") == CompositionJob.MergeMethod.SVD:
            options["svd_rank"] = given.get("svd_rank")
        # The page hides what the method cannot use; what is hidden does not count.
        if given.get("method") == BY_HAND or options.get("optimizer") != GRADIENT:
            options["weight_blocks"] = 1
        if given.get("method") == LORAHUB:
            options |= {
                "quick_lora": False,
                "weight_blocks": 1,
                "selection": CompositionJob.Selection.RANDOM,
                "merge_method": CompositionJob.MergeMethod.FACTOR,
                "optimizer": "NGOpt",
            }
        elif given.get("method") == BY_HAND:
            options["selection"] = CompositionJob.Selection.ALL
        return options


class PublishForm(forms.Form):
    """The publish dialog."""

    name = forms.CharField(max_length=96, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    summary = forms.CharField(
        required=False, max_length=200, widget=forms.Textarea(attrs={"rows": 3})
    )
    licence = forms.CharField(required=False, max_length=200)
    task = forms.CharField(required=False, max_length=80)
    tags = forms.CharField(required=False, max_length=300, help_text="Separated by commas.")
    visibility = forms.ChoiceField(
        choices=Adapter.Visibility.choices, initial=Adapter.Visibility.PUBLIC
    )
    with_samples = forms.BooleanField(
        required=False,
        label="Show three of my rows as samples",
        help_text="Search by examples finds the adapter by them. Left out, your rows stay private.",
    )

    @classmethod
    def filled(cls, prefilled: Mapping[str, Any]) -> PublishForm:
        """The dialog as it is shown at first."""
        return cls(initial={**prefilled, "tags": ", ".join(prefilled["tags"])})

    def request(self) -> PublishRequest:
        """Return what was typed, for `services.publish_composition`."""
        given = dict(self.cleaned_data)
        given["tags"] = [tag.strip() for tag in given["tags"].split(",") if tag.strip()]
        return PublishRequest(**given)

    def add_problems(self, problems: Mapping[str, Sequence[str]]) -> None:
        """Put a service's problems beside their fields, the rest above the form."""
        for name, texts in problems.items():
            for text in texts:
                self.add_error(name if name in self.fields else None, text)


def typed_rows(data: QueryDict) -> list[Row]:
    """Return the rows of the page's table; rows left blank on both sides do not count.

    Browsers send the line breaks of a text area as CR LF; models were trained on LF.
    """
    inputs, outputs = (
        [text.replace("\r\n", "\n") for text in data.getlist(name)]
        for name in ("row_input", "row_output")
    )
    pairs = zip(inputs, outputs, strict=False)
    return [Row(left, right) for left, right in pairs if left.strip() or right.strip()]


def typed_weights(data: QueryDict) -> dict[int, str]:
    """Return the weights typed beside the adapters, by the revision's id."""
    found = {}
    for name, value in data.items():
        number = name.removeprefix(_WEIGHT)
        if name.startswith(_WEIGHT) and number.isdigit():
            found[int(number)] = str(value)
    return found


def write_jsonl(rows: Sequence[Row]) -> str:
    """Write rows as JSON Lines."""
    return "\n".join(
        json.dumps({"input": row.input, "output": row.output}, ensure_ascii=False) for row in rows
    )
