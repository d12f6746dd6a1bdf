"""The acceptance transcript of the hub's protocol, item by item, in one process of one client.

Run with the Python of the client under test and a file of names and tokens; it needs nothing but
huggingface_hub. Every item is tried whatever happened to the others; what went wrong is written as
JSON, item by item, beside the file that was read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    HfFileSystem,
    hf_hub_download,
    login,
    snapshot_download,
    whoami,
)

SHELF = json.loads(Path(sys.argv[1]).read_text())
OWNER, BOB, WRITE, READ, OTHER = (SHELF[key] for key in ("owner", "bob", "write", "read", "other"))
P, S = f"{OWNER}/adapter", f"{OWNER}/secret"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
FOLDER, CHANGED, BAD = (Path(SHELF[key]) for key in ("folder", "changed", "bad"))
ODD = "sub dir/x#y?.txt"
LARGE = 90_000_000
api, anonymous, reader, bob = (HfApi(token=token) for token in (WRITE, False, READ, OTHER))
ITEMS: dict[str, Callable[[], None]] = {}


def item(number: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the function as an item of the transcript."""

    def register(function: Callable[[], None]) -> Callable[[], None]:
        ITEMS[number] = function
        return function

    return register


def fail(call: Callable[[], Any]) -> tuple[str, int, str]:
    """Return class, status and text of the error that the call has to end with."""
    try:
        outcome = call()
    except Exception as error:
        response = getattr(error, "response", None)
        status = 0 if response is None else response.status_code
        return type(error).__name__, status, str(error)
    raise AssertionError(f"no error, but {outcome!r}")


def same(found: Any, expected: Any) -> None:
    """Compare, and tell both."""
    assert found == expected, f"{found!r} instead of {expected!r}"


def ids(source: HfApi = anonymous, **asked: Any) -> list[str]:
    """The ids that a search finds."""
    return [model.id for model in source.list_models(**asked)]


def sha256(path: str) -> str:
    """The hash of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@item("1")
def signing_in() -> None:
    """Only today's client says it in these words."""
    login(token=WRITE)
    same(whoami()["name"], OWNER)
    same(whoami(token=READ)["auth"]["accessToken"]["role"], "read")
    name, _, text = fail(lambda: whoami(token="bad"))
    same(name, "HfHubHTTPError")
    assert "Invalid user token" in text, text


@item("7")
def repositories() -> None:
    same(api.create_repo(P).repo_id, P)
    same(fail(lambda: api.create_repo(P))[1], 409)
    url = api.create_repo(P, exist_ok=True)
    same((url.repo_id, str(url)), (P, f"{api.endpoint}/{P}"))
    same(api.create_repo("secret", private=True).repo_id, S)
    same(fail(lambda: api.create_repo(f"{BOB}/taken"))[1], 403)


@item("8")
def publishing() -> None:
    first = api.upload_folder(repo_id=P, folder_path=FOLDER, commit_message="First")
    again = api.upload_folder(repo_id=P, folder_path=FOLDER)
    same(again.oid, first.oid)
    api.create_tag(P, tag="v1.0")
    api.upload_folder(repo_id=S, folder_path=FOLDER)
    api.upload_folder(repo_id=P, folder_path=CHANGED, commit_message="Second")
    notes = FOLDER.parent / "notes"
    notes.mkdir()
    for name in ("a.txt", "b.txt"):
        (notes / name).write_text(name)
    api.upload_folder(repo_id=P, folder_path=notes, path_in_repo="notes")
    (notes / "a.txt").rename(notes / "c.txt")
    api.upload_folder(repo_id=P, folder_path=notes, path_in_repo="notes", delete_patterns="*.txt")
    files = set(api.list_repo_files(P))
    assert {"notes/b.txt", "notes/c.txt"} < files, files
    assert "notes/a.txt" not in files, files
    api.upload_file(repo_id=P, path_or_fileobj=io.BytesIO(b"more"), path_in_repo="more.txt")
    head = api.create_commit(
        P,
        [
            CommitOperationAdd("empty.txt", b""),
            CommitOperationCopy("more.txt", "copied.txt"),
            CommitOperationCopy(WEIGHTS, f"old/{WEIGHTS}"),
            CommitOperationDelete("more.txt"),
        ],
        commit_message="Several",
        parent_commit=api.model_info(P).sha,
    )
    same(api.model_info(P).sha, head.oid)
    late = [CommitOperationAdd("late.txt", b"x")]
    stale = fail(lambda: api.create_commit(P, late, commit_message="Late", parent_commit=first.oid))
    same(stale[:2], ("HfHubHTTPError", 412))
    api.delete_file("copied.txt", P)
    api.delete_folder("old", P)
    api.delete_folder("notes", P)
    same(
        sorted(api.list_repo_files(P)),
        sorted(["README.md", CONFIG, WEIGHTS, "empty.txt"]),
    )
    broken = b"---\na: [\n---\n"
    bad = fail(lambda: api.upload_file(repo_id=P, path_or_fileobj=broken, path_in_repo="README.md"))
    same(bad[0], "ValueError")


@item("3")
def one_file() -> None:
    config = Path(hf_hub_download(P, CONFIG, token=False))
    listed = api.get_paths_info(P, [CONFIG])[0]
    same(config.resolve().name, listed.blob_id)
    weights = hf_hub_download(P, WEIGHTS, token=False)
    same(Path(weights).resolve().name, sha256(weights))
    same(Path(weights).read_bytes(), (CHANGED / WEIGHTS).read_bytes())


@item("4")
def snapshots() -> None:
    head, first = api.model_info(P).sha, api.model_info(P, revision="v1.0").sha
    api.create_branch(P, branch="side", revision="v1.0")
    for revision, expected in ((None, head), ("v1.0", first), ("side", first), (head, head)):
        same(Path(snapshot_download(P, revision=revision, token=False)).name, expected)
    picked = Path("picked")
    snapshot_download(P, local_dir=picked, allow_patterns=["*.json"], token=False)
    same([path.name for path in picked.iterdir() if path.is_file()], [CONFIG])
    same(sha256(str(Path(snapshot_download(P, token=False)) / CONFIG)), sha256(picked / CONFIG))


@item("9")
def large_files() -> None:
    repo = api.create_repo(f"{OWNER}/large").repo_id
    path = FOLDER.parent / "large.dat"
    path.write_bytes(os.urandom(LARGE // 3) * 3)
    api.upload_file(repo_id=repo, path_or_fileobj=path, path_in_repo="large.dat")
    same(sha256(api.hf_hub_download(repo, "large.dat")), sha256(path))
    content = path.read_bytes()
    for name, size in (("parts.dat", 24 << 20), ("basic.dat", 11 << 20)):
        source = io.BytesIO(content[:size])
        api.upload_file(repo_id=repo, path_or_fileobj=source, path_in_repo=name)
        entry = api.get_paths_info(repo, [name])[0]
        same((entry.size, entry.lfs.sha256), (size, hashlib.sha256(content[:size]).hexdigest()))


@item("10")
def references() -> None:
    api.create_branch(P, branch="exp/a b")
    api.create_branch(P, branch="exp/a b", exist_ok=True)
    same(fail(lambda: api.create_branch(P, branch="exp/a b"))[1], 409)
    same(fail(lambda: api.create_tag(P, tag="v1.0"))[1], 409)
    commit = api.upload_file(
        repo_id=P, path_or_fileobj=b"odd", path_in_repo=ODD, revision="exp/a b"
    )
    assert ODD in api.list_repo_files(P, revision="exp/a b")
    assert ODD not in api.list_repo_files(P)
    same(Path(api.hf_hub_download(P, ODD, revision="exp/a b")).read_bytes(), b"odd")
    refs = anonymous.list_repo_refs(P)
    same({ref.name for ref in refs.branches}, {"main", "side", "exp/a b"})
    same([ref.name for ref in refs.tags], ["v1.0"])
    assert commit.oid in {ref.target_commit for ref in refs.branches}
    titles = [commit.title for commit in api.list_repo_commits(P)]
    same(titles[-2:][0], "First")
    assert "Second" in titles, titles


@item("11")
def searching() -> None:
    pages = ids(HfApi(token=SHELF["pages_token"]), author=SHELF["pages"])
    same((len(pages), len(set(pages))), (SHELF["pages_count"],) * 2)
    everything = ids()
    assert P in everything, everything
    assert S not in everything, everything
    same(ids(author=OWNER), [P])
    assert S in ids(reader, author=OWNER)
    same(ids(search=f"{OWNER}/ADAP"), [P])
    same(ids(filter=["lora", "base_model:adapter:tiny/base"], author=OWNER), [P])
    same(ids(filter=["lora", "base_model:adapter:no/such"]), [])
    same(len(ids(sort="downloads", limit=1)), 1)
    full = next(iter(anonymous.list_models(author=OWNER, full=True, cardData=True)))
    assert WEIGHTS in {file.rfilename for file in full.siblings}
    same(full.card_data.base_model, "tiny/base")
    few = next(iter(anonymous.list_models(author=OWNER, expand=["likes", "tags"])))
    assert few.likes == 0
    assert "peft" in few.tags
    info = anonymous.model_info(P, files_metadata=True)
    weights = next(file for file in info.siblings if file.rfilename == WEIGHTS)
    same((weights.lfs.sha256, weights.size), (sha256(CHANGED / WEIGHTS), weights.lfs.size))


@item("12")
def asking() -> None:
    same(
        [anonymous.repo_exists(repo) for repo in (P, S, f"{OWNER}/absent", "gpt2")],
        [True, False, False, False],
    )
    assert reader.repo_exists(S)
    same([anonymous.file_exists(P, path) for path in (CONFIG, "absent")], [True, False])
    same([anonymous.revision_exists(P, name) for name in ("v1.0", "absent")], [True, False])
    found = anonymous.get_paths_info(P, [CONFIG, "absent", "sub dir"], revision="exp/a b")
    same([entry.path for entry in found], [CONFIG, "sub dir"])
    tree = list(
        anonymous.list_repo_tree(P, recursive=True, expand=True, revision=found_at("exp/a b"))
    )
    assert {ODD, "sub dir", WEIGHTS} < {entry.path for entry in tree}
    assert all(entry.last_commit.title for entry in tree)
    header = anonymous.parse_safetensors_file_metadata(P, WEIGHTS)
    assert any(name.endswith("lora_A.weight") for name in header.tensors)
    whole = api.create_repo(f"{OWNER}/whole").repo_id
    api.upload_file(
        repo_id=whole, path_or_fileobj=FOLDER / WEIGHTS, path_in_repo="model.safetensors"
    )
    assert api.get_safetensors_metadata(whole).parameter_count
    files = HfFileSystem(token=False, endpoint=api.endpoint)
    assert f"{P}/{CONFIG}" in files.ls(P, detail=False)
    same(files.cat_file(f"{P}/{CONFIG}", start=0, end=1), b"{")


def found_at(revision: str) -> str:
    """The commit that a branch leads to."""
    return str(api.model_info(P, revision=revision).sha)


@item("13")
def errors() -> None:
    absent, entries = f"{OWNER}/absent", {"RemoteEntryNotFoundError", "EntryNotFoundError"}
    gated = api.create_repo(f"{OWNER}/gated").repo_id
    api.upload_folder(repo_id=gated, folder_path=FOLDER)
    api.update_repo_settings(gated, gated="manual")

    def download(repo: str, token: Any, **more: Any) -> tuple[str, int, str]:
        one = fail(lambda: hf_hub_download(repo, more.pop("file", CONFIG), token=token, **more))
        whole = fail(lambda: snapshot_download(repo, token=token, **more))
        if one[0] not in entries:
            same(whole[:2], one[:2])
        return one

    def upload(source: HfApi, repo: str, **more: Any) -> tuple[str, int, str]:
        place = {"path_in_repo": "x.txt", **more}
        return fail(lambda: source.upload_file(repo_id=repo, path_or_fileobj=b"x", **place))

    missing = "RepositoryNotFoundError"
    for repo in (absent, S):
        same(download(repo, False)[:2], (missing, 401))
        same(download(repo, OTHER)[:2], (missing, 404))
        same(upload(bob, repo)[0], missing)
    same(download(gated, False)[:2], ("GatedRepoError", 401))
    same(download(gated, OTHER)[:2], ("GatedRepoError", 403))
    assert hf_hub_download(gated, CONFIG, token=READ)
    same(download(P, False, revision="absent")[:2], ("RevisionNotFoundError", 404))
    same(upload(api, P, revision="absent")[0], "RevisionNotFoundError")
    one = fail(lambda: hf_hub_download(P, "absent.json", token=False))
    assert one[0] in entries, one
    assert fail(lambda: list(anonymous.list_repo_tree(P, "absent")))[0] in entries
    assert fail(lambda: api.delete_file("absent.txt", P))[0] in entries
    same(upload(HfApi(token="lm_bad"), P)[:2], ("HfHubHTTPError", 401))
    assert hf_hub_download(P, "README.md", token="hf_of_another_hub")
    for source in (reader, bob):
        name, status, text = upload(source, P)
        same((name, status), ("HfHubHTTPError", 403))
        assert "403 Forbidden" in text, text
    same(upload(api, P, create_pr=True)[:2], ("BadRequestError", 400))
    name, status, text = fail(lambda: api.upload_folder(repo_id=P, folder_path=BAD))
    same((name, status), ("BadRequestError", 400))
    # All problems, each told once, however long the list is.
    same(
        {word: text.count(word) for word in SHELF["bad_files"]},
        dict.fromkeys(SHELF["bad_files"], 1),
    )


@item("14")
def settings() -> None:
    repo, moved = f"{OWNER}/before", f"{OWNER}/after"
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=FOLDER)
    api.update_repo_settings(repo, gated="auto")
    same(anonymous.model_info(repo).gated, "auto")
    same(fail(lambda: hf_hub_download(repo, CONFIG, token=False))[0], "GatedRepoError")
    same(fail(lambda: bob.auth_check(repo))[0], "GatedRepoError")
    assert hf_hub_download(repo, CONFIG, token=WRITE)
    api.auth_check(repo)
    api.update_repo_settings(repo, gated=False)
    bob.auth_check(repo)
    api.update_repo_settings(repo, private=True)
    assert not anonymous.repo_exists(repo)
    api.update_repo_settings(repo, private=False)
    api.move_repo(from_id=repo, to_id=moved)


@item("16")
def elsewhere() -> None:
    """Large files by way of another origin; a former name."""
    before, after = f"{OWNER}/before", f"{OWNER}/after"
    same(anonymous.model_info(before).id, after)
    assert CONFIG in {entry.path for entry in anonymous.list_repo_tree(before)}
    assert hf_hub_download(before, CONFIG, token=False, cache_dir="moved")
    way = {"endpoint": SHELF["offloading"], "cache_dir": "offloaded", "token": READ}
    weights = hf_hub_download(S, WEIGHTS, **way)
    same(sha256(weights), sha256(FOLDER / WEIGHTS))
    assert Path(snapshot_download(S, **way), CONFIG).exists()


@item("delete")
def deleting() -> None:
    api.delete_repo(f"{OWNER}/after")
    api.delete_repo(f"{OWNER}/after", missing_ok=True)
    same(fail(lambda: api.delete_repo(f"{OWNER}/after"))[0], "RepositoryNotFoundError")


def command(*arguments: str) -> str:
    """Run `hf` as a person would and return what it printed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hf")), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"hf {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@item("15")
def commands() -> None:
    """The `hf` command; only today's has all of these."""
    if not SHELF["with_commands"]:
        return
    command("auth", "login", "--token", WRITE)
    assert OWNER in command("auth", "whoami")
    assert Path(command("download", P, "--quiet").split()[-1]).is_dir()
    command("download", P, CONFIG, "--revision", "v1.0", "--local-dir", "by-command")
    assert Path("by-command", CONFIG).exists()
    repo = f"{OWNER}/by-command"
    command("upload", repo, str(FOLDER), ".", "--private")
    assert not anonymous.repo_exists(repo)
    command("upload", repo, str(FOLDER / CONFIG), "old/config.json", "--revision", "new")
    assert "old/config.json" in api.list_repo_files(repo, revision="new")
    assert P in command("models", "ls", "--search", P, "--quiet")
    assert P in command("models", "info", P)
    command("repos", "settings", repo, "--public")
    assert anonymous.repo_exists(repo)
    command("repos", "tag", "create", repo, "tagged")
    command("repos", "branch", "create", repo, "branched")
    refs = api.list_repo_refs(repo)
    same([ref.name for ref in refs.tags], ["tagged"])
    same({ref.name for ref in refs.branches}, {"main", "new", "branched"})
    command("repos", "delete-files", repo, "old/*", "--revision", "new")
    assert "old/config.json" not in api.list_repo_files(repo, revision="new")
    command("repos", "create", f"{OWNER}/made")
    command("repos", "delete", f"{OWNER}/made", "--yes")
    assert not api.repo_exists(f"{OWNER}/made")


def main() -> None:
    """Try every item and write down how it went."""
    outcome = {}
    for number, function in ITEMS.items():
        try:
            function()
            outcome[number] = ""
        except Exception:
            outcome[number] = traceback.format_exc()
    Path(sys.argv[1]).with_suffix(".outcome.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
