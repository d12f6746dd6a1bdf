"""The stock clients read from the site: huggingface_hub and peft in clean processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.stack import Stack

pytestmark = pytest.mark.timeout(300)

PREPARE = """
import json
from datetime import timedelta
from django.utils import timezone
from marketplace.accounts.models import ApiToken
from marketplace.catalogue.models import AccessRequest, Adapter, AdapterAlias, Ref
from tests.factories import make_adapter, make_blob, make_revision, make_user

owner, friend = make_user("reader"), make_user("stranger")
tokens = {
    user.username: ApiToken.issue(
        user=user, name="laptop", scope="read", expires_at=timezone.now() + timedelta(days=1)
    )[1]
    for user in (owner, friend)
}
adapter = make_adapter(owner, "adapter", tags=["journey"], language="en")
first = adapter.latest
Ref.objects.create(adapter=adapter, kind="tag", name="v1.0", revision=first)
Ref.objects.create(adapter=adapter, name="exp/a b", revision=first)
second = make_revision(adapter, rank=8, title="A higher rank")
second.files.create(path="sub dir/x#y?.txt", blob=make_blob(b"odd name"))
secret = make_adapter(owner, "secret", visibility="private")
gated = make_adapter(owner, "gated")
Adapter.objects.filter(pk=gated.pk).update(gated="manual")
AccessRequest.objects.create(adapter=gated, user=friend)
AdapterAlias.objects.create(full_name="reader/before", adapter=adapter)
print("<<" + json.dumps({
    "tokens": tokens, "first": first.oid, "second": second.oid, "secret": secret.latest.oid,
}) + ">>")
"""


@pytest.fixture(scope="module")
def shelf(stack: Stack) -> dict[str, Any]:
    """Adapters, revisions and tokens to read with."""
    printed = stack.manage("shell", "-c", PREPARE)
    told: dict[str, Any] = json.loads(printed.partition("<<")[2].partition(">>")[0])
    return told


class Client:
    """Runs code in a process that knows nothing but the site's address."""

    def __init__(self, stack: Stack, home: Path, shelf: dict[str, Any]):
        self.endpoint = stack.url
        self.home = home
        self.shelf = shelf

    def run(self, code: str, *, endpoint: str | None = None, **variables: str) -> Any:
        """Run the code and return what it left in `told`."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HF_HOME": str(self.home / "hf"),
            "HF_ENDPOINT": self.endpoint if endpoint is None else endpoint,
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        env = {name: value for name, value in env.items() if value}
        program = (
            f"import json\nshelf = json.loads({json.dumps(json.dumps(self.shelf))})\n"
            f"{textwrap.dedent(code)}\nprint('<<' + json.dumps(told, default=str) + '>>')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=self.home,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.partition("<<")[2].partition(">>")[0])


@pytest.fixture
def hub(stack: Stack, tmp_path: Path, shelf: dict[str, Any]) -> Client:
    """A client with an empty home."""
    return Client(stack, tmp_path, shelf)


def test_it_works(hub: Client, shelf: dict[str, Any]):
    told = hub.run("""
        from pathlib import Path
        from huggingface_hub import hf_hub_download, snapshot_download
        import hashlib
        P = "reader/adapter"
        weights = Path(hf_hub_download(P, "adapter_model.safetensors"))
        config = Path(hf_hub_download(P, "adapter_config.json"))
        odd = Path(hf_hub_download(P, "sub dir/x#y?.txt"))
        branch = Path(hf_hub_download(P, "README.md", revision="exp/a b"))
        moved = Path(hf_hub_download("reader/before", "README.md"))
        roots = {
            name: snapshot_download(P, revision=revision)
            for name, revision in {
                "main": None, "tag": "v1.0", "sha": shelf["second"], "branch": "exp/a b",
            }.items()
        }
        some = Path(snapshot_download(P, allow_patterns=["*.json"], local_dir="picked"))
        told = {
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "blob": weights.resolve().name,
            "rank": json.loads(config.read_text())["r"],
            "odd": odd.read_text(),
            "branch": branch.parent.name,
            "moved": moved.read_text() == Path(roots["main"], "README.md").read_text(),
            "snapshots": {name: Path(root).name for name, root in roots.items()},
            "files": sorted(
                str(path.relative_to(roots["main"])) for path in Path(roots["main"]).rglob("*.*")
            ),
            "picked": sorted(path.name for path in some.iterdir() if path.is_file()),
        }
    """)
    assert told["sha256"] == told["blob"]
    assert told["rank"] == 8
    assert told["odd"] == "odd name"
    assert told["branch"] == shelf["first"]
    assert told["moved"]
    assert told["snapshots"] == {
        "main": shelf["second"],
        "tag": shelf["first"],
        "sha": shelf["second"],
        "branch": shelf["first"],
    }
    assert told["files"] == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "sub dir/x#y?.txt",
    ]  # fmt: skip
    assert told["picked"] == ["adapter_config.json"]


def test_the_api_tells_what_the_clients_ask(hub: Client, shelf: dict[str, Any]):
    told = hub.run("""
        from huggingface_hub import HfApi, HfFileSystem
        api, P = HfApi(), "reader/adapter"
        info = api.model_info(P, files_metadata=True)
        weights = next(s for s in info.siblings if s.rfilename.endswith(".safetensors"))
        refs = api.list_repo_refs(P, include_pull_requests=True)
        tree = list(api.list_repo_tree(P, recursive=True, expand=True))
        files = HfFileSystem()
        told = {
            "sha": info.sha, "tags": info.tags, "base": info.card_data.base_model,
            "config": info.config, "total": info.safetensors.total, "library": info.library_name,
            "weights": [weights.size, weights.lfs.sha256, weights.lfs.size],
            "pinned": api.model_info(P, revision="v1.0").sha,
            "moved": api.model_info("reader/before").id,
            "expanded": sorted(api.model_info(P, expand=["likes", "sha"]).__dict__),
            "branches": {b.name: b.target_commit for b in refs.branches},
            "tags_of_refs": {t.name: t.target_commit for t in refs.tags},
            "commits": [c.title for c in api.list_repo_commits(P, formatted=True)],
            "tree": {t.path: getattr(t, "size", None) for t in tree},
            "last": {t.path: t.last_commit.title for t in tree},
            "paths": [p.path for p in api.get_paths_info(P, ["README.md", "sub dir", "absent"])],
            "exist": [
                api.repo_exists(P), api.repo_exists("reader/absent"), api.repo_exists("gpt2"),
                api.file_exists(P, "README.md"), api.file_exists(P, "absent"),
                api.revision_exists(P, "v1.0"), api.revision_exists(P, "absent"),
            ],
            "header": sorted(
                api.parse_safetensors_file_metadata(P, "adapter_model.safetensors").tensors
            )[0],
            "ls": sorted(name.rpartition("/")[2] for name in files.ls(P, detail=False)),
            "cat": files.cat_file(f"{P}/sub dir/x#y?.txt").decode(),
            "part": files.cat_file(f"{P}/README.md", start=2, end=8).decode(),
            "likers": list(api.list_repo_likers(P)),
            "liked": api.list_liked_repos("reader").total,
            "discussions": list(api.get_repo_discussions(P)),
        }
    """)
    assert told["sha"] == shelf["second"]
    assert {
        "peft", "lora", "safetensors", "base_model:tiny/base", "base_model:adapter:tiny/base",
        "license:apache-2.0", "text-generation", "en", "journey",
    } == set(told["tags"])  # fmt: skip
    assert told["base"] == "tiny/base"
    assert told["library"] == "peft"
    assert told["config"]["peft"] == {
        "base_model_name_or_path": "tiny/base",
        "task_type": "CAUSAL_LM",
    }
    assert told["total"] > 0
    assert told["weights"][0] == told["weights"][2]
    assert told["pinned"] == shelf["first"]
    assert told["moved"] == "reader/adapter"
    assert told["branches"] == {"main": shelf["second"], "exp/a b": shelf["first"]}
    assert told["tags_of_refs"] == {"v1.0": shelf["first"]}
    assert told["commits"] == ["A higher rank", "Publish"]
    assert set(told["tree"]) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors",
        "sub dir", "sub dir/x#y?.txt",
    }  # fmt: skip
    assert told["last"]["adapter_model.safetensors"] == "A higher rank"
    assert told["last"]["README.md"] == "Publish"
    assert told["paths"] == ["README.md", "sub dir"]
    assert told["exist"] == [True, False, False, True, False, True, False]
    assert told["header"].endswith("lora_A.weight")
    assert "sub dir" in told["ls"]
    assert (told["cat"], told["part"]) == ("odd name", "A tiny")
    assert (told["likers"], told["liked"], told["discussions"]) == ([], 0, [])


def test_lists_are_searched_filtered_and_followed(hub: Client):
    told = hub.run("""
        from urllib.request import urlopen
        from huggingface_hub import HfApi
        api = HfApi()
        ids = lambda **asked: [model.id for model in api.list_models(**asked)]
        told = {
            "all": ids(), "searched": ids(search="READER/ad"), "author": ids(author="reader"),
            "own": ids(author="reader", token=shelf["tokens"]["reader"]),
            "filtered": ids(filter=["lora", "base_model:adapter:tiny/base", "journey"]),
            "purpose": ids(pipeline_tag="text2text-generation"),
            "gated": ids(author="reader", gated=True),
            "one": ids(sort="downloads", limit=1),
            "full": [
                [len(model.siblings), model.card_data.base_model]
                for model in api.list_models(author="reader", search="adapter", full=True)
            ],
            "expanded": [
                model.likes for model in api.list_models(author="reader", expand=["likes"])
            ],
        }
        pages, url = [], api.endpoint + "/api/models?limit=7&sort=createdAt&filter=lora"
        while url:
            page = urlopen(url)
            pages.append([model["id"] for model in json.load(page)])
            url = page.headers.get("Link", "").partition("<")[2].partition(">")[0]
        told["pages"] = pages
    """)
    assert "reader/adapter" in told["all"]
    assert "reader/secret" not in told["all"]
    assert told["searched"] == told["filtered"] == ["reader/adapter"]
    assert set(told["author"]) == {"reader/adapter", "reader/gated"}
    assert set(told["own"]) == {"reader/adapter", "reader/gated", "reader/secret"}
    assert told["purpose"] == []
    assert told["gated"] == ["reader/gated"]
    assert len(told["one"]) == 1
    assert told["full"] == [[4, "tiny/base"]]
    assert told["expanded"] == [0, 0]
    followed = [name for page in told["pages"] for name in page]
    assert sorted(followed) == sorted(told["all"])
    assert {len(page) for page in told["pages"][:-1]} == {7}


def test_errors_arrive_as_the_clients_own_classes(hub: Client, shelf: dict[str, Any]):
    told = hub.run("""
        from huggingface_hub import HfApi, hf_hub_download, snapshot_download, whoami
        owner, friend = shelf["tokens"]["reader"], shelf["tokens"]["stranger"]
        api = HfApi()
        cases = {
            "missing": lambda: hf_hub_download("reader/absent", "x"),
            "missing, signed in": lambda: hf_hub_download("reader/absent", "x", token=friend),
            "private": lambda: snapshot_download("reader/secret"),
            "private, signed in": lambda: snapshot_download("reader/secret", token=friend),
            "base": lambda: hf_hub_download("gpt2", "config.json"),
            "revision": lambda: snapshot_download("reader/adapter", revision="absent"),
            "file": lambda: hf_hub_download("reader/adapter", "absent.json"),
            "tree": lambda: list(api.list_repo_tree("reader/adapter", "absent")),
            "gated": lambda: hf_hub_download("reader/gated", "README.md"),
            "gated, asked": lambda: hf_hub_download("reader/gated", "README.md", token=friend),
            "check": lambda: api.auth_check("reader/gated", token=friend),
            "write": lambda: api.auth_check("reader/adapter", write=True, token=friend),
            "token": lambda: whoami(token="lm_bad"),
        }
        told = {}
        for name, call in cases.items():
            try:
                told[name] = [str(call())]
            except Exception as error:
                told[name] = [type(error).__name__, str(error)]
        told["own"] = hf_hub_download("reader/secret", "README.md", token=owner)
        told["allowed"] = hf_hub_download("reader/gated", "README.md", token=owner)
        told["name"] = whoami(token=owner)["name"]
        told["foreign token"] = hf_hub_download("reader/adapter", "README.md", token="hf_x")
    """)
    names = {case: told[case][0] for case in told}
    for case in ("missing", "missing, signed in", "private", "private, signed in", "base"):
        assert names[case] == "RepositoryNotFoundError", told[case]
    assert names["revision"] == "RevisionNotFoundError"
    assert names["file"] == names["tree"] == "RemoteEntryNotFoundError"
    for case in ("gated", "gated, asked", "check"):
        assert names[case] == "GatedRepoError", told[case]
    assert names["write"] == "HfHubHTTPError"
    assert names["token"] == "HfHubHTTPError"
    assert "Invalid user token" in told["token"][1]
    assert told["name"] == "reader"
    assert shelf["secret"] in told["own"]


def test_without_the_variable_the_endpoint_is_an_argument(hub: Client, shelf: dict[str, Any]):
    told = hub.run(
        f"""
        from huggingface_hub import snapshot_download
        told = snapshot_download("reader/adapter", endpoint="{hub.endpoint}")
    """,
        endpoint="",
    )
    assert told.endswith(shelf["second"])


def test_peft_gives_the_logits_of_the_local_adapter(hub: Client):
    """By branch, tag and full id; a private one with a token, and not without."""
    told = hub.run("""
        import torch
        from huggingface_hub import snapshot_download
        from peft import AutoPeftModelForCausalLM, PeftModel
        from transformers import LlamaConfig, LlamaForCausalLM

        def base():
            torch.manual_seed(0)
            config = LlamaConfig(
                vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=4, num_key_value_heads=4,
            )
            return LlamaForCausalLM(config).eval()

        rows = torch.arange(12).reshape(2, 6)

        def logits(*place, **options):
            with torch.no_grad():
                return PeftModel.from_pretrained(base(), *place, **options).eval()(rows).logits

        P, S, token = "reader/adapter", "reader/secret", shelf["tokens"]["reader"]
        local = {
            name: logits(snapshot_download(P, revision=name, local_dir=f"local-{name}"))
            for name in ("main", "v1.0")
        }
        with torch.no_grad():
            alone = base()(rows).logits
        refused = []
        for other in (None, shelf["tokens"]["stranger"]):
            try:
                logits(S, token=other)
            except Exception as error:
                refused.append(type(error).__name__)

        def by_transformers(place, **options):
            loaded = base()
            loaded.load_adapter(place, **options)
            with torch.no_grad():
                return loaded.eval()(rows).logits

        # A base model that is not on the hub lies here under its own name.
        base().save_pretrained("tiny/base")
        with torch.no_grad():
            whole = AutoPeftModelForCausalLM.from_pretrained(P).eval()(rows).logits
        secret = logits(S, token=token)
        told = {
            "main": torch.equal(logits(P), local["main"]),
            "tag": torch.equal(logits(P, revision="v1.0"), local["v1.0"]),
            "sha": torch.equal(logits(P, revision=shelf["second"]), local["main"]),
            "differ": not torch.equal(local["main"], local["v1.0"]),
            "does something": not torch.equal(alone, local["main"]),
            "transformers": torch.equal(by_transformers(P), local["main"]),
            "auto class": torch.equal(whole, local["main"]),
            "private": torch.equal(
                by_transformers(S, adapter_kwargs={"token": token}), secret
            ) and not torch.equal(secret, alone),
            "refused": len(refused) == 2,
        }
    """)
    assert told == dict.fromkeys(told, True), told


def test_downloads_are_counted_once(hub: Client, stack: Stack):
    count = "SELECT downloads FROM catalogue_adapter WHERE full_name = 'reader/gated'"
    before = stack.sql(count)[0][0]
    hub.run("""
        from huggingface_hub import snapshot_download
        told = [
            snapshot_download("reader/gated", token=shelf["tokens"]["reader"]) for _ in range(2)
        ]
    """)
    stack.wait_for("the count", lambda: stack.sql(count)[0][0] > before, seconds=90)
    stack.wait_for("the download was counted", lambda: stack.sql(count)[0][0] > before, seconds=60)
    assert stack.sql(count)[0][0] == before + 1


def test_the_log_keeps_no_token(hub: Client, stack: Stack, shelf: dict[str, Any]):
    hub.run("""
        from huggingface_hub import repo_exists
        told = repo_exists("reader/never", token=shelf["tokens"]["reader"])
    """)
    assert stack.web is not None
    log = stack.log_of(stack.web)
    assert "/api/models/reader/never" in log
    assert not any(token in log for token in shelf["tokens"].values())
