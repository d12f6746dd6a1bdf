"""Downloads of a result, and publishing it."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import pytest

from marketplace.catalogue.models import Adapter, Lineage, Revision
from tests.factories import make_adapter
from tests.marketplace.compositions.finished import finish

pytestmark = pytest.mark.django_db
DIALOG = {"name": "vehicles", "summary": "Finds vehicles.", "visibility": "public", "tags": "a, b"}


def body(answer: Any) -> bytes:
    whole: bytes = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return whole


def test_it_works(client, alice, job):
    finish(job)
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/publish", DIALOG)
    adapter = Adapter.objects.get(name="vehicles")
    assert answer.status_code == 302
    assert answer["Location"] == adapter.get_absolute_url()
    assert adapter.kind == "composed"
    assert adapter.owner == alice
    assert adapter.licence == "Apache-2.0"
    assert {tag.name for tag in adapter.tags.all()} == {"a", "b"}
    assert adapter.samples.count() == 0
    edges = Lineage.objects.filter(child=adapter.latest).order_by("position")
    assert [edge.weight for edge in edges] == [0.5, -0.25]
    job.refresh_from_db()
    assert job.published == adapter.latest


@pytest.mark.parametrize("winner", ["composed", "best_single", "base"])
def test_the_winner_is_what_is_offered(winner, client, alice, job):
    finish(job)
    job.refresh_from_db()
    job.report["verdict"] |= {"winner": winner, "offer": f"Use {winner}."}
    job.save(update_fields=["report"])
    best = min(
        (i for i in job.ingredients.all() if i.screening_loss is not None),
        key=lambda i: i.screening_loss,
    )
    client.force_login(alice)
    page = client.get(job.get_absolute_url()).content.decode()
    offered = winner != "composed"
    assert ("Something else did at least as well." in page) == offered
    assert ("Publish the composition anyway" in page) == offered
    assert (f"Use {winner}." in page) == offered
    assert ("See that adapter" in page) == (winner == "best_single")
    if winner == "best_single":
        assert f'<a href="{best.revision.adapter.get_absolute_url()}">See that' in page


def test_what_stands_out_beside_the_parents_is_shown(client, alice, job):
    finish(job)
    job.refresh_from_db()
    client.force_login(alice)
    assert "Beside its parents" not in client.get(job.get_absolute_url()).content.decode()
    canary = {"prompt": "The sea is", "base": "wide", "composed": "<b>"}
    for notes, words in (([], "Nothing stands out"), (["It repeats itself."], "It repeats itself")):
        job.report["sanity"] = {"norm_ratio": 1.234, "notes": notes, "canaries": [canary]}
        job.save(update_fields=["report"])
        page = client.get(job.get_absolute_url()).content.decode()
        assert "1.23 times as much" in page
        assert words in page
        assert "<td>&lt;b&gt;</td>" in page


def test_the_recipe_on_the_shelf_pins_the_parents(client, alice, job, adapters):
    finish(job)
    client.force_login(alice)
    client.post(f"{job.get_absolute_url()}/publish", DIALOG)
    recipe = client.get("/alice/vehicles/download/v1/recipe.json")
    parents = json.loads(body(recipe))["parents"]
    assert [parent["weight"] for parent in parents] == [0.5, -0.25]
    assert parents[0]["revision"] == adapters[0].latest.oid
    assert parents[0]["sha256"] == adapters[0].latest.weights_sha256


def test_publishing_twice_is_publishing_once(client, alice, job):
    finish(job)
    client.force_login(alice)
    client.post(f"{job.get_absolute_url()}/publish", DIALOG)
    client.post(f"{job.get_absolute_url()}/publish", {**DIALOG, "name": "other"})
    assert Revision.objects.filter(job_key=job.pk).count() == 1
    assert not Adapter.objects.filter(name="other").exists()


def test_the_rows_become_samples_only_on_request(client, alice, job):
    finish(job)
    client.force_login(alice)
    client.post(f"{job.get_absolute_url()}/publish", {**DIALOG, "with_samples": "on"})
    adapter = Adapter.objects.get(name="vehicles")
    assert [sample.input for sample in adapter.samples.all()] == ["word0", "word1", "word2"]
    assert adapter.latest is not None
    assert adapter.latest.provenance["report"]["answers"] == []


def test_what_the_shelf_refuses_stands_beside_the_field(client, alice, job):
    finish(job)
    make_adapter(alice, "vehicles")
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/publish", {**DIALOG, "name": "Not A Name!"})
    assert answer.status_code == 422
    job.refresh_from_db()
    assert job.published is None


def test_a_missing_name_is_asked_for(client, alice, job):
    finish(job)
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/publish", {**DIALOG, "name": ""})
    assert answer.status_code == 422
    assert "This field is required" in answer.content.decode()


def test_a_job_without_a_result_is_not_published(client, alice, job):
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/publish", DIALOG)
    assert answer.status_code == 422
    assert "Only a job that succeeded" in answer.content.decode()


def test_the_dialog_proposes_a_free_name(client, alice, job):
    finish(job)
    make_adapter(alice, "a-task")
    client.force_login(alice)
    page = client.get(job.get_absolute_url()).content.decode()
    assert 'value="a-task-2"' in page


def test_parents_that_allow_no_works_close_the_dialog(client, alice, job, adapters):
    adapters[0].licence = "CC-BY-ND-4.0"
    adapters[0].save()
    finish(job)
    client.force_login(alice)
    assert "no derived works" in client.get(job.get_absolute_url()).content.decode()
    answer = client.post(f"{job.get_absolute_url()}/publish", DIALOG)
    assert answer.status_code == 422
    assert not Adapter.objects.filter(name="vehicles").exists()


def test_files_and_zip_are_the_owners(client, alice, job):
    finish(job)
    client.force_login(alice)
    answer = client.get(f"{job.get_absolute_url()}/files/recipe.json")
    assert body(answer) == b"{}"
    assert answer["Content-Disposition"].startswith("attachment")
    assert answer["Cache-Control"] == "private, no-store"
    archive = zipfile.ZipFile(io.BytesIO(body(client.get(f"{job.get_absolute_url()}/zip"))))
    assert "adapter_model.safetensors" in archive.namelist()


@pytest.mark.parametrize("path", ["missing.json", "x" * 200, "../settings.py", "a%00b"])
def test_only_what_the_job_made_can_be_named(client, alice, job, path):
    finish(job)
    client.force_login(alice)
    assert client.get(f"{job.get_absolute_url()}/files/{path}").status_code == 404


def test_report_and_recipe_are_json(client, alice, job):
    finish(job)
    client.force_login(alice)
    assert client.get(f"{job.get_absolute_url()}/report").json()["n_fit"] == 5
    assert client.get(f"{job.get_absolute_url()}/recipe").json()["seed"] == 42


@pytest.mark.parametrize("suffix", ["zip", "report", "recipe"])
def test_before_the_end_there_is_nothing_to_fetch(client, alice, job, suffix):
    client.force_login(alice)
    assert client.get(f"{job.get_absolute_url()}/{suffix}").status_code == 404
