"""The pages of jobs."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from marketplace.compositions.models import CompositionJob
from marketplace.compositions.services import start_composition
from tests.marketplace.compositions.finished import finish, search

pytestmark = pytest.mark.django_db


def page_of(client: Client, job: CompositionJob, suffix: str = "") -> str:
    answer = client.get(f"{job.get_absolute_url()}{suffix}")
    assert answer.status_code == 200
    page: str = answer.content.decode()
    return page


def test_it_works(client, alice, job):
    client.force_login(alice)
    page = page_of(client, job)
    assert "Job 1" in page
    assert "place 1" in page
    assert "Cancel" in page
    assert f"/live/job:{job.pk}" in page


def test_the_list_shows_own_jobs_only(client, alice, bob, job):
    client.force_login(alice)
    assert job.get_absolute_url() in client.get("/jobs").content.decode()
    client.force_login(bob)
    page = client.get("/jobs").content.decode()
    assert job.get_absolute_url() not in page
    assert "No job yet" in page


def test_the_list_is_cut_into_pages(client, alice, make_request, sent, settings):
    settings.MAX_QUEUED_JOBS_PER_USER = 100
    for number in range(27):
        start_composition(make_request(title=f"Task {number}"))
    client.force_login(alice)
    assert "Task 26" in client.get("/jobs").content.decode()
    assert "Task 0" in client.get("/jobs?page=2").content.decode()


@pytest.mark.parametrize(
    "suffix", ["", "/progress", "/log", "/zip", "/report", "/recipe", "/files/recipe.json"]
)
def test_a_job_of_others_is_missing(client, bob, job, suffix):
    finish(job)
    client.force_login(bob)
    assert client.get(f"{job.get_absolute_url()}{suffix}").status_code == 404


@pytest.mark.parametrize("action", ["cancel", "retry", "clone", "forget", "publish"])
def test_others_can_do_nothing_with_it(client, bob, job, action):
    client.force_login(bob)
    assert client.post(f"{job.get_absolute_url()}/{action}").status_code == 404
    job.refresh_from_db()
    assert job.state == "queued"
    assert CompositionJob.objects.count() == 1


@pytest.mark.parametrize("action", ["cancel", "retry", "clone", "forget", "publish"])
def test_nothing_happens_by_reading(client, alice, job, action):
    client.force_login(alice)
    assert client.get(f"{job.get_absolute_url()}/{action}").status_code == 405


def test_visitors_are_asked_to_sign_in(client, job):
    assert client.get(job.get_absolute_url())["Location"].startswith(reverse("accounts:sign_in"))


def test_a_running_job_shows_search_and_weights(client, alice, job):
    search(job)
    client.force_login(alice)
    page = page_of(client, job, "/progress")
    assert "<b>12</b>" in page
    assert "+1.20" in page
    assert "\N{MINUS SIGN}0.50" in page
    # The candidates stand in the search's order: the best alone first.
    assert page.index("adapter-c") < page.index("adapter-a")
    assert 'data-sentence="Evaluation 10 of 52, best fit loss 2.00."' in page
    assert "claimed by a worker" in page


def test_a_trained_lora_is_weighed_beside_the_adapters(client, alice, job):
    CompositionJob.objects.filter(pk=job.pk).update(quick_lora=True, optimizer="gradient")
    search(job)
    job.evaluations.filter(number=0).update(weights=[0.0, 0.0])
    job.evaluations.filter(number=12).update(weights=[1.2, -0.5, 0.5])
    client.force_login(alice)
    page = page_of(client, job, "/progress")
    assert "LoRA trained on your rows" in page
    assert "of 53</span>" in page
    assert "adapter-a" not in page  # two candidates and the LoRA, in the order of the search


def test_a_finished_job_tells_of_gradients_and_memory(client, alice, job):
    finish(job)
    CompositionJob.objects.filter(pk=job.pk).update(
        quick_lora=True, peak_memory=1_500_000_000, recipe={"quick_lora": {"weight": 0.5}}
    )
    client.force_login(alice)
    page = page_of(client, job)
    assert "LoRA trained on your rows" in page
    assert "for a small LoRA on the fit rows" in page
    assert "at the peak" in page


def test_a_finished_job_shows_its_report(client, alice, job):
    finish(job)
    client.force_login(alice)
    page = page_of(client, job)
    assert "No clear difference." in page
    assert "3 held-out rows" in page
    assert "p = 0.250" in page
    assert "composed says" in page
    assert "Publish" in page
    assert "adapter_model.safetensors" in page
    assert "data-stream" not in page


def test_what_all_inputs_share_is_told_once(client, alice, job):
    finish(job)
    report = job.report
    for answer in report["answers"]:
        answer["input"] = f"Name the answer to this word.\n\nInput: {answer['input']}\nOutput:"
    CompositionJob.objects.filter(pk=job.pk).update(report=report)
    client.force_login(alice)

    page = page_of(client, job, "?answers=all")
    assert page.count("Name the answer to this word.") == 1
    assert '<td class="long">word7</td>' in page


def test_answers_are_those_that_differ_or_all(client, alice, job):
    finish(job)
    report = job.report
    report["answers"][7]["correct"] = dict.fromkeys(report["answers"][7]["correct"], True)
    job.save()
    client.force_login(alice)
    assert "word7" not in page_of(client, job)
    assert "word7" in page_of(client, job, "?answers=all")


def test_a_failed_job_says_why_and_what_to_do(client, alice, job):
    search(job)
    job.move(frm="running", to="failed", error="Out of memory.", error_fix="Use fewer rows.")
    client.force_login(alice)
    page = page_of(client, job)
    assert "Out of memory." in page
    assert "Use fewer rows." in page
    assert "Retry" in page
    assert "best weights so far" in page


def test_the_log_is_text(client, alice, job):
    search(job)
    client.force_login(alice)
    answer = client.get(f"{job.get_absolute_url()}/log")
    assert answer["Content-Type"].startswith("text/plain")
    assert "claimed by a worker" in answer.content.decode()


def test_cancelling_a_waiting_job(client, alice, job):
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/cancel", follow=True)
    job.refresh_from_db()
    assert job.state == "cancelled"
    assert "Cancelled." in answer.content.decode()


def test_retrying_a_cancelled_job(client, alice, job):
    job.move(frm="queued", to="cancelled")
    client.force_login(alice)
    client.post(f"{job.get_absolute_url()}/retry")
    job.refresh_from_db()
    assert (job.state, job.attempts, job.finished_at) == ("queued", 0, None)


def test_a_job_that_is_not_over_is_not_retried(client, alice, job):
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/retry", follow=True)
    assert "Only a failed or cancelled job" in answer.content.decode()


def test_cloning_starts_the_same_again(client, alice, job):
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/clone")
    twin = CompositionJob.objects.exclude(pk=job.pk).get()
    assert answer["Location"] == twin.get_absolute_url()
    assert twin.cloned_from == job
    assert twin.number == 2
    assert list(twin.examples.values_list("input", "split")) == list(
        job.examples.values_list("input", "split")
    )


def test_cloning_what_is_gone_leads_to_the_form(client, alice, job, adapters):
    adapters[0].visibility = "private"
    adapters[0].save()
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/clone", follow=True)
    assert "not available any more" in answer.content.decode()
    assert answer.redirect_chain[0][0].endswith(f"clone={job.pk}")


def test_rows_are_deleted_on_request_and_figures_stay(client, alice, job):
    finish(job)
    client.force_login(alice)
    client.post(f"{job.get_absolute_url()}/forget")
    job.refresh_from_db()
    assert not job.examples.exists()
    assert job.report["answers"] == []
    page = page_of(client, job)
    assert "word7" not in page
    assert "No clear difference." in page


def test_rows_of_a_job_that_needs_them_stay(client, alice, job):
    client.force_login(alice)
    answer = client.post(f"{job.get_absolute_url()}/forget", follow=True)
    assert "still needs its rows" in answer.content.decode()
    assert job.examples.count() == 8
