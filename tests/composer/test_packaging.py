"""The wheel: `composer` alone, which reads adapters without torch. Built without network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.composer.adapter_files import write_adapter

PROJECT = Path(__file__).resolve().parent.parent.parent
HEAVY = ("torch", "transformers", "peft", "nevergrad", "safetensors", "numpy", "sklearn")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves folders in the tree that it is made from."""
    source = tmp_path_factory.mktemp("source")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "composer", source / "composer", ignore=skip)
    (source / "marketplace").mkdir()
    (source / "marketplace" / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", code, out], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(installed: Path, folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as if the heavy libraries were not there."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({HEAVY!r})); "
        "from composer.__main__ import main; sys.exit(main())"
    )
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, args)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_works(wheel: Path) -> None:
    assert wheel.name == "lora_composer-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "composer").rglob("*.py")
        if "__pycache__" not in path.parts
    }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == sources
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_few_libraries_come_with_it_and_the_rest_is_an_extra(installed: Path) -> None:
    data = message_from_bytes(next(installed.glob("*.dist-info/METADATA")).read_bytes())
    needs = [Requirement(text) for text in data.get_all("Requires-Dist", [])]
    always = {need.name for need in needs if need.marker is None}
    extra = {n.name for n in needs if n.marker and n.marker.evaluate({"extra": "compose"})}
    assert always == {"google-re2", "rich"}
    assert {"torch", "transformers", "peft", "nevergrad", "scikit-learn"} <= extra
    assert set(data.get_all("Provides-Extra", [])) == {"compose", "gguf"}
    assert data["License-Expression"] == "Apache-2.0"
    points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "lora-compose = composer.__main__:main" in points


def test_adapters_are_inspected_without_torch(installed: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "one")
    done = run(installed, tmp_path, "inspect", "one", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["accepted"]["one"]["rank"] == 2


@pytest.mark.parametrize(
    "args",
    [
        ("inspect", "one", "--base", "one"),
        ("merge", "--adapters", "one", "--weights", "1", "--out", "out"),
        ("compose", "--base", "b", "--adapters", "one", "--examples", "one", "--out", "out"),
    ],
)
def test_what_needs_torch_says_what_to_install(
    args: tuple[str, ...], installed: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "one")
    done = run(installed, tmp_path, *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not installed. Install the extra compose: pip install" in done.stderr
    assert "Traceback" not in done.stderr
