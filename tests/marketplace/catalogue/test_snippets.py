"""Snippets hold real names, pinned revisions and, where it takes one, the place of the token."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.catalogue.snippets import CLIENTS, write_snippet
from tests.factories import make_adapter, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def adapter() -> Adapter:
    return make_adapter(make_user("ann"), "mine", rank=12)


@pytest.mark.parametrize("client", CLIENTS)
def test_it_works(adapter, client, settings):
    settings.PUBLIC_URL = "https://lora.test"
    text = write_snippet(client, adapter.latest)
    assert adapter.latest.oid in text
    assert "ann/mine" in text
    assert "https://lora.test" in text
    assert "TOKEN" not in text
    assert "zip" not in text


@pytest.mark.parametrize("client", ["peft", "transformers"])
@pytest.mark.parametrize("gate", ["open", "auto"])
def test_python_can_be_read_by_python(adapter, client, gate):
    adapter.gated = gate
    revision = adapter.latest
    revision.adapter = adapter
    text = write_snippet(client, revision)
    ast.parse(text)
    assert ('token=os.environ["TOKEN"]' in text) == (gate != "open")
    assert max(map(len, text.splitlines())) < 70


@pytest.mark.parametrize("client", ["vllm", "hf", "curl"])
@pytest.mark.parametrize("visibility", ["public", "private"])
def test_shell_can_be_read_by_a_shell(adapter, client, visibility):
    adapter.visibility = visibility
    revision = adapter.latest
    revision.adapter = adapter
    text = write_snippet(client, revision)
    subprocess.run(["bash", "-n", "-c", text], check=True)
    assert ("TOKEN" in text) == (visibility == "private")


def test_vllm_gets_the_smallest_rank_that_holds_the_adapter(adapter):
    assert "--max-lora-rank 16" in write_snippet("vllm", adapter.latest)
    revision = adapter.latest
    revision.rank = 1000
    assert "--max-lora-rank 512" in write_snippet("vllm", revision)


def test_a_seq2seq_base_gets_its_own_class(adapter):
    BaseModel.objects.update(is_seq2seq=True)
    adapter.refresh_from_db()
    assert re.search(
        r"AutoModelForSeq2SeqLM\.from_pretrained", write_snippet("peft", adapter.latest)
    )


def test_a_base_that_is_not_known_is_named_as_such(adapter):
    revision = adapter.latest
    revision.base_model = None
    assert "the/base-model" in write_snippet("transformers", revision)
