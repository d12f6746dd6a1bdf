"""Similarity by an embedding model; the model is built here, two layers of hidden size 32."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from composer.composing.embedding import embedding_similarity, load_embedder
from composer.errors import SearchError
from composer.examples import Example
from composer.selection import PoolMember, preselect, text_of, wanted_text
from tests.composer.tiny import tokenizer_of

ROWS = (Example("What colour is grass?", "green"), Example("What colour is snow?", "white"))
POOL = (
    PoolMember("own/numbers", Path(), card_text="1 2 3 4 5 6 7 8 9 10 11 12"),
    PoolMember("own/colours", Path(), samples=ROWS),
    PoolMember("own/blanks", Path(), card_text="__ __ __ __ __ __ __ __ __ __ __ __"),
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    config = BertConfig(
        vocab_size=258,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer_of(ends_texts=False).save_pretrained(folder)
    return folder


def test_it_works(encoder: Path) -> None:
    alike = embedding_similarity(str(encoder))(POOL, ROWS)
    assert alike.shape == (3,)
    assert (np.abs(alike) <= 1.00001).all()
    assert int(np.argmax(alike)) == 1
    chosen = preselect(
        POOL, ROWS, "similar", n_candidates=1, seed=0, ranking=embedding_similarity(str(encoder))
    )
    assert [member.name for member in chosen] == ["own/colours"]


def test_padding_and_length_do_not_matter(encoder: Path) -> None:
    embed = load_embedder(str(encoder), "cpu")
    texts = ["short", "a text that is a good deal longer", "x" * 1000]
    together = embed(texts)
    alone = torch.cat([embed([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))


def test_many_texts_are_read_in_batches(encoder: Path) -> None:
    embed = load_embedder(str(encoder), "cpu")
    assert embed([str(number) for number in range(40)]).shape == (40, 32)


def test_a_seq2seq_model_lends_its_encoder(seq2seq_folder: Path) -> None:
    assert load_embedder(str(seq2seq_folder), "cpu")(["one", "two"]).shape == (2, 32)


def test_sentence_transformers_is_used_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    class Model:
        def __init__(self, location: str, device: str) -> None:
            asked.append((location, device))

        def encode(self, texts: list[str], **options: object) -> torch.Tensor:
            asked.append(options)
            return torch.eye(len(texts), 4)

    module = SimpleNamespace(SentenceTransformer=Model, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    (tmp_path / "modules.json").write_text("[]")
    for location in (str(tmp_path), "all-MiniLM-L6-v2"):
        assert load_embedder(location, "cpu")(["one", "two"]).shape == (2, 4)
    assert asked[0] == (str(tmp_path), "cpu")
    assert asked[1] == {"convert_to_tensor": True, "normalize_embeddings": True}


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="all-of-them is no folder here"):
        load_embedder("all-of-them")
    with pytest.raises(SearchError, match="cannot be read"):
        load_embedder(str(tmp_path))


def test_what_is_compared(encoder: Path) -> None:
    assert wanted_text(ROWS).splitlines()[0] == "What colour is grass? green"
    assert text_of(POOL[1]).startswith("colours\n")
