from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from composer.inspection import AdapterSummary, inspect_adapter
from composer.inspection.__main__ import main
from tests.composer.adapter_files import BASE_NAME, TABLE, config, lora_shapes, write_adapter

GIB = 1 << 30


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.json"
    path.write_text(json.dumps(TABLE))
    return path


def run(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Run the inspection as the site does: in a child with little memory."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))

    child = subprocess.run(
        [sys.executable, "-m", "composer.inspection", str(folder), *options],
        capture_output=True,
        check=False,
        preexec_fn=limit,
        cwd=Path(__file__).parents[2],
    )
    assert child.stderr == b""
    return child.returncode, json.loads(child.stdout)


def test_it_works(tmp_path: Path, table: Path):
    folder = write_adapter(tmp_path / "adapter")

    status, outcome = run(folder, "--table", str(table), "--base", BASE_NAME)

    assert status == 0
    summary = AdapterSummary.from_dict(outcome["summary"])
    assert summary == inspect_adapter(folder, TABLE, base_name=BASE_NAME)


def test_problems_are_printed_as_json(tmp_path: Path, table: Path):
    folder = write_adapter(tmp_path / "adapter", settings=config(r=0, use_dora=True))

    status, outcome = run(folder, "--table", str(table))

    assert status == 1
    assert [problem["field"] for problem in outcome["problems"]] == ["r", "use_dora"]
    assert all(problem["message"] and problem["fix"] for problem in outcome["problems"])


def test_it_starts_fast(tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    run(folder)

    # Processor time, because a busy machine is not a slow program.
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_256_mib_are_checked_in_one_gib(tmp_path: Path):
    """One wide module in float16 fills the largest file that is allowed."""
    folder = tmp_path / "adapter"
    width = (256 << 20) // 2 // 2 // 256 - 4096
    shapes = lora_shapes(("wide",), rank=256, sizes=(width, width))
    write_adapter(folder, settings=config(r=256, target_modules=["wide"]), weights=shapes)

    status, outcome = run(folder)

    assert (status, outcome["summary"]["rank"]) == (0, 256)


def test_a_pickle_is_converted_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    tensors = {key: torch.ones(shape).half() for key, shape in lora_shapes().items()}
    torch.save(tensors, folder / "adapter_model.bin")

    assert main([str(folder)]) == 1
    assert main([str(folder), "--convert"]) == 0
    assert (folder / "adapter_model.safetensors").is_file()
    assert main([str(folder), "--convert"]) == 0
    lines = capsys.readouterr().out
    assert lines.startswith('{"problems"')


def test_a_bad_pickle_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_adapter(tmp_path / "adapter")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n")

    assert main([str(folder), "--convert"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["file"] == "adapter_model.bin"


def test_a_wrong_table_is_the_callers_mistake(tmp_path: Path, table: Path):
    table.write_text("[]")

    with pytest.raises(TypeError, match="does not hold a module table"):
        main([str(write_adapter(tmp_path / "adapter")), "--table", str(table)])


def test_nothing_is_written_but_the_converted_weights(tmp_path: Path):
    folder = write_adapter(tmp_path / "adapter")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    run(folder, "--convert")

    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
