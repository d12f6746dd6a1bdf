"""The compose page."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from marketplace.catalogue.models import Adapter
from marketplace.compositions.models import CompositionJob
from tests.factories import make_adapter, make_base_model

pytestmark = pytest.mark.django_db
NEW = "/compose"

PAIRS = "\n".join(f"word{number} => answer{number}" for number in range(8))


def form_data(adapters: list[Adapter], **changes: Any) -> dict[str, Any]:
    return {
        "pool": "picked",
        "revision": [adapter.latest_id for adapter in adapters],
        "examples": PAIRS,
        "method": "screened",
        "merge_method": "concat",
        "budget": "40",
        "seed": "42",
        "n_candidates": "8",
        "weight_bound": "1.5",
        "l1_penalty": "0.05",
        "action": "start",
        "idempotency_key": "page-1",
        **changes,
    }


def put_into_tray(client: Client, adapters: list[Adapter]) -> None:
    session = client.session
    session["tray"] = [adapter.latest_id for adapter in adapters]
    session.save()


def test_it_works(client, alice, adapters, sent, django_capture_on_commit_callbacks):
    client.force_login(alice)
    put_into_tray(client, adapters)
    assert "carol/" in client.get(NEW).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(NEW, form_data(adapters))
    job = CompositionJob.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == job.get_absolute_url()
    assert job.owner == alice
    assert job.ingredients.count() == 3
    assert list(job.examples.values_list("split", flat=True)).count("fit") == 5
    assert sent == [str(job.pk)]
    assert not client.session.get("tray")


def test_it_asks_visitors_to_sign_in(client, db):
    answer = client.get(NEW)
    assert answer.status_code == 302
    assert answer["Location"].startswith(reverse("accounts:sign_in"))


def test_without_a_tray_it_proposes_to_pick(client, alice, adapters):
    client.force_login(alice)
    page = client.get(NEW).content.decode()
    assert 'value="all" required' in page or 'value="all"' in page
    assert "No adapter is picked yet" in page


def test_pick_for_me_takes_every_adapter_of_the_base(client, alice, adapters, sent):
    client.force_login(alice)
    base = make_base_model()
    client.post(NEW, form_data([], pool="all", base_model=base.pk))
    assert CompositionJob.objects.get().ingredients.count() == 3


def test_every_problem_is_named_beside_its_field(client, alice, adapters):
    client.force_login(alice)
    answer = client.post(NEW, form_data([], examples="", budget="0"))
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "greater than or equal to 1" in page
    answer = client.post(NEW, form_data([], examples="no arrow here"))
    page = answer.content.decode()
    assert "line 1" in page.lower()
    assert not CompositionJob.objects.exists()


def test_the_services_refusals_come_back_to_the_page(client, alice, adapters):
    client.force_login(alice)
    odd = make_adapter(name="odd", rank=8)
    answer = client.post(NEW, form_data([*adapters, odd], merge_method="factor"))
    assert answer.status_code == 422
    assert "Ranks differ" in answer.content.decode()


def test_rows_come_from_table_paste_and_file_together(client, alice, adapters, sent):
    client.force_login(alice)
    file = SimpleUploadedFile("rows.csv", b"input,output\nfrom file,yes\n")
    client.post(
        NEW,
        form_data(
            adapters,
            row_input=["typed", ""],
            row_output=["indeed", ""],
            examples="pasted => yes",
            examples_file=file,
        ),
    )
    rows = CompositionJob.objects.get().examples
    assert list(rows.values_list("input", flat=True)) == ["typed", "pasted", "from file"]


def test_line_breaks_in_a_row_reach_the_model_as_they_were_typed(client, alice, adapters, sent):
    client.force_login(alice)
    data = form_data(adapters, examples="")
    # What a browser makes of a line break in a text area.
    data["row_input"] = [f"Read.\r\n\r\nInput: word{number}\r\nOutput:" for number in range(8)]
    data["row_output"] = [f"answer{number}" for number in range(8)]

    client.post(NEW, data)

    inputs = CompositionJob.objects.get().examples.values_list("input", flat=True)
    assert "Read.\n\nInput: word0\nOutput:" in inputs


def test_reading_rows_shows_them_in_the_table_and_starts_nothing(client, alice, adapters):
    client.force_login(alice)
    answer = client.post(NEW, form_data(adapters, action="read"))
    page = answer.content.decode()
    assert answer.status_code == 200
    assert ">word7</textarea>" in page
    assert "8 rows" in page
    assert not CompositionJob.objects.exists()


def test_rows_that_cannot_be_read_stay_in_the_field(client, alice, adapters):
    client.force_login(alice)
    answer = client.post(NEW, form_data(adapters, action="read", examples="broken"))
    assert answer.status_code == 422
    assert "broken" in answer.content.decode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"\xff\xfe\x00", "not UTF-8"), (b"a => b\n" * 700_000, "larger than 4 MB")],
)
def test_a_file_that_cannot_be_used_says_why(client, alice, adapters, content, sentence):
    client.force_login(alice)
    data = form_data(adapters, examples_file=SimpleUploadedFile("rows.csv", content))
    assert sentence in client.post(NEW, data).content.decode()


def test_an_adapter_can_be_taken_out(client, alice, adapters):
    client.force_login(alice)
    put_into_tray(client, adapters)
    gone = adapters[1]
    data = form_data(adapters, remove=gone.latest_id, row_input=["kept"], row_output=["row"])
    page = client.post(NEW, data).content.decode()
    assert gone.full_name not in page
    assert adapters[0].full_name in page
    assert ">kept</textarea>" in page
    assert gone.latest_id not in client.session["tray"]


def test_the_same_form_sent_twice_is_one_job(client, alice, adapters, sent):
    client.force_login(alice)
    first = client.post(NEW, form_data(adapters))
    second = client.post(NEW, form_data(adapters))
    assert first["Location"] == second["Location"]
    third = client.post(NEW, form_data(adapters, seed="43"))
    assert third["Location"] != first["Location"]
    assert CompositionJob.objects.count() == 2


def test_lorahub_is_as_published(client, alice, adapters, sent):
    client.force_login(alice)
    client.post(NEW, form_data(adapters, method="lorahub", merge_method="svd"))
    job = CompositionJob.objects.get()
    assert (job.merge_method, job.optimizer, job.selection) == ("factor", "NGOpt", "random")


def test_weights_set_by_hand_are_kept(client, alice, adapters, sent):
    client.force_login(alice)
    weights = {f"weight_{adapters[0].latest_id}": "0.5", f"weight_{adapters[1].latest_id}": "-1"}
    client.post(NEW, form_data(adapters, method="hand", **weights))
    job = CompositionJob.objects.get()
    assert job.hand_weights == {
        adapters[0].full_name: 0.5,
        adapters[1].full_name: -1,
        adapters[2].full_name: 0,
    }
    assert not job.is_searched


def test_a_weight_that_is_no_number_is_refused(client, alice, adapters):
    client.force_login(alice)
    data = form_data(adapters, method="hand", **{f"weight_{adapters[0].latest_id}": "much"})
    assert "is no number" in client.post(NEW, data).content.decode()


def test_the_check_says_what_is_missing(client, alice, adapters):
    client.force_login(alice)
    url = reverse("compositions:check")
    empty = client.post(url, form_data([], examples=""), headers={"HX-Request": "true"})
    assert "Pick adapters to start" in empty.content.decode()
    rows = client.post(url, form_data(adapters, examples="")).content.decode()
    assert "Add rows to start" in rows
    ready = client.post(url, form_data(adapters), headers={"HX-Request": "true"})
    page = ready.content.decode()
    assert "Start the search" in page
    assert "aria-disabled" not in page
    assert 'data-fit="5"' in page
    assert "Apache-2.0" in page


def test_the_check_draws_the_recipe_of_weights_by_hand(client, alice, adapters):
    client.force_login(alice)
    data = form_data(adapters, method="hand", **{f"weight_{adapters[0].latest_id}": "0.5"})
    page = client.post(reverse("compositions:check"), data).content.decode()
    assert "Recipe" in page
    assert "+0.50" in page


def test_the_check_names_the_methods_that_do_not_fit(client, alice, adapters):
    client.force_login(alice)
    odd = make_adapter(name="odd", rank=8)
    data = form_data([*adapters, odd])
    page = client.post(
        reverse("compositions:check"), data, headers={"HX-Request": "true"}
    ).content.decode()
    assert "factor is not possible with these" in page
    assert "Start the search" in page


def test_licences_that_cannot_be_joined_are_told_before_the_start(client, alice, adapters):
    client.force_login(alice)
    closed = make_adapter(name="closed", licence="CC-BY-ND-4.0")
    page = client.post(
        reverse("compositions:check"), form_data([*adapters, closed])
    ).content.decode()
    assert "could not be published" in page


def test_a_clone_fills_the_form(client, alice, adapters, make_request, sent):
    from marketplace.compositions.services import start_composition

    job = start_composition(
        make_request(instruction="Find it.", options={"budget": 17, "merge_method": "svd"})
    )
    client.force_login(alice)
    page = client.get(f"{NEW}?clone={job.pk}").content.decode()
    assert 'value="17"' in page
    assert 'value="Find it."' in page
    assert ">word0</textarea>" in page
    assert "Input: word0" not in page
    assert adapters[0].full_name in page


@pytest.mark.parametrize("text", ["", "nonsense", "00000000-0000-0000-0000-000000000000"])
def test_a_clone_of_nothing_is_the_empty_form(client, alice, adapters, text):
    client.force_login(alice)
    assert client.get(f"{NEW}?clone={text}").status_code == 200


def test_nobody_clones_a_job_of_others(client, bob, job):
    client.force_login(bob)
    assert ">word0</textarea>" not in client.get(f"{NEW}?clone={job.pk}").content.decode()


def test_adapters_that_are_hidden_meanwhile_drop_out(client, alice, adapters):
    adapters[0].visibility = "private"
    adapters[0].save()
    client.force_login(alice)
    page = client.post(NEW, form_data(adapters, action="read")).content.decode()
    assert adapters[0].full_name not in page
    assert adapters[1].full_name in page


def test_json_lines_of_a_job_read_back(alice, job):
    from marketplace.compositions.forms import write_jsonl

    lines = write_jsonl(list(job.examples.all())).splitlines()
    assert json.loads(lines[0]) == {"input": "word0", "output": "answer0"}


def test_what_uses_gradients_is_asked_for_by_hand(client, alice, adapters, sent):
    client.force_login(alice)
    client.post(NEW, form_data(adapters))
    plain = CompositionJob.objects.get()
    assert not plain.uses_gradients
    client.post(NEW, form_data(adapters, optimizer="gradient", weight_blocks="3", quick_lora="on"))
    job = CompositionJob.objects.exclude(pk=plain.pk).get()
    assert (job.optimizer, job.weight_blocks, job.quick_lora) == ("gradient", 3, True)
    assert job.uses_gradients
    configuration = client.get(job.get_absolute_url()).content.decode()
    assert "for the weights, and for a small LoRA on the fit rows" in configuration
    assert "3, weights of their own" in configuration
    cloned = client.get(f"{NEW}?clone={job.pk}").content.decode()
    assert re.search(r'name="quick_lora"[^>]*checked', cloned)
    assert re.search(r'name="weight_blocks" value="3"', cloned)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "lorahub"}, ("NGOpt", 1, False)),
        ({"method": "hand", "weight_{pk}": "1"}, ("gradient", 1, True)),
        ({"optimizer": "greedy"}, ("greedy", 1, True)),
    ],
)
def test_what_the_method_hides_does_not_count(client, alice, adapters, sent, changes, expected):
    client.force_login(alice)
    asked = {"optimizer": "gradient", "weight_blocks": "2", "quick_lora": "on"} | {
        name.format(pk=adapters[0].latest_id): value for name, value in changes.items()
    }
    client.post(NEW, form_data(adapters, **asked))
    job = CompositionJob.objects.get()
    assert (job.optimizer, job.weight_blocks, job.quick_lora) == expected


def test_the_check_says_what_a_lora_costs_and_the_memory(client, alice, adapters):
    client.force_login(alice)
    answer = client.post(
        reverse("compositions:check"), form_data(adapters), headers={"HX-Request": "true"}
    )
    text = answer.content.decode()
    assert "<dt>Memory</dt><dd>about 1." in text
    assert "a small LoRA, with gradients" not in text
    assert "about as long as 250 evaluations more" in text
    answer = client.post(reverse("compositions:check"), form_data(adapters, quick_lora="on"))
    assert "a small LoRA, with gradients" in answer.content.decode()


def test_a_lora_and_lorahubs_formula_exclude_each_other_beside_the_field(client, alice, adapters):
    client.force_login(alice)
    answer = client.post(NEW, form_data(adapters, merge_method="factor", quick_lora="on"))
    assert answer.status_code == 422
    assert "A quick LoRA is added to an exact sum" in answer.content.decode()
