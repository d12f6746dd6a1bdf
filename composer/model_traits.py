"""What a causal model's architecture allows, tried out with two tiny passes when it is loaded."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def try_out(model: PreTrainedModel) -> tuple[bool, bool]:
    """Run two tiny passes and tell (`LoadedBase.head_is_linear`, `LoadedBase.packs_rows`).

    Some architectures scale or cap their logits: those compute all positions the long way. Some
    know neither positions nor masks of pairs (ALiBi, recurrent ones): their rows are padded.
    """
    head = model.get_output_embeddings()
    if head is None or model.base_model is model:
        return False, False
    row = [1, 0, 1, 0]
    kept: list[torch.Tensor] = []
    hook = model.base_model.register_forward_hook(
        lambda _module, _inputs, output: kept.append(output.last_hidden_state)
    )
    with torch.inference_mode():
        ids = torch.tensor([row], device=model.device)
        try:
            logits = model(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()
        is_linear = bool(torch.allclose(logits, head(kept[0]), rtol=1e-3, atol=1e-3))
        return is_linear, _packs_rows(model, row, kept[0])


def _packs_rows(model: PreTrainedModel, row: list[int], alone: torch.Tensor) -> bool:
    """Compare a row behind another with itself alone: kept apart, and to see what is large, not."""
    n, device = len(row), model.device
    ids = torch.tensor([[*row[::-1], *row]] * 2, device=device)
    apart = torch.arange(n, device=device).repeat(2)
    positions = torch.stack([apart, torch.arange(2 * n, device=device)])
    causal = torch.ones(2 * n, 2 * n, dtype=torch.bool, device=device).tril()
    rows = torch.arange(2 * n, device=device) // n
    sees = torch.stack([causal & (rows[:, None] == rows), causal])
    mask = torch.zeros(sees.shape, dtype=model.dtype, device=device)
    mask.masked_fill_(~sees, torch.finfo(model.dtype).min)
    try:
        hidden = model.base_model(
            input_ids=ids, position_ids=positions, attention_mask=mask[:, None], use_cache=False
        ).last_hidden_state[:, n:]
    except (TypeError, ValueError, RuntimeError):
        return False
    error, mixed = (hidden - alone).float().flatten(1).norm(dim=1).tolist()
    return bool(error <= 0.1 * mixed)
