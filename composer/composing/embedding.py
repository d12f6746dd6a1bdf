"""Similarity by meaning: an embedding model compares the user's rows with what adapters say.

An option beside TF-IDF for whoever has such a model: a folder or a name for sentence-transformers
where that is installed, else a local folder of an encoder, whose last hidden states are averaged.
Which texts are compared, and how many members are kept, is said by `composer.selection`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from composer.errors import SearchError
from composer.examples import Example
from composer.selection import PoolMember, Similarities, text_of, wanted_text

MAX_TOKENS = 512
BATCH = 16
# What marks a folder that sentence-transformers wrote; without it the pooling is not known.
MODULES_NAME = "modules.json"

# Texts to unit vectors: (texts, dimensions).
Embed = Callable[[Sequence[str]], torch.Tensor]


def embedding_similarity(
    location: str, device: str = "auto"
) -> Callable[[Sequence[PoolMember], Sequence[Example]], Similarities]:
    """Return a ranking of pool members by the cosine of embeddings, -1 to 1.

    Raises:
        SearchError: the model is not there, or cannot be read.
    """
    embed = load_embedder(location, device)

    def rank(pool: Sequence[PoolMember], examples: Sequence[Example]) -> Similarities:
        vectors = embed([wanted_text(examples), *map(text_of, pool)])
        return np.asarray((vectors[1:] @ vectors[0]).double().cpu().numpy())

    return rank


def load_embedder(location: str, device: str = "auto") -> Embed:
    """Load an embedding model: through sentence-transformers if it is installed and meant for it.

    Raises:
        SearchError: naming the model.
    """
    folder = Path(location)
    is_plain = folder.is_dir() and not (folder / MODULES_NAME).is_file()
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device
    chosen = "cpu" if chosen == "auto" else chosen
    try:
        if not is_plain and importlib.util.find_spec("sentence_transformers"):
            return _sentence_embedder(location, chosen)
        if folder.is_dir():
            return _mean_embedder(folder, chosen)
    except (OSError, ValueError, KeyError) as error:
        message = f"The embedding model {location} cannot be read: {error}"
        raise SearchError(message) from error
    message = (
        f"The embedding model {location} is no folder here. Give the folder of one, or install "
        "sentence-transformers, which fetches models by name."
    )
    raise SearchError(message)


def _sentence_embedder(location: str, device: str) -> Embed:
    module: Any = importlib.import_module("sentence_transformers")
    model = module.SentenceTransformer(location, device=device)

    def embed(texts: Sequence[str]) -> torch.Tensor:
        found = model.encode(list(texts), convert_to_tensor=True, normalize_embeddings=True)
        return torch.as_tensor(found).float()

    return embed


def _mean_embedder(folder: Path, device: str) -> Embed:
    """Average the last hidden states over a text's tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    limit = min(
        MAX_TOKENS,
        int(tokenizer.model_max_length),
        int(getattr(model.config, "max_position_embeddings", MAX_TOKENS)),
    )

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> torch.Tensor:
        vectors = []
        for start in range(0, len(texts), BATCH):
            given = tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(device)
            mask = given["attention_mask"]
            hidden = model(input_ids=given["input_ids"], attention_mask=mask).last_hidden_state
            vectors.append((hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True))
        return normalize(torch.cat(vectors), dim=-1)

    return embed
