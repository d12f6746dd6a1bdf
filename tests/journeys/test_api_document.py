"""docs/api.md is true: its commands, run one after the other against the site, do what it says."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.stack import PROJECT, Stack

pytestmark = [
    pytest.mark.journey,
    pytest.mark.real_model,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here"),
]

DOCUMENT = PROJECT / "docs" / "api.md"
PICK_ANIMAL = PROJECT / "marketplace" / "demo" / "adapters" / "pick_animal"
HEADING = "#>> "
HEX_DIGITS = 64


def test_every_command_of_it_works(stack: Stack, tmp_path: Path):
    author = f"reader-{secrets.token_hex(3)}"
    script = "set -euo pipefail\n" + read_commands(DOCUMENT.read_text(encoding="utf-8"))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SITE": stack.url,
            "TOKEN": stack.make_user(author),
            "FOLDER": str(PICK_ANIMAL),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = read_output(done.stdout)
    name = f"{author}/animal-picker"

    assert said["A token"][0] == author
    assert said["A token"][1].startswith("20")
    hashes = said["Upload an adapter"][:2]
    assert [len(text) for text in hashes] == [HEX_DIGITS, HEX_DIGITS]
    assert said["Upload an adapter"][2:] == ["ready", "public"]
    assert int(said["Search"][0]) >= 1
    assert said["Search"][1] == name
    assert said["Download"] == [hashes[1]]
    weights = (PICK_ANIMAL / "adapter_model.safetensors").read_bytes()
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == weights
    with zipfile.ZipFile(tmp_path / "adapter.zip") as archive:
        assert any(path.endswith("adapter_config.json") for path in archive.namelist())
    assert said["Compose"] == ["2", "succeeded", "2", "LORA", f"{author}/vehicle-picker"]


def read_commands(document: str) -> str:
    """The document's bash blocks in order, each section announced by its heading."""
    parts = re.findall(r"^## ([^\n]+)$|^```bash\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return "\n".join(f"echo '{HEADING}{heading}'" if heading else code for heading, code in parts)


def read_output(text: str) -> dict[str, list[str]]:
    """What the commands printed, by section."""
    sections = text.split(HEADING)[1:]
    lines = [section.strip().splitlines() for section in sections]
    return {heading: printed for heading, *printed in lines}
