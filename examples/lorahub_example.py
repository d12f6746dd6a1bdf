"""Learn to compose LoRA modules for a task from five examples, as in LoraHub's own example.

    python examples/lorahub_example.py --modules DIR_OR_NAME ... [--base DIR_OR_NAME] [--steps 40]

Modules are folders, or `owner/name` on the hub that HF_ENDPOINT names (a marketplace of this
project or another). The task here is the paper's: boolean expressions; put your own rows in their
place.
"""

from __future__ import annotations

import argparse

from composer import ComposerError, lorahub_inference, lorahub_learning

INPUTS = [
    "not ( True ) and ( True ) is",
    "True and not not ( not False ) is",
    "not True or False or ( False ) is",
    "False or not ( True ) and False is",
    "True or not False and True and False is",
]
OUTPUTS = ["False", "True", "False", "False", "True"]


def main() -> int:
    """Learn the weights, print them, answer the rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--modules", nargs="+", required=True, help="folders or owner/name")
    parser.add_argument("--base", help="folder or name; by default what the first module names")
    parser.add_argument("--steps", type=int, default=40, help="evaluations to spend")
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    try:
        weights, model, tokenizer = lorahub_learning(
            lora_module_list=options.modules,
            example_inputs=INPUTS,
            example_outputs=OUTPUTS,
            max_inference_step=options.steps,
            model_name_or_path=options.base,
            batch_size=5,
            seed=options.seed,
        )
    except ComposerError as error:
        print(error)  # noqa: T201 - a program for the terminal
        return 1
    for name, weight in zip(options.modules, weights, strict=True):
        print(f"{weight:+.3f}  {name}")  # noqa: T201
    answers, accuracy = lorahub_inference(INPUTS, model, tokenizer, 5, OUTPUTS)
    print(f"answers: {answers}\naccuracy on the rows learned from: {accuracy:.0f} %")  # noqa: T201
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
