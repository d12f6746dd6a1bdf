from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from marketplace.accounts.models import ApiToken
from marketplace.catalogue import services
from marketplace.catalogue.search import pages
from marketplace.catalogue.services import Parent
from tests.factories import make_adapter, make_base_model, make_samples, make_user

pytestmark = pytest.mark.django_db
ROOT = "/api/v1/adapters"


def api(user=None, scope: str = "write") -> APIClient:
    client = APIClient()
    if user is not None:
        _, token = ApiToken.issue(
            user=user,
            name=f"{scope} token",
            scope=scope,
            expires_at=timezone.now() + timedelta(days=1),
        )
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


@pytest.fixture
def adapter() -> Any:
    return make_adapter(
        make_user("bob"), "antonym", summary="Say the opposite.", samples=make_samples(), tags=["w"]
    )


class TestList:
    def test_it_works(self, adapter) -> None:
        make_adapter(visibility="private")
        answer = api().get(ROOT, {"q": "oposite"}).json()
        assert answer["count"] == 1
        found = answer["results"][0]
        assert found["id"] == "bob/antonym"
        assert found["revision"] == adapter.latest.oid
        assert found["tags"] == ["w"]

    def test_pages_and_limits(self, adapter) -> None:
        make_adapter(adapter.owner, "second")
        answer = api().get(ROOT, {"limit": 1}).json()
        assert (answer["count"], len(answer["results"])) == (2, 1)
        rest = api().get(answer["next"]).json()
        assert (rest["count"], len(rest["results"]), rest["next"]) == (2, 1, None)
        assert rest["results"] != answer["results"]
        assert api().get(rest["previous"]).json()["results"] == answer["results"]
        assert api().get(ROOT, {"limit": "1000000", "page": "9"}).json()["results"] == []
        for page in ("0", "-1", "x", "1e9"):
            assert api().get(ROOT, {"page": page}).status_code == 400

    @pytest.mark.parametrize("cursor", ["x", "é", "WyJ1c2VkIl0", "W1tbW1tbW1tbW1tbW1tb"])
    def test_a_cursor_that_is_none_of_ours_is_refused(self, adapter, cursor: str) -> None:
        answer = api().get(ROOT, {"cursor": cursor})
        assert answer.status_code == 400
        assert "Begin again without it" in answer.json()["error"]

    def test_pages_are_counted_off_only_so_far(self, adapter, monkeypatch) -> None:
        make_adapter(adapter.owner, "second")
        monkeypatch.setattr(pages, "MAX_RANKED", 1)
        first = api().get(ROOT, {"q": "bob", "limit": 1}).json()
        assert (first["count"], first["next"]) == (2, None)
        answer = api().get(ROOT, {"q": "bob", "limit": 1, "page": 2})
        assert answer.status_code == 400
        assert "within the first 1 results" in answer.json()["problems"]["page"][0]

    def test_facets(self, adapter) -> None:
        facets = {facet["name"]: facet["counts"] for facet in api().get(f"{ROOT}/facets").json()}
        assert facets["owner"] == [{"value": "bob", "label": "bob", "count": 1}]


class TestAdapter:
    def test_it_works(self, adapter) -> None:
        found = api().get(f"{ROOT}/bob/antonym").json()
        assert found["samples"][0] == {"input": "question 0", "output": "answer 0"}
        assert found["current"]["rank"] == 4

    def test_the_owner_changes_the_card(self, adapter) -> None:
        changes = {
            "summary": "New.",
            "tags": ["x"],
            "samples": [{"input": "a", "output": "b"}],
            "downloads": 99,
            "owner": "eve",
            "base_loss": 0,
        }
        answer = api(adapter.owner).patch(f"{ROOT}/bob/antonym", changes)
        assert answer.status_code == 200
        adapter.refresh_from_db()
        assert (adapter.summary, adapter.downloads, adapter.owner.username) == ("New.", 0, "bob")
        assert adapter.base_loss is None
        assert adapter.samples.get().input == "a"

    def test_problems_come_by_field(self, adapter) -> None:
        changes = {"licence": "nonsense", "tags": ["<b>"]}
        answer = api(adapter.owner).patch(f"{ROOT}/bob/antonym", changes)
        assert answer.status_code == 400
        assert set(answer.json()["problems"]) == {"licence", "tags"}

    @pytest.mark.parametrize("method", ["patch", "delete"])
    def test_others_may_not(self, adapter, method: str) -> None:
        def status(client: APIClient) -> int:
            answer: Any = getattr(client, method)(f"{ROOT}/bob/antonym", {"summary": "x"})
            return int(answer.status_code)

        assert status(api()) == 401
        assert status(api(make_user())) == 404
        assert status(api(adapter.owner, "read")) == 403
        adapter.refresh_from_db()
        assert (adapter.summary, adapter.deleted_at) == ("Say the opposite.", None)

    def test_the_owner_deletes(self, adapter) -> None:
        client = api(adapter.owner)
        assert client.delete(f"{ROOT}/bob/antonym").status_code == 204
        assert client.get(f"{ROOT}/bob/antonym").status_code == 404

    def test_private_looks_like_missing(self, adapter) -> None:
        services.set_visibility(adapter, "private", by=adapter.owner)
        for path in ("", "/lineage", "/revisions", "/revisions/v1"):
            private = api(make_user()).get(f"{ROOT}/bob/antonym{path}")
            missing = api(make_user()).get(f"{ROOT}/bob/nothing{path}")
            assert private.status_code == missing.status_code == 404
            assert private.json()["error"] == missing.json()["error"]
        assert api(adapter.owner).get(f"{ROOT}/bob/antonym").status_code == 200

    def test_likes(self, adapter) -> None:
        fan = api(make_user())
        assert fan.put(f"{ROOT}/bob/antonym/like").json() == {"likes": 1}
        assert fan.delete(f"{ROOT}/bob/antonym/like").json() == {"likes": 0}
        assert api().put(f"{ROOT}/bob/antonym/like").status_code == 401


class TestRevisions:
    def test_it_works(self, adapter) -> None:
        assert api().get(f"{ROOT}/bob/antonym/revisions").json()["results"][0]["label"] == "v1"
        found = api().get(f"{ROOT}/bob/antonym/revisions/v1").json()
        files = {file["path"]: file for file in found["files"]}
        assert files["adapter_model.safetensors"]["sha256"] == adapter.latest.weights_sha256
        answer: Any = api().get(files["README.md"]["url"])
        assert b"".join(answer.streaming_content).startswith(b"# A tiny adapter")

    def test_yank_and_back(self, adapter) -> None:
        owner = api(adapter.owner)
        address = f"{ROOT}/bob/antonym/revisions/v1/yank"
        assert owner.put(address, {}).status_code == 400
        assert owner.put(address, {"reason": "Old"}).json()["is_yanked"] is True
        assert owner.delete(address).json()["is_yanked"] is False
        assert api(make_user()).put(address, {"reason": "Mine"}).status_code == 404

    def test_lineage_has_weights_and_hides_names(self, adapter) -> None:
        hidden = make_adapter(adapter.owner, "hidden", visibility="private")
        parents = [Parent(adapter.latest, 0.7), Parent(hidden.latest, -0.2)]
        make_adapter(adapter.owner, "mix", parents=parents)
        found = api().get(f"{ROOT}/bob/mix/lineage").json()["parents"]
        assert found[0]["revision"] == adapter.latest.oid
        assert found[1] == {
            "adapter": "an adapter that is not public",
            "revision": None,
            "sha256": None,
            "weight": -0.2,
        }
        assert api().get(f"{ROOT}/bob/antonym/lineage").json()["children"][0]["weight"] == 0.7


class TestLookUps:
    def test_a_content_is_found_by_its_hash(self, adapter) -> None:
        address = f"/api/v1/files/{adapter.latest.weights_sha256}"
        assert api().get(address).json()["results"][0]["adapter"] == "bob/antonym"
        services.set_visibility(adapter, "private", by=adapter.owner)
        assert api(make_user()).get(address).json()["count"] == 0
        assert api(adapter.owner).get(address).json()["count"] == 1
        assert api().get("/api/v1/files/nonsense").json()["count"] == 0

    def test_tags_count_visible_adapters(self, adapter) -> None:
        make_adapter(tags=["w", "secret"], visibility="private")
        assert api().get("/api/v1/tags").json()["results"] == [{"name": "w", "count": 1}]
        assert api().get("/api/v1/tags?q=x").json()["results"] == []

    def test_base_models(self, adapter) -> None:
        make_base_model("org/model")
        names = [row["name"] for row in api().get("/api/v1/base-models").json()["results"]]
        assert names == ["org/model", "tiny/base"]
        found = api().get("/api/v1/base-models/org/model").json()
        assert found["module_table"]["model.layers.0.self_attn.q_proj"] == [32, 32]
        assert api().get("/api/v1/base-models/org/none").status_code == 404
