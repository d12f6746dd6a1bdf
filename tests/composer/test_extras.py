from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import composer
from composer.__main__ import main
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


def lacking(name: str):
    def find(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return find


@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_says_what_to_install(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("composer.__main__.importlib.import_module", lacking("torch"))
    assert main(["inspect", "folder", *(["--json"] if as_json else [])]) == 1
    out, err = capsys.readouterr()
    assert "Install the extra compose" in err
    assert bool(out) == as_json


def test_a_module_of_ours_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("composer.__main__.importlib.import_module", lacking("composer.lost"))
    with pytest.raises(ModuleNotFoundError, match=r"composer\.lost"):
        main(["inspect", "folder"])


def test_a_public_name_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("composer.importlib.import_module", lacking("peft"))
    monkeypatch.delitem(vars(composer), "LoraAdapter", raising=False)
    with pytest.raises(ImportError, match="peft is not installed"):
        _ = composer.LoraAdapter


def test_a_command_runs_in_a_thread_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Signals belong to the main thread; elsewhere they are left alone."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main, ["inspect", str(tmp_path), "--json"]).result() == 1
    assert "holds no adapter_config.json" in capsys.readouterr().out
