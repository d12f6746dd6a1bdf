"""The catalogue's pages, asked for as the owner, a stranger and nobody."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

import pytest
from django.test import Client

from marketplace.catalogue import services
from marketplace.catalogue.models import Adapter, Revision
from marketplace.catalogue.services import CardFields, Parent
from marketplace.catalogue.tasks import add_up_downloads
from tests.factories import (
    make_adapter,
    make_base_model,
    make_revision,
    make_samples,
    make_user,
    tiny_adapter_files,
)

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}


def sign_in(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def text_of(response) -> str:
    return str(response.content.decode())


def drain(response) -> int:
    """Read a download to its end, as every client does, and return the status."""
    if response.streaming:
        b"".join(response.streaming_content)
    return int(response.status_code)


class TestList:
    def test_it_works(self, client) -> None:
        make_adapter(make_user("bob"), "antonym", summary="Say the opposite.", tags=["words"])
        page = text_of(client.get("/adapters"))
        assert "Say the opposite." in page
        assert "1 adapter" in page
        assert 'value="words"' in page

    def test_htmx_gets_the_changing_parts_only(self, client) -> None:
        make_adapter(name="antonym")
        answer = client.get("/adapters", {"q": "antonmy"}, headers=HTMX)
        assert "<html" not in text_of(answer)
        assert 'hx-swap-oob="true"' in text_of(answer)
        assert "antonym" in text_of(answer)
        assert "HX-Request" in answer["Vary"]
        assert answer["HX-Push-Url"] == "/adapters?q=antonmy"
        assert '<option value="" selected>Best match' in text_of(answer)

    def test_the_empty_shelf_and_no_match_say_what_to_do(self, client) -> None:
        assert "The shelf is empty" in text_of(client.get("/adapters"))
        make_adapter()
        page = text_of(client.get("/adapters?licence=MIT"))
        assert "Remove that filter" in page

    def test_examples_are_searched_for(self, client) -> None:
        make_adapter(name="numbered", samples=make_samples())
        page = text_of(client.get("/adapters?mode=examples&rows=question+7"))
        assert "numbered" in page
        assert "resemble your rows" in page

    def test_what_was_typed_is_escaped(self, client) -> None:
        page = text_of(client.get("/adapters", {"q": "<script>alert(1)</script>", "tag": '"><b>'}))
        assert "<script>alert" not in page
        assert '"><b>' not in page

    def test_suggestions_are_tags_in_use(self, client) -> None:
        make_adapter(tags=["animals", "words"])
        make_adapter(tags=["anonymous"], visibility="private")
        page = text_of(client.get("/adapters/tags?tags=words, an"))
        assert "animals" in page
        assert "anonymous" not in page


class TestOwner:
    def test_it_works(self, client) -> None:
        bob = make_user("bob", bio="Makes adapters.")
        make_adapter(bob, "antonym")
        make_adapter(bob, "unseen", visibility="private")
        page = text_of(client.get("/bob"))
        assert "Makes adapters." in page
        assert "antonym" in page
        assert "unseen" not in page
        assert "unseen" in text_of(sign_in(bob).get("/bob"))

    def test_a_name_in_another_case_is_redirected(self, client) -> None:
        make_user("bob")
        assert client.get("/BOB").headers["Location"] == "/bob"

    def test_nobody_is_not_found(self, client) -> None:
        make_user("banned", is_active=False)
        assert client.get("/nobody").status_code == 404
        assert client.get("/banned").status_code == 404


class TestAdapter:
    @pytest.fixture
    def composed(self) -> Any:
        demo = make_user("demo")
        hidden = make_adapter(demo, "hidden", visibility="private")
        shown = make_adapter(demo, "pick_animal")
        return make_adapter(
            demo,
            "pick_vehicle",
            card=CardFields(
                card="# Words\n\n<script>x</script>", summary="Vehicles.", language="en"
            ),
            parents=[Parent(shown.latest, 0.74), Parent(hidden.latest, -0.2)],
            losses=(3.4, 0.3),
        )

    @pytest.mark.parametrize(
        ("tab", "words"),
        [
            ("card", "<h2>Words</h2>"),
            ("files", "adapter_model.safetensors"),
            ("files", "self_attn.q_proj.lora_A.weight"),
            ("evaluation", "Loss on its own samples"),
            ("lineage", "pick_animal"),
            ("lineage", "an adapter that is not public"),
            ("versions", "current"),
            ("nonsense", "<h2>Words</h2>"),
        ],
    )
    def test_every_tab_shows_its_subject(self, client, composed, tab: str, words: str) -> None:
        page = text_of(client.get(f"/demo/pick_vehicle?tab={tab}"))
        assert words in page
        assert "demo/hidden" not in page

    def test_the_owner_sees_the_hidden_parent(self, composed) -> None:
        assert "hidden" in text_of(sign_in(composed.owner).get("/demo/pick_vehicle?tab=lineage"))

    def test_children_are_listed_where_they_are_visible(self, client, composed) -> None:
        assert "pick_vehicle" in text_of(client.get("/demo/pick_animal?tab=lineage"))
        services.set_visibility(composed, "private", by=composed.owner)
        assert "pick_vehicle" not in text_of(client.get("/demo/pick_animal?tab=lineage"))

    def test_a_report_is_drawn(self, client, composed) -> None:
        side = {"n": 4, "correct": 3, "score": 0.75, "interval": [0.3, 0.95], "loss": 0.2}
        row = {"method": "composed", "label": "Composed", "held_out": side, "fit": side}
        report = {"rows": [row], "metric": "exact_match", "verdict": {"headline": "It helped."}}
        Revision.objects.filter(pk=composed.latest_id).update(provenance={"report": report})
        page = text_of(client.get("/demo/pick_vehicle?tab=evaluation"))
        assert "It helped." in page
        assert "75 %" in page

    @pytest.mark.parametrize(
        ("client_name", "words"),
        [("peft", "PeftModel"), ("transformers", "load_adapter"), ("vllm", "--lora-modules")],
    )
    def test_snippets_have_real_names(self, client, composed, client_name, words) -> None:
        page = text_of(client.get(f"/demo/pick_vehicle?client={client_name}"))
        assert words in page
        assert "tiny/base" in page

    def test_private_looks_exactly_like_missing(self, client, composed) -> None:
        for address in (
            "/demo/hidden",
            "/demo/hidden?tab=files",
            "/demo/hidden/revisions/v1",
            "/demo/hidden/zip/v1",
            "/demo/hidden/download/v1/README.md",
        ):
            for visitor in (client, sign_in(make_user())):
                private = visitor.get(address)
                missing = visitor.get(address.replace("hidden", "missed"))
                assert private.status_code == missing.status_code == 404
                assert len(private.content) == len(missing.content)
            assert drain(sign_in(composed.owner).get(address)) == 200

    def test_without_a_version_only_the_owner_sees_it(self, client, composed) -> None:
        services.yank_revision(composed.latest, by=composed.owner, reason="Bad")
        assert client.get("/demo/pick_vehicle").status_code == 404
        assert client.get("/demo/pick_vehicle/revisions/v1").status_code == 200
        own = sign_in(composed.owner)
        for tab in ("card", "files", "evaluation", "lineage", "versions"):
            assert "No version is on the shelf" in text_of(own.get(f"/demo/pick_vehicle?tab={tab}"))

    def test_a_name_in_another_case_is_redirected(self, client, composed) -> None:
        assert client.get("/Demo/Pick_Vehicle").headers["Location"] == "/demo/pick_vehicle"

    def test_likes_go_to_and_fro(self, composed) -> None:
        fan = sign_in(make_user())
        assert "Liked" in text_of(fan.post("/demo/pick_vehicle/like", headers=HTMX))
        assert fan.post("/demo/pick_vehicle/like").status_code == 302
        assert Adapter.objects.get(pk=composed.pk).likes == 0
        assert Client().post("/demo/pick_vehicle/like").status_code == 302
        assert fan.get("/demo/pick_vehicle/like").status_code == 405


class TestRevision:
    def test_it_works(self, client) -> None:
        adapter = make_adapter(make_user("bob"), "antonym")
        second = make_revision(adapter, rank=8, title="Twice the rank")
        page = text_of(client.get("/bob/antonym/revisions/v2"))
        assert "Twice the rank" in page
        assert second.oid in page
        assert "Changes since v1" in page
        assert client.get(f"/bob/antonym/revisions/{second.oid}").status_code == 200

    def test_a_yanked_one_says_why(self, client) -> None:
        adapter = make_adapter(make_user("bob"), "antonym")
        services.yank_revision(adapter.latest, by=adapter.owner, reason="Wrong base")
        assert "Wrong base" in text_of(client.get("/bob/antonym/revisions/v1"))

    def test_files_that_came_and_went_are_named(self, client) -> None:
        files = tiny_adapter_files()
        adapter = make_adapter(make_user("bob"), "antonym", files={**files, "old.txt": b"old"})
        make_revision(adapter, files={**files, "new.txt": b"new"})
        page = text_of(client.get("/bob/antonym/revisions/v2"))
        assert "added" in page
        assert "removed" in page


class TestDownloads:
    def test_it_works(self, client) -> None:
        files = tiny_adapter_files()
        adapter = make_adapter(make_user("bob"), "antonym", files=files)
        address = "/bob/antonym/download/v1/adapter_model.safetensors"
        answer = client.get(address)
        content = b"".join(answer.streaming_content)
        assert content == files["adapter_model.safetensors"]
        assert answer["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        assert answer["Content-Disposition"].startswith("attachment")
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer
        assert answer["X-Repo-Commit"] == adapter.latest.oid
        add_up_downloads()
        adapter.refresh_from_db()
        assert adapter.downloads == 1

    def test_only_a_whole_download_of_the_weights_counts(self, client) -> None:
        adapter = make_adapter(make_user("bob"), "antonym")
        address = "/bob/antonym/download/v1/adapter_model.safetensors"
        drain(client.head(address))
        drain(client.get(address, headers={"Range": "bytes=100-"}))
        drain(client.get("/bob/antonym/download/v1/README.md"))
        add_up_downloads()
        adapter.refresh_from_db()
        assert adapter.downloads == 0
        drain(client.get(address, headers={"Range": "bytes=0-"}))
        add_up_downloads()
        adapter.refresh_from_db()
        assert adapter.downloads == 1

    def test_the_zip_holds_every_file(self, client) -> None:
        files = tiny_adapter_files()
        make_adapter(make_user("bob"), "antonym", files=files)
        answer = client.get("/bob/antonym/zip/v1")
        with zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content))) as archive:
            assert {name: archive.read(name) for name in archive.namelist()} == files

    def test_a_yanked_pin_still_downloads(self, client) -> None:
        adapter = make_adapter(make_user("bob"), "antonym")
        services.yank_revision(adapter.latest, by=adapter.owner, reason="Old")
        assert drain(client.get("/bob/antonym/zip/v1")) == 200
        assert client.get("/bob/antonym/zip/main").status_code == 404

    def test_private_files_are_kept_by_no_cache(self) -> None:
        adapter = make_adapter(make_user("bob"), "antonym", visibility="private")
        answer = sign_in(adapter.owner).get("/bob/antonym/download/v1/README.md")
        drain(answer)
        assert answer["Cache-Control"] == "private, no-store"

    @pytest.mark.parametrize(
        "path",
        ["..%2fsettings.py", "%2e%2e%2f", "..%5c", "%00", "/etc/passwd", "a" * 600, "README.md/"],
    )
    def test_only_the_revisions_own_files_can_be_named(self, client, path: str) -> None:
        make_adapter(make_user("bob"), "antonym")
        assert client.get(f"/bob/antonym/download/v1/{path}").status_code == 404


class TestTray:
    def test_it_works(self, client) -> None:
        adapter = make_adapter(name="antonym")
        data = {"revision": adapter.latest_id}
        answer = text_of(client.post("/adapters/tray/add", data, headers=HTMX))
        assert "In tray" in answer
        assert "Tray · 1" in answer
        assert client.session["tray"] == [adapter.latest_id]
        assert "Tray · 1" in text_of(client.get("/adapters"))
        answer = text_of(client.post("/adapters/tray/remove", data, headers=HTMX))
        assert "In tray" not in answer
        assert client.session["tray"] == []

    def test_without_script_it_leads_back(self, client) -> None:
        adapter = make_adapter()
        data = {"revision": adapter.latest_id, "next": "/adapters?q=x"}
        assert client.post("/adapters/tray/add", data).headers["Location"] == "/adapters?q=x"
        for evil in ("//evil", "/\\evil", "javascript:alert(1)", "https://evil/"):
            answer = client.post("/adapters/tray/add", {**data, "next": evil})
            assert answer.headers["Location"] == "/adapters"
        assert client.post("/adapters/tray/clear").headers["Location"] == "/adapters"
        assert "tray" not in client.session

    def test_a_newer_version_takes_the_place_of_the_older(self, client) -> None:
        adapter = make_adapter()
        client.post("/adapters/tray/add", {"revision": adapter.latest_id})
        second = make_revision(adapter)
        client.post("/adapters/tray/add", {"revision": second.pk})
        assert client.session["tray"] == [second.pk]

    def test_it_says_whether_the_adapters_fit(self, client) -> None:
        one, two = make_adapter(), make_adapter()
        for adapter in (one, two):
            client.post("/adapters/tray/add", {"revision": adapter.latest_id})
        assert "compatible" in text_of(client.get("/adapters"))
        other = make_adapter(base_model=make_base_model("org/other"))
        client.post("/adapters/tray/add", {"revision": other.latest_id})
        assert "do not fit" in text_of(client.get("/adapters"))

    def test_it_holds_twenty(self, client, monkeypatch) -> None:
        monkeypatch.setattr("marketplace.catalogue.tray.MAX_REVISIONS", 1)
        one, two = make_adapter(), make_adapter()
        client.post("/adapters/tray/add", {"revision": one.latest_id})
        client.post("/adapters/tray/add", {"revision": two.latest_id})
        assert client.session["tray"] == [one.latest_id]
        assert "Tray is full" in text_of(client.get("/adapters"))

    @pytest.mark.parametrize("number", ["", "x", "-1", "0", "9" * 30, "²"])
    def test_what_does_not_exist_is_not_found(self, client, number: str) -> None:
        assert client.post("/adapters/tray/add", {"revision": number}).status_code == 404

    def test_what_is_private_or_yanked_drops_out(self, client) -> None:
        hidden = make_adapter(visibility="private")
        answer = client.post("/adapters/tray/add", {"revision": hidden.latest_id})
        assert answer.status_code == 404
        adapter = make_adapter()
        client.post("/adapters/tray/add", {"revision": adapter.latest_id})
        services.yank_revision(adapter.latest, by=adapter.owner, reason="Old")
        assert "Tray ·" not in text_of(client.get("/adapters"))

    def test_a_session_that_was_tampered_with_is_empty(self, client) -> None:
        session = client.session
        session["tray"] = {"a": 1}
        session.save()
        assert client.get("/adapters").status_code == 200


class TestOwning:
    @pytest.fixture
    def adapter(self) -> Any:
        return make_adapter(
            make_user("bob"), "antonym", summary="Before.", samples=make_samples(), tags=["words"]
        )

    def form(self, **changes) -> dict[str, str]:
        fields = {
            "summary": "After.",
            "card": "# Card",
            "licence": "MIT",
            "prompt_format": "plain",
            "visibility": "public",
            "tags": "a, b",
            "samples": "x => y",
        }
        return fields | changes

    def test_it_works(self, adapter) -> None:
        bob = sign_in(adapter.owner)
        page = text_of(bob.get("/bob/antonym/edit"))
        assert "question 0 =&gt; answer 0" in page
        assert bob.post("/bob/antonym/edit", self.form()).headers["Location"] == "/bob/antonym"
        adapter.refresh_from_db()
        assert (adapter.summary, adapter.card, adapter.licence) == ("After.", "# Card", "MIT")
        assert sorted(tag.name for tag in adapter.tags.all()) == ["a", "b"]
        assert adapter.samples.get().input == "x"

    def test_problems_stand_beside_their_fields_and_input_is_kept(self, adapter) -> None:
        wrong = self.form(licence="nonsense", tags="<b>", samples="no arrow", summary="Kept here.")
        answer = sign_in(adapter.owner).post("/bob/antonym/edit", wrong)
        assert answer.status_code == 422
        assert "Kept here." in text_of(answer)
        wrong = self.form(licence="nonsense", tags="<b>")
        page = text_of(sign_in(adapter.owner).post("/bob/antonym/edit", wrong))
        assert "no licence we know" in page
        assert "cannot be a tag" in page
        adapter.refresh_from_db()
        assert adapter.summary == "Before."

    def test_a_pasted_front_matter_fills_what_is_empty(self, adapter) -> None:
        card = "---\nlicense: apache-2.0\nlanguage: en\ntags: [z]\n---\n# Hello"
        form = self.form(card=card, licence="", tags="", samples="")
        sign_in(adapter.owner).post("/bob/antonym/edit", form)
        adapter.refresh_from_db()
        assert (adapter.card, adapter.licence, adapter.language) == ("# Hello", "Apache-2.0", "en")
        assert adapter.tags.get().name == "z"
        broken = self.form(card="---\na: [\n---\n")
        page = text_of(sign_in(adapter.owner).post("/bob/antonym/edit", broken))
        assert "no valid YAML" in page

    def test_samples_of_several_lines_survive_editing(self, adapter) -> None:
        rows = '{"input": "a\\nb", "output": "c => d"}'
        bob = sign_in(adapter.owner)
        bob.post("/bob/antonym/edit", self.form(samples=rows))
        assert adapter.samples.get().input == "a\nb"
        assert "a\\nb" in text_of(bob.get("/bob/antonym/edit"))

    def test_the_preview_is_safe(self, adapter) -> None:
        bob = sign_in(adapter.owner)
        card = {"card": "---\ntags: [a]\n---\n# Hi\n<script>alert(1)</script>"}
        page = text_of(bob.post("/adapters/preview", card))
        assert "<h2>Hi</h2>" in page
        assert "<script>" not in page
        assert "no valid YAML" in text_of(bob.post("/adapters/preview", {"card": "---\n[\n---\n"}))
        assert "Nothing to show" in text_of(bob.post("/adapters/preview", {"card": ""}))

    def test_yank_and_back(self, adapter) -> None:
        bob = sign_in(adapter.owner)
        assert bob.get("/bob/antonym/revisions/v1/yank").status_code == 200
        assert bob.post("/bob/antonym/revisions/v1/yank", {"reason": " "}).status_code == 422
        assert bob.post("/bob/antonym/revisions/v1/yank", {"reason": "Old"}).status_code == 302
        assert Revision.objects.get().yank_reason == "Old"
        assert "Put back" in text_of(bob.get("/bob/antonym?tab=versions"))
        assert bob.post("/bob/antonym/revisions/v1/unyank").status_code == 302
        assert not Revision.objects.get().is_yanked

    def test_deleting_asks_for_the_name(self, adapter) -> None:
        bob = sign_in(adapter.owner)
        assert bob.get("/bob/antonym/delete").status_code == 200
        assert bob.post("/bob/antonym/delete", {"name": "antonym"}).status_code == 422
        assert bob.post("/bob/antonym/delete", {"name": "bob/antonym"}).status_code == 302
        assert bob.get("/bob/antonym").status_code == 404

    @pytest.mark.parametrize(
        "path",
        ["edit", "delete", "revisions/v1/yank", "revisions/v1/unyank"],
    )
    def test_it_is_the_owners_alone(self, adapter, path: str) -> None:
        stranger = sign_in(make_user())
        assert stranger.post(f"/bob/antonym/{path}", {}).status_code == 404
        answer = Client().post(f"/bob/antonym/{path}", {})
        assert "/accounts/sign-in" in answer.headers["Location"]
        adapter.refresh_from_db()
        assert adapter.summary == "Before."


class TestBaseModels:
    def test_it_works(self, client) -> None:
        make_adapter(base_model=make_base_model("org/model"))
        make_adapter(base_model=make_base_model("org/model"), visibility="private")
        make_base_model("org/broken", state="failed", module_table={})
        page = text_of(client.get("/base-models"))
        assert "org/model" in page
        assert "1<span" in page
        page = text_of(client.get("/base-models/org/model"))
        assert "model.layers.0.self_attn.q_proj" in page
        assert "has not read its layers" in text_of(client.get("/base-models/org/broken"))
        assert client.get("/base-models/org/none").status_code == 404

    def test_no_base_model_says_how_to_add_one(self, client) -> None:
        assert "add_base_model" in text_of(client.get("/base-models"))
