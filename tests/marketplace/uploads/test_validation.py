"""Bad files are refused with sentences that tell what and how to mend; good ones pass."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from marketplace.catalogue import validation
from marketplace.catalogue.models import BaseModel
from marketplace.catalogue.validation import validate_folder
from marketplace.uploads.findings import list_findings
from marketplace.uploads.models import Upload
from marketplace.uploads.services import publish_upload, validate_upload
from tests.factories import (
    HIDDEN,
    MODULE_TABLE,
    make_adapter,
    make_base_model,
    tiny_adapter_files,
    tiny_adapter_folder,
    write_safetensors,
)
from tests.marketplace.uploads.conftest import (
    Fill,
    change_config,
    checkpoint_of,
    pickle_of,
)

WEIGHTS = "adapter_model.safetensors"
DEMO = Path(django_settings.BASE_DIR) / "marketplace" / "demo" / "adapters"


def texts(upload: Upload) -> str:
    return "\n".join(str(problem) for problem in upload.found_problems)


def test_it_works(tmp_path: Path, base):
    outcome = validate_folder(tiny_adapter_folder(tmp_path / "adapter"), base_model=None)

    assert outcome.problems == ()
    assert outcome.base_model == base
    assert outcome.summary is not None
    assert outcome.summary.tensor_count == 8


def test_a_real_adapter_of_the_demo_passes(upload: Upload, fill: Fill):
    name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    table = {
        f"model.layers.{layer}.self_attn.{part}": [576, width]
        for layer in range(30)
        for part, width in (("q_proj", 576), ("v_proj", 192))
    }
    make_base_model(name, module_table=table)
    folder = DEMO / "pick_animal"

    validate_upload(fill(upload, {path.name: path.read_bytes() for path in folder.iterdir()}))

    assert texts(upload) == ""
    assert upload.licence == "MIT"
    found = {finding.subject: finding.text for finding in list_findings(upload)}
    assert found["Target modules"] == "q_proj, v_proj in 30 layers"
    assert found["Shapes"] == "all 120 agree with the base"
    assert found["Rank and alpha"] == "4 and 8, the same in file and config"


def test_the_wrong_base_is_refused_and_the_right_one_named(upload: Upload, fill: Fill):
    wide = {path: [64, 64] for path in MODULE_TABLE}
    make_base_model("wide/base", module_table=wide)
    fill(upload, change_config(tiny_adapter_files(seed=1), base_model_name_or_path="wide/base"))

    validate_upload(upload)

    assert upload.state == Upload.State.REFUSED
    assert "wide/base has 64 there" in texts(upload)
    assert "Choose the base this adapter was trained on." in texts(upload)
    assert upload.fitting_bases == ["tiny/base"]
    validate_upload(upload, base_model=BaseModel.objects.get(name="tiny/base"))
    assert upload.state == Upload.State.READY
    assert publish_upload(upload).base_model is not None


def test_the_right_base_is_named_whatever_else_is_wrong(upload: Upload, fill: Fill):
    make_base_model("wide/base", module_table={path: [64, 64] for path in MODULE_TABLE})
    named = {"base_model_name_or_path": "wide/base", "r": 16, "use_dora": True}

    validate_upload(fill(upload, change_config(tiny_adapter_files(seed=1), **named)))

    assert upload.fitting_bases == ["tiny/base"]


def test_no_base_is_named_for_weights_that_cannot_be_read(upload: Upload, fill: Fill):
    files = change_config(tiny_adapter_files(seed=1), base_model_name_or_path="acme/secret")

    validate_upload(fill(upload, files | {WEIGHTS: b"nonsense"}))

    assert upload.fitting_bases == []


def test_an_unknown_base_is_named_with_those_that_are_known(upload: Upload, fill: Fill):
    fill(upload, change_config(tiny_adapter_files(seed=1), base_model_name_or_path="acme/secret"))

    validate_upload(upload)

    assert "The base model acme/secret is not known here." in texts(upload)
    assert "tiny/base" in texts(upload)
    assert upload.fitting_bases == ["tiny/base"]


def test_without_any_base_the_administrator_is_asked(tmp_path: Path, db):
    outcome = validate_folder(tiny_adapter_folder(tmp_path / "adapter"), base_model=None)

    assert "Ask the administrator to add it." in str(outcome.problems[0])


def test_a_config_that_names_no_base_is_told_so(upload: Upload, fill: Fill):
    fill(upload, change_config(tiny_adapter_files(seed=1), base_model_name_or_path=None))

    validate_upload(upload)

    assert "No base model is named. Choose the base it was trained on" in texts(upload)


@pytest.mark.parametrize(
    ("state", "words"), [("pending", "in some minutes"), ("failed", "administrator")]
)
def test_a_base_that_is_not_ready_is_told_so(tmp_path: Path, db, state: str, words: str):
    make_base_model(state=state)

    outcome = validate_folder(tiny_adapter_folder(tmp_path / "adapter"), base_model=None)

    assert outcome.summary is None
    assert "is not ready here yet" in str(outcome.problems[0])
    assert words in str(outcome.problems[0])


def test_a_wrong_shape_is_refused(upload: Upload, fill: Fill):
    tensors = {
        f"base_model.model.{path}.{side}.weight": shape
        for path in MODULE_TABLE
        if path.endswith(("q_proj", "v_proj"))
        for side, shape in (("lora_A", (4, HIDDEN + 1)), ("lora_B", (HIDDEN, 4)))
    }
    files = tiny_adapter_files(seed=1) | {WEIGHTS: write_safetensors(tensors, seed=1)}

    validate_upload(fill(upload, files))

    assert upload.state == Upload.State.REFUSED
    assert "4 of 8 tensors have width 33; tiny/base has 32 there" in texts(upload)


def test_nan_is_refused(upload: Upload, fill: Fill):
    files = tiny_adapter_files(seed=1)
    broken = bytearray(files[WEIGHTS])
    broken[-4:] = struct.pack("<f", float("nan"))

    validate_upload(fill(upload, files | {WEIGHTS: bytes(broken)}))

    assert upload.state == Upload.State.REFUSED
    assert "NaN or infinite" in texts(upload)
    assert "lower learning rate" in texts(upload)


def test_a_truncated_file_is_refused(upload: Upload, fill: Fill):
    files = tiny_adapter_files(seed=1)

    validate_upload(fill(upload, files | {WEIGHTS: files[WEIGHTS][:-100]}))

    assert upload.state == Upload.State.REFUSED
    assert WEIGHTS in texts(upload)


def test_a_malicious_pickle_is_refused_and_not_executed(upload: Upload, fill: Fill, tmp_path: Path):
    trap = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (trap,))

    files = tiny_adapter_files(seed=1)
    del files[WEIGHTS]
    fill(upload, files | {"adapter_model.bin": pickle_of({"a": Evil()})})

    validate_upload(upload)

    assert upload.state == Upload.State.REFUSED
    assert "adapter_model.bin" in texts(upload)
    assert not trap.exists()


def test_a_checkpoint_is_converted_and_never_published(upload: Upload, fill: Fill):
    tensors = {
        f"base_model.model.{path}.{side}.weight": shape
        for path in MODULE_TABLE
        if path.endswith(("q_proj", "v_proj"))
        for side, shape in (("lora_A", (4, HIDDEN)), ("lora_B", (HIDDEN, 4)))
    }
    files = tiny_adapter_files(seed=1) | {"adapter_model.bin": checkpoint_of(tensors)}
    del files[WEIGHTS]

    validate_upload(fill(upload, files))

    assert texts(upload) == ""
    assert "converted from the .bin" in list_findings(upload)[0].text
    revision = publish_upload(upload)
    assert {file.path for file in revision.files.all()} == {
        "README.md",
        "adapter_config.json",
        WEIGHTS,
    }


def test_a_second_checkpoint_replaces_the_conversion_of_the_first(upload: Upload, fill: Fill):
    files = tiny_adapter_files(seed=1)
    del files[WEIGHTS]
    tensors = {"base_model.model.nowhere.lora_A.weight": (4, HIDDEN)}
    validate_upload(fill(upload, files | {"adapter_model.bin": checkpoint_of(tensors)}))
    assert upload.state == Upload.State.REFUSED

    validate_upload(fill(upload, {"adapter_model.bin": b"nonsense"}))

    assert "nowhere" not in texts(upload)
    assert "adapter_model.bin" in texts(upload)


def test_all_problems_are_told_at_once(upload: Upload, fill: Fill):
    files = change_config(tiny_adapter_files(seed=1), use_dora=True, r=0)
    files |= {WEIGHTS: files[WEIGHTS][:-8], "README.md": b"---\n- a\n---\n"}

    validate_upload(fill(upload, files))

    fields = {(problem.file, problem.field) for problem in upload.found_problems}
    assert ("adapter_config.json", "use_dora") in fields
    assert ("adapter_config.json", "r") in fields
    assert any(file == WEIGHTS for file, _ in fields)
    assert ("README.md", "front matter") in fields


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b"\xff", b'{"r": 1, "r": 2}', b"x" * 70_000])
def test_an_unreadable_config_is_refused(upload: Upload, fill: Fill, config: bytes):
    validate_upload(fill(upload, tiny_adapter_files(seed=1) | {"adapter_config.json": config}))

    assert upload.state == Upload.State.REFUSED
    assert "adapter_config.json" in texts(upload)
    assert "not known here" not in texts(upload)


def test_missing_files_are_named(upload: Upload, fill: Fill):
    validate_upload(fill(upload, {"README.md": b"# only"}))

    assert "adapter_config.json: The file is missing." in texts(upload)
    assert f"{WEIGHTS}: The file is missing." in texts(upload)


def test_an_inspection_without_end_is_a_problem_like_any_other(
    tmp_path: Path, base, settings, monkeypatch
):
    slow = tmp_path / "slow.py"
    slow.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(validation, "_CONFINEMENT", slow)
    settings.VALIDATION_SECONDS = 0.2

    outcome = validate_folder(tiny_adapter_folder(tmp_path / "adapter"), base_model=base)

    assert "took longer than" in str(outcome.problems[0])


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os._exit(3)", "within the memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "took longer than"),
        ("raise MemoryError", "within the memory"),
    ],
)
def test_an_inspection_that_dies_is_a_problem_like_any_other(
    tmp_path: Path, base, monkeypatch, program: str, words: str
):
    dying = tmp_path / "dying.py"
    dying.write_text(program)
    monkeypatch.setattr(validation, "_CONFINEMENT", dying)

    outcome = validate_folder(tiny_adapter_folder(tmp_path / "adapter"), base_model=base)

    assert words in str(outcome.problems[0])


def test_too_little_memory_is_told(tmp_path: Path, base, settings):
    settings.VALIDATION_MEMORY_BYTES = 8 * 1024 * 1024

    outcome = validate_folder(tiny_adapter_folder(tmp_path / "adapter"), base_model=base)

    assert "within the memory" in str(outcome.problems[0])


def test_the_child_has_no_network_where_the_system_allows_it():
    program = (
        "import socket, sys\n"
        "from marketplace.catalogue.confinement import leave_network\n"
        "left = leave_network()\n"
        "server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()\n"
        "try:\n"
        "    socket.create_connection(server.getsockname(), 2); reached = True\n"
        "except OSError:\n"
        "    reached = False\n"
        "print('ok' if reached != left else 'bad')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=django_settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "ok"


def test_findings_count_what_it_can_be_composed_with(owner, upload: Upload, fill: Fill):
    fill(upload)
    validate_upload(upload)
    assert "the first one for this base" in list_findings(upload)[-1].text
    make_adapter(owner)
    make_adapter(owner, rank=8)

    assert list_findings(upload)[-1].text == (
        "2 adapters by concat or svd, 1 of the same rank and targets by factor"
    )


def test_findings_tell_of_zeros_and_of_many_ranks(upload: Upload, fill: Fill):
    files = tiny_adapter_files(seed=1)
    size = struct.unpack("<Q", files[WEIGHTS][:8])[0]
    header = json.loads(files[WEIGHTS][8 : 8 + size])
    start, end = header["base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"][
        "data_offsets"
    ]
    data = bytearray(files[WEIGHTS])
    data[8 + size + start : 8 + size + end] = b"\0" * (end - start)
    fill(upload, change_config(files | {WEIGHTS: bytes(data)}, alpha_pattern={"q_proj": 16}))

    validate_upload(upload)

    found = {finding.subject: finding.text for finding in list_findings(upload)}
    assert found["Values"] == "finite; 1 module changes nothing, because a tensor is all zero"
    assert found["Rank and alpha"] == "4 and several alphas, the same in file and config"


def test_there_are_no_findings_of_refused_files(upload: Upload):
    assert list_findings(upload) == []
