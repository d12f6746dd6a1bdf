from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from composer.compatibility import Compatibility, check_compatibility
from composer.errors import IncompatibleAdapters
from composer.inspection import AdapterSummary, inspect_adapter
from tests.composer.adapter_files import ATTENTION, TABLE, config, lora_shapes, write_adapter

ALLOWING = "Choose concat or svd, which allow it."
ONE_BASE = "Adapters of one base and task can be merged."


@pytest.fixture
def summary(tmp_path: Path):
    def build(
        rank: int = 2, modules: tuple[str, ...] = ATTENTION, **changes: Any
    ) -> AdapterSummary:
        targets = sorted({path.rpartition(".")[2] for path in modules})
        settings = config(**({"r": rank, "target_modules": targets} | changes))
        weights = lora_shapes(modules, rank=rank)
        return inspect_adapter(write_adapter(tmp_path, settings=settings, weights=weights), TABLE)

    return build


def test_it_works(summary):
    found = check_compatibility({"a": summary(), "b": summary()})

    assert found.methods == {"concat": (), "factor": (), "svd": ()}
    assert found.allowed == ("concat", "factor", "svd")
    assert found.fits["a"] == {"concat": True, "factor": True, "svd": True}
    assert found.concat_rank == 4
    found.require("factor")


def test_one_adapter_allows_everything_and_none_nothing(summary):
    assert check_compatibility({"a": summary()}).allowed == ("concat", "factor", "svd")
    nothing = check_compatibility({})
    assert nothing.allowed == ()
    assert nothing.methods["svd"] == ("There is no adapter to merge. Choose at least one.",)
    assert nothing.concat_rank == 0


def test_factor_needs_equal_ranks_and_every_reason_is_told(summary):
    found = check_compatibility(
        {"a": summary(), "b": summary(4, lora_alpha=8), "c": summary(), "d": summary(3)}
    )

    assert found.allowed == ("concat", "svd")
    assert found.methods["factor"] == (
        f"Ranks differ: 2 (a, c); 4 (b); 3 (d). {ALLOWING}",
        f"Alphas differ: 4 (a, c, d); 8 (b). {ALLOWING}",
        f"Scalings differ: 2 (a, b, c); 1.33333 (d). {ALLOWING}",
    )
    assert [found.fits[name]["factor"] for name in "abcd"] == [True, False, True, False]
    assert all(found.fits[name]["svd"] for name in "abcd")
    assert found.concat_rank == 11


def test_rslora_differs_in_scaling_only(summary):
    found = check_compatibility({"a": summary(), "b": summary(use_rslora=True)})

    assert found.methods["factor"] == (f"Scalings differ: 2 (a); 2.82843 (b). {ALLOWING}",)


def test_ranks_by_module_are_compared_by_module(summary):
    plain = summary()
    mixed = {**plain.modules, ATTENTION[0]: 4}
    other = {**plain.modules, ATTENTION[1]: 4}
    a, b = (AdapterSummary.from_dict(plain.to_dict() | {"modules": m}) for m in (mixed, other))

    assert check_compatibility({"a": a, "b": a}).methods["factor"] == ()
    assert check_compatibility({"a": a, "b": b}).methods["factor"][0] == (
        f"Ranks differ: 2, 4 by module (a); 2, 4 by module (b). {ALLOWING}"
    )


def test_factor_needs_the_same_modules(summary):
    found = check_compatibility(
        {"a": summary(), "b": summary(modules=tuple(path for path in TABLE if "head" not in path))}
    )

    assert found.methods["factor"] == (
        (
            f"Adapted modules differ: 4 modules, q_proj, v_proj (a); "
            f"8 modules, down_proj, q_proj, up_proj and 1 more (b). {ALLOWING}"
        ),
    )


def test_another_base_or_task_fits_no_method(summary):
    found = check_compatibility(
        {
            "a": summary(),
            "b": summary(base_model_name_or_path="other/base"),
            "c": summary(task_type="SEQ_2_SEQ_LM"),
            "d": summary(),
            "e": summary(),
            "f": summary(),
        }
    )

    assert found.allowed == ()
    assert found.methods["concat"] == (
        f"Base models differ: tiny/llama (a, c, d and 2 more); other/base (b). {ONE_BASE}",
        f"Task types differ: CAUSAL_LM (a, b, d and 2 more); SEQ_2_SEQ_LM (c). {ONE_BASE}",
    )
    assert found.fits["b"] == {"concat": False, "factor": False, "svd": False}
    assert found.fits["d"] == {"concat": True, "factor": True, "svd": True}


def test_an_unknown_task_fits_any(summary):
    found = check_compatibility({"a": summary(), "b": summary(task_type=None)})

    assert found.allowed == ("concat", "factor", "svd")


def test_requiring_a_refused_method_raises_with_the_reasons(summary):
    found = check_compatibility({"a": summary(), "b": summary(4, lora_alpha=8)})

    with pytest.raises(IncompatibleAdapters, match="Ranks differ") as caught:
        found.require("factor")
    assert caught.value.reasons == found.methods["factor"]
    with pytest.raises(IncompatibleAdapters, match='no merge method "ties"; choose concat'):
        found.require("ties")


def test_the_answer_can_be_sent_as_json(summary):
    found = check_compatibility({"a": summary(), "b": summary(4)})

    data = json.loads(json.dumps(found.to_dict()))

    assert data["methods"]["factor"] == list(found.methods["factor"])
    assert data["fits"] == found.fits
    assert isinstance(found, Compatibility)
