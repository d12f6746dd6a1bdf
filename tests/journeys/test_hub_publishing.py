"""Publishing with the stock hub client and peft, from clean processes with an empty HF_HOME."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.factories import MODULE_TABLE, tiny_adapter_folder
from tests.stack import PROJECT, Stack

pytestmark = pytest.mark.journey
BASE = "tiny/base"
PRELUDE = """
import io, json, os, pathlib, sys
from huggingface_hub import HfApi, CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError, BadRequestError
api = HfApi()
folder = pathlib.Path(os.environ["FOLDER"])
told = {}
"""
Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def token(stack: Stack) -> str:
    stack.sql(
        "INSERT INTO catalogue_basemodel (name, aliases, source_kind, location, revision, file, "
        "licence, prompt_format, architecture, is_seq2seq, module_table, state, error, created_at) "
        "VALUES (%s, '[]', 'folder', '/nowhere', '', '', 'Apache-2.0', 'plain', "
        "'LlamaForCausalLM', false, %s, 'ready', '', now()) ON CONFLICT DO NOTHING",
        BASE,
        json.dumps(MODULE_TABLE),
    )
    return stack.make_user("pusher")


@pytest.fixture
def run(stack: Stack, token: str, tmp_path: Path) -> Run:
    """Run a script in a clean process against the site and return what it told."""

    def run(script: str, *, who: str = token, **env: str) -> dict[str, Any]:
        clean = {key: os.environ[key] for key in ("PATH", "LANG", "HOME") if key in os.environ}
        home = tmp_path / "hf"
        code = PRELUDE + textwrap.dedent(script) + "\nprint('\\n' + json.dumps(told))"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={
                **clean,
                "HF_ENDPOINT": stack.url,
                "HF_HOME": str(home),
                "HF_TOKEN": who,
                "FOLDER": str(tmp_path),
                "OMP_NUM_THREADS": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "PYTHONPATH": str(PROJECT),
                **env,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            log = stack.web.new_log_text()[-4000:] if stack.web else ""
            raise AssertionError(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\n{log}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run


def test_it_works(run, stack):
    """`push_to_hub` puts an adapter on the shelf; again changes nothing."""
    told = run(
        """
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import LlamaConfig, LlamaForCausalLM
        config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, vocab_size=99)
        torch.manual_seed(0)
        model = get_peft_model(LlamaForCausalLM(config), LoraConfig(
            r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
        model.peft_config["default"].base_model_name_or_path = "tiny/base"
        first = model.push_to_hub("pusher/adapter")
        again = model.push_to_hub("pusher/adapter")
        told["first"], told["again"] = first.oid, again.oid
        told["url"] = first.commit_url
        model.push_to_hub("pusher/hidden", private=True)
        api.create_branch("pusher/adapter", branch="exp/a b")
        with torch.no_grad():
            for name, value in model.named_parameters():
                if "lora_B" in name:
                    value.add_(0.5)
        branch = model.push_to_hub("pusher/adapter", revision="exp/a b")
        told["branch"] = branch.oid
        told["main"] = api.model_info("pusher/adapter").sha
        anonymous = HfApi(token=False)
        told["public"] = anonymous.repo_exists("pusher/adapter")
        told["hidden"] = anonymous.repo_exists("pusher/hidden")
        told["files"] = anonymous.list_repo_files("pusher/adapter")
        """
    )
    assert told["first"] == told["again"] == told["main"] != told["branch"]
    assert told["url"] == f"{stack.url}/pusher/adapter/commit/{told['first']}"
    assert told["public"] is True
    assert told["hidden"] is False
    assert set(told["files"]) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    numbers = stack.sql(
        "SELECT r.number, r.state FROM catalogue_revision r JOIN catalogue_adapter a "
        "ON a.id = r.adapter_id WHERE a.full_name = 'pusher/adapter' ORDER BY r.id"
    )
    assert numbers == [(None, "draft"), (1, "accepted"), (None, "accepted")]


def test_folders_files_copies_and_stale_parents(run, tmp_path):
    tiny_adapter_folder(tmp_path / "adapter", seed=11, readme="---\nlicense: mit\n---\n# Mine\n")
    told = run(
        """
        repo = "pusher/folder"
        api.create_repo(repo)
        try:
            api.create_repo(repo)
        except HfHubHTTPError as error:
            told["twice"] = error.response.status_code
        told["exist_ok"] = api.create_repo(repo, exist_ok=True).repo_id
        first = api.upload_folder(repo_id=repo, folder_path=folder / "adapter")
        again = api.upload_folder(repo_id=repo, folder_path=folder / "adapter")
        told["same"] = again.oid == first.oid
        api.upload_file(repo_id=repo, path_or_fileobj=b"notes", path_in_repo="sub dir/x#y?.txt")
        api.upload_file(repo_id=repo, path_or_fileobj=io.BytesIO(b"more"), path_in_repo="more.txt")
        head = api.create_commit(repo, [
            CommitOperationAdd("empty.txt", b""),
            CommitOperationCopy("more.txt", "copied.txt"),
            CommitOperationCopy("adapter_model.safetensors", "old/adapter_model.safetensors"),
            CommitOperationDelete("more.txt"),
        ], commit_message="several", parent_commit=api.model_info(repo).sha)
        told["files"] = sorted(api.list_repo_files(repo))
        try:
            api.create_commit(repo, [CommitOperationAdd("late.txt", b"x")],
                commit_message="late", parent_commit=first.oid)
        except HfHubHTTPError as error:
            told["stale"] = error.response.status_code
        api.delete_file("copied.txt", repo)
        api.delete_folder("sub dir", repo)
        told["left"] = sorted(api.list_repo_files(repo))
        try:
            broken = b"---\\na: [\\n---\\n"
            api.upload_file(repo_id=repo, path_or_fileobj=broken, path_in_repo="README.md")
        except ValueError as error:
            told["yaml"] = str(error)
        """
    )
    assert told["twice"] == 409
    assert told["exist_ok"] == "pusher/folder"
    assert told["same"] is True
    adapter = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    rest = ["copied.txt", "empty.txt", "old/adapter_model.safetensors", "sub dir/x#y?.txt"]
    assert told["files"] == sorted(adapter + rest)
    assert told["stale"] == 412
    assert told["left"] == sorted([*adapter, "empty.txt", "old/adapter_model.safetensors"])
    assert "YAML" in told["yaml"]


LARGE = """
repo = "pusher/{name}"
api.create_repo(repo)
content = os.urandom(6 << 20) * 3 + b"end"
path = folder / "large.dat"
path.write_bytes(content)
source = {source}
api.upload_file(repo_id=repo, path_or_fileobj=source, path_in_repo="large.dat")
back = pathlib.Path(api.hf_hub_download(repo, "large.dat")).read_bytes()
told["same"] = back == content
api.upload_file(repo_id=repo, path_or_fileobj=content[: 11 << 20], path_in_repo="basic.dat")
entry = api.get_paths_info(repo, ["basic.dat"])[0]
told["size"] = entry.size
told["seen"] = HfApi(token=False).repo_exists(repo)
"""


@pytest.mark.parametrize(
    ("name", "source", "env"),
    [
        ("by-xet", "path", {}),
        ("by-lfs", "path", {"HF_HUB_DISABLE_XET": "1"}),
        ("by-file-object", "io.BytesIO(content)", {}),
    ],
)
def test_large_files_come_back_whole(run, stack, name, source, env):
    """Over Xet by default; over LFS, in parts and in one piece, without it."""
    told = run(LARGE.format(name=name, source=source), **env)
    assert told["same"] is True
    assert told["size"] == 11 << 20
    assert told["seen"] is False


def test_a_refused_adapter_shows_all_problems_and_leaves_no_trace(run, tmp_path):
    folder = tiny_adapter_folder(
        tmp_path / "bad", seed=12, config={"use_dora": True, "lora_bias": True}
    )
    (folder / "payload.pkl").write_bytes(b"pickle")
    (folder / "training_args.bin").write_bytes(b"left over")
    told = run(
        """
        repo = "pusher/bad"
        api.create_repo(repo)
        def push(**options):
            try:
                api.upload_folder(repo_id=repo, folder_path=folder / "bad", **options)
            except BadRequestError as error:
                return str(error)
        told["pickle"] = push()
        told["refused"] = push(ignore_patterns="*.pkl")
        told["files"] = api.list_repo_files(repo)
        """
    )
    assert "payload.pkl" in told["pickle"]
    assert "training_args.bin" not in told["pickle"]
    assert all(word in told["refused"] for word in ("use_dora", "lora_bias"))
    assert told["files"] == []


def test_settings_moves_tags_and_deletion(run, tmp_path):
    tiny_adapter_folder(tmp_path / "adapter", seed=13)
    told = run(
        """
        repo, moved = "pusher/before", "pusher/after"
        api.create_repo(repo)
        api.upload_folder(repo_id=repo, folder_path=folder / "adapter")
        api.create_tag(repo, tag="first")
        try:
            api.create_tag(repo, tag="first")
        except HfHubHTTPError as error:
            told["twice"] = error.response.status_code
        api.create_branch(repo, branch="side")
        api.delete_branch(repo, branch="side")
        told["branches"] = [ref.name for ref in api.list_repo_refs(repo).branches]
        told["tags"] = [ref.name for ref in api.list_repo_refs(repo).tags]
        api.move_repo(from_id=repo, to_id=moved)
        told["by_old_name"] = api.model_info(repo).id
        anonymous = HfApi(token=False)
        api.update_repo_settings(moved, gated="auto")
        told["gated"] = anonymous.model_info(moved).gated
        api.update_repo_settings(moved, private=True)
        told["private"] = anonymous.repo_exists(moved)
        api.delete_repo(moved)
        api.delete_repo(moved, missing_ok=True)
        told["exists"] = api.repo_exists(moved)
        """
    )
    assert told == {
        "twice": 409,
        "branches": ["main"],
        "tags": ["first"],
        "by_old_name": "pusher/after",
        "gated": "auto",
        "private": False,
        "exists": False,
    }
