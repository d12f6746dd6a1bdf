"""One large adapter through the stock client, in a process of its own: in or out, as WAY says.

`python -m benchmarks.hub_transfers FOLDER REPO` with HF_ENDPOINT and HF_TOKEN; WAY is `upload` or
`download` with the client's own calls, or `basic` for Git LFS in one piece, which the client takes
for files up to a part's size only.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from composer.safetensors_header import WEIGHTS_NAME

LAYERS, WIDTH, RANK = 32, 4096, 127
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
LARGE_BYTES = LAYERS * len(PROJECTIONS) * 2 * RANK * WIDTH * 2  # of float16
CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "bench/large",
    "r": RANK,
    "lora_alpha": 2 * RANK,
    "target_modules": sorted(PROJECTIONS),
    "bias": "none",
}


def make_large_adapter(folder: Path, *, seed: int) -> None:
    """Write an adapter of a little under 256 MiB; another seed gives other weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    (folder / "README.md").write_text(f"---\nbase_model: bench/large\n---\n# Number {seed}\n")
    size = 2 * RANK * WIDTH
    header: dict[str, Any] = {}
    for layer in range(LAYERS):
        for projection in PROJECTIONS:
            path = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            for side, shape in (("lora_A", [RANK, WIDTH]), ("lora_B", [WIDTH, RANK])):
                start = len(header) * size
                header[f"{path}.{side}.weight"] = {
                    "dtype": "F16", "shape": shape, "data_offsets": [start, start + size],
                }  # fmt: skip
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    draw, mask = random.Random(seed), int.from_bytes(b"\x3b" * size)
    with (folder / WEIGHTS_NAME).open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _ in header:
            # No byte above 0x3b: every float16 is finite.
            drawn = int.from_bytes(draw.randbytes(size)) & mask
            file.write(drawn.to_bytes(size))


def main() -> int:
    """Send or fetch, check, and print the seconds."""
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415 - the benchmark imports us

    folder, repo, way = Path(sys.argv[1]), sys.argv[2], os.environ["WAY"]
    api = HfApi()
    began = time.perf_counter()
    if way == "download":
        found = Path(hf_hub_download(repo, WEIGHTS_NAME))
        seconds = time.perf_counter() - began
        same = _sha256(found) == _sha256(folder / WEIGHTS_NAME)
    else:
        api.create_repo(repo, exist_ok=True)
        if way == "basic":
            _send_in_one_piece(repo, folder / WEIGHTS_NAME)
        commit = api.upload_folder(repo_id=repo, folder_path=folder)
        seconds = time.perf_counter() - began
        info = api.model_info(repo, files_metadata=True)
        weights = next(file for file in info.siblings or () if file.rfilename == WEIGHTS_NAME)
        same = info.sha == commit.oid and weights.lfs is not None
        same = same and weights.lfs.sha256 == _sha256(folder / WEIGHTS_NAME)  # type: ignore[union-attr]
    if not same:
        raise RuntimeError(f"{way}: other bytes than were sent")
    print(json.dumps({"seconds": seconds}))
    return 0


def _send_in_one_piece(repo: str, path: Path) -> None:
    """Send the file as older LFS clients do; the commit that follows finds it there."""
    body = {
        "operation": "upload",
        "transfers": ["basic"],
        "objects": [{"oid": _sha256(path), "size": path.stat().st_size}],
    }
    headers = {
        "Authorization": f"Bearer {os.environ['HF_TOKEN']}",
        "Content-Type": "application/vnd.git-lfs+json",
    }
    batch = f"{os.environ['HF_ENDPOINT']}/{repo}.git/info/lfs/objects/batch"
    told = json.loads(_send("POST", batch, json.dumps(body).encode(), headers))
    href = told["objects"][0]["actions"]["upload"]["href"]
    with path.open("rb") as file:
        _send("PUT", href, file, {"Content-Length": str(path.stat().st_size)})


def _send(method: str, url: str, body: bytes | IO[bytes], headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=120)
    connection.request(method, parts.path, body=body, headers=headers)
    response = connection.getresponse()
    answer = response.read()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{response.status}: {answer[:500]!r}")
    return answer


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
