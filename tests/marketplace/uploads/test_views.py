"""The upload page without script: files, report, card, publish; the draft survives it all."""

from __future__ import annotations

import io

import pytest
from django.test import Client
from django.urls import reverse

from marketplace.catalogue.models import Adapter
from marketplace.uploads.models import Upload
from marketplace.uploads.services import Announced, create_upload, receive_file, validate_upload
from marketplace.uploads.services import drafts as drafts_module
from tests.factories import make_adapter, make_base_model, tiny_adapter_files
from tests.marketplace.uploads.conftest import Fill, change_config

NEW = "/upload"


def as_form(files: dict[str, bytes]) -> dict[str, list[io.BytesIO]]:
    found = []
    for name, content in files.items():
        file = io.BytesIO(content)
        file.name = name
        found.append(file)
    return {"files": found}


def card(**changes: str) -> dict[str, str]:
    return {"name": "by-form", "prompt_format": "plain", "visibility": "public"} | changes


def test_it_works(signed_in: Client, base):
    sent = signed_in.post(NEW, as_form(tiny_adapter_files(seed=1)), follow=True)
    upload = Upload.objects.get()
    assert sent.redirect_chain == [(f"/upload/{upload.pk}", 302)]
    assert upload.state == Upload.State.READY
    assert b"fits its base" in sent.content
    assert b"q_proj, v_proj in 2 layers" in sent.content

    published = signed_in.post(
        f"/upload/{upload.pk}", card(licence="MIT", tags="a, b"), follow=True
    )

    assert published.redirect_chain[-1][0] == "/ann/by-form"
    assert b"Published as ann/by-form v1." in published.content
    assert {tag.name for tag in Adapter.objects.get().tags.all()} == {"a", "b"}
    # The draft's address now leads to the adapter.
    assert signed_in.get(f"/upload/{upload.pk}")["Location"] == "/ann/by-form"


def test_visitors_sign_in_first(client: Client, upload: Upload):
    for address in (NEW, f"/upload/{upload.pk}"):
        assert client.get(address).status_code == 302
        assert reverse("accounts:sign_in") in client.get(address)["Location"]


@pytest.mark.parametrize("part", ["", "/card", "/files", "/remove", "/check", "/discard"])
def test_somebody_elses_draft_is_missing(client: Client, stranger, upload: Upload, part: str):
    client.force_login(stranger)

    assert client.post(f"/upload/{upload.pk}{part}").status_code == 404
    assert client.get(f"/upload/{upload.pk}").status_code == 404
    assert Upload.objects.get() == upload


def test_the_page_lists_the_drafts(signed_in: Client, owner, fill: Fill, base):
    validate_upload(fill(create_upload(owner, name="half-done")))
    create_upload(owner)

    page = signed_in.get(NEW).content.decode()

    assert "half-done" in page
    assert "3 files" in page
    assert "not checked" in page
    assert signed_in.head(NEW).status_code == 200


def test_a_refusal_shows_every_reason_and_the_base_that_fits(
    signed_in: Client, upload: Upload, fill: Fill
):
    make_base_model("narrow/base", module_table={"model.layers.0.self_attn.q_proj": [8, 8]})
    files = change_config(tiny_adapter_files(seed=1), base_model_name_or_path="narrow/base")
    validate_upload(fill(upload, files))

    page = signed_in.get(f"/upload/{upload.pk}").content.decode()

    assert "cannot be published for base as it is" in page
    assert "Change the base to base" in page
    assert page.count("<li>") >= len(upload.problems)
    assert "Mend the files to publish" in page

    changed = signed_in.post(
        f"/upload/{upload.pk}/check", {"base_model": "tiny/base"}, follow=True
    ).content.decode()
    assert "fits its base" in changed


def test_a_mistake_in_the_card_keeps_what_was_typed(signed_in: Client, upload: Upload, fill: Fill):
    validate_upload(fill(upload))

    page = signed_in.post(f"/upload/{upload.pk}", card(name="", samples="no arrow"))

    assert page.status_code == 422
    text = page.content.decode()
    assert "This field is required" in text
    assert "line 1" in text
    upload.refresh_from_db()
    assert upload.samples == "no arrow"
    assert "no arrow" in signed_in.get(f"/upload/{upload.pk}").content.decode()


def test_what_the_shelf_refuses_stands_beside_its_field(
    signed_in: Client, upload: Upload, fill: Fill
):
    validate_upload(fill(upload))

    page = signed_in.post(f"/upload/{upload.pk}", card(name="a--b", licence="Nope", tags="!"))

    assert page.status_code == 400
    text = page.content.decode()
    assert "must not contain" in text
    assert "is no licence we know" in text
    assert "cannot be a tag" in text
    assert not Adapter.objects.exists()


def test_publishing_waits_for_the_check(signed_in: Client, upload: Upload, fill: Fill):
    fill(upload)
    assert "Waiting for the file check" in signed_in.get(f"/upload/{upload.pk}").content.decode()

    page = signed_in.post(f"/upload/{upload.pk}", card())

    assert page.status_code == 409
    assert "Have them checked first" in page.content.decode()


def test_the_card_is_saved_while_it_is_typed(signed_in: Client, upload: Upload):
    saved = signed_in.post(f"/upload/{upload.pk}/card", {"summary": "Half a sen", "tags": "a, B c"})

    assert saved.content == b"Draft saved. ann/first is free."
    upload.refresh_from_db()
    assert (upload.summary, upload.tags) == ("Half a sen", ["a", "B c"])
    signed_in.post(f"/upload/{upload.pk}", card(summary="Whole", save="1", visibility="secret"))
    upload.refresh_from_db()
    assert (upload.summary, upload.visibility) == ("Whole", "public")


def test_a_name_in_use_is_told_while_it_is_typed(signed_in: Client, owner, upload: Upload):
    make_adapter(owner, "speller")

    saved = signed_in.post(f"/upload/{upload.pk}/card", {"name": "Speller"})
    nameless = signed_in.post(f"/upload/{upload.pk}/card", {"name": " "})

    assert b"ann/Speller is yours already: this becomes its next version." in saved.content
    assert nameless.content == b"Draft saved."


def test_a_front_matter_pasted_into_the_card_fills_the_fields(
    signed_in: Client, upload: Upload, fill: Fill
):
    validate_upload(fill(upload))
    pasted = "---\nlicense: mit\nlanguage: de\n---\n# Karte\n"

    signed_in.post(f"/upload/{upload.pk}", card(card=pasted))

    adapter = Adapter.objects.get()
    assert (adapter.licence, adapter.language, adapter.card) == ("MIT", "de", "# Karte\n")


def test_files_are_replaced_and_removed(signed_in: Client, upload: Upload, fill: Fill):
    fill(upload, {"adapter_config.json": b"{", "notes.txt": b"x"})

    signed_in.post(f"/upload/{upload.pk}/remove", {"path": "notes.txt"})
    signed_in.post(f"/upload/{upload.pk}/files", as_form(tiny_adapter_files(seed=1)))

    upload.refresh_from_db()
    assert upload.state == Upload.State.READY
    assert not upload.files.filter(path="notes.txt").exists()


def test_a_file_that_is_none_of_an_adapter_is_named(signed_in: Client, base):
    page = signed_in.post(NEW, as_form({"optimizer.pt": b"x"}), follow=True).content.decode()

    assert "“optimizer.pt” is not part of a LoRA adapter." in page
    bad = signed_in.post(
        f"/upload/{Upload.objects.get().pk}/remove", {"path": "x.exe"}, follow=True
    )
    assert "“x.exe” is not part of a LoRA adapter." in bad.content.decode()


def test_a_form_without_files_says_so(signed_in: Client):
    page = signed_in.post(NEW, {}, follow=True).content.decode()

    assert "No file was chosen" in page


def test_an_incomplete_file_is_told_by_the_check(signed_in: Client, upload: Upload):
    receive_file(upload, "a.txt", [b"x"], Announced(size=9))

    page = signed_in.post(f"/upload/{upload.pk}/check", follow=True).content.decode()

    assert "a.txt has not arrived completely" in page
    assert "incomplete" in page


def test_too_many_drafts_are_refused_on_the_page(signed_in: Client, monkeypatch):
    monkeypatch.setattr(drafts_module, "MAX_OPEN_DRAFTS", 0)

    page = signed_in.post(NEW, as_form({"a.txt": b"x"}))

    assert page.status_code == 409
    assert "Publish or discard one first" in page.content.decode()


def test_discarding_asks_for_nothing_more(signed_in: Client, upload: Upload):
    page = signed_in.post(f"/upload/{upload.pk}/discard", follow=True)

    assert page.redirect_chain == [(NEW, 302)]
    assert not Upload.objects.exists()


def test_a_draft_of_a_deleted_adapter_leads_to_the_start(
    signed_in: Client, upload: Upload, fill: Fill
):
    validate_upload(fill(upload))
    signed_in.post(f"/upload/{upload.pk}", card())
    adapter = Adapter.objects.get()
    signed_in.post(f"/ann/{adapter.name}/delete", {"name": adapter.full_name})

    assert signed_in.get(f"/upload/{upload.pk}")["Location"] == NEW


def test_the_admin_only_looks_at_drafts(client: Client, owner, upload: Upload):
    owner.is_staff = owner.is_superuser = True
    owner.save()
    client.force_login(owner)

    page = client.get("/admin/uploads/upload/")

    assert page.status_code == 200
    assert str(upload.pk) in page.content.decode()
    assert client.get("/admin/uploads/upload/add/").status_code == 403
    assert client.get(f"/admin/uploads/upload/{upload.pk}/change/").status_code == 200


def test_hostile_texts_are_shown_as_texts(signed_in: Client, upload: Upload, fill: Fill):
    evil = "<script>alert(1)</script>"
    fill(upload, change_config(tiny_adapter_files(seed=1), base_model_name_or_path=evil))
    validate_upload(upload)
    signed_in.post(f"/upload/{upload.pk}/card", {"summary": evil, "name": evil, "card": evil})

    for address in (NEW, f"/upload/{upload.pk}"):
        assert evil not in signed_in.get(address).content.decode()


def test_nothing_in_the_page_needs_an_unsafe_policy(signed_in: Client, upload: Upload, fill: Fill):
    validate_upload(fill(upload))

    text = signed_in.get(f"/upload/{upload.pk}").content.decode()

    assert " style=" not in text
    assert " onclick=" not in text
    assert "<script>" not in text
