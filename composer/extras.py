"""The libraries that `pip install lora-composer` leaves out, and the extra that brings each.

Reading adapters needs none of them; whoever asks for more is told what to install.
"""

from __future__ import annotations

_EXTRA_OF = {
    **dict.fromkeys(("torch", "transformers", "peft", "nevergrad", "safetensors"), "compose"),
    **dict.fromkeys(("numpy", "scipy", "sklearn", "tokenizers", "huggingface_hub"), "compose"),
    **dict.fromkeys(("gguf", "accelerate"), "gguf"),
}


def explain_missing(error: ModuleNotFoundError) -> str | None:
    """Say which extra brings the module that was not found; None if it is none of theirs."""
    name = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(name)
    if extra is None:
        return None
    return (
        f"{name} is not installed. Install the extra {extra}: "
        f"pip install 'lora-composer[{extra}]', or '.[{extra}]' in the source folder."
    )
