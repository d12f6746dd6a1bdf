from __future__ import annotations

import pytest

from composer.extras import explain_missing


def test_it_works():
    error = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert "torch is not installed. Install the extra compose:" in str(explain_missing(error))


@pytest.mark.parametrize(
    ("name", "extra"),
    [("sklearn.feature_extraction", "[compose]"), ("gguf", "[gguf]"), ("ours", None), (None, None)],
)
def test_each_module_has_its_extra(name: str | None, extra: str | None):
    text = explain_missing(ModuleNotFoundError("No module", name=name))
    assert (text is None) == (extra is None)
    assert (extra or "") in (text or "")
