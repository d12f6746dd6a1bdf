"""Addresses of the hub's protocol; they stand at the root, before the pages of the catalogue.

`/api/...` is the clients' API, `/<owner>/<name>/resolve/...` the files, `/_cas/...` and `.git` the
two upload protocols. No address ends in a slash: a redirected POST would lose its body.
"""

from __future__ import annotations

from django.urls import URLPattern, path, re_path

from marketplace.hub.views import (
    access,
    committing,
    files,
    identity,
    info,
    lfs,
    likes,
    listing,
    missing,
    refs,
    refs_writing,
    repos,
    trees,
    xet,
)

# A revision and what follows it is split by `addresses` where slashes are still told apart.
_ADAPTER = r"(?P<owner>[^/]+)/(?P<name>[^/]+)"
_API = rf"^api/models/{_ADAPTER}"
_GIT = r"^(?P<owner>[^/]+)/(?P<name>[^/]+)\.git/info/lfs/objects"
_CAS = r"^_cas/(?P<place>[0-9]+-[0-9]+)"
_XORB = r"(?P<xorb>[0-9a-f]{64})"
_BELOW = (
    "revision|tree|paths-info|refs|commits|commit|preupload|branch|tag|settings|auth-check|"
    "like|likers|discussions|user-access-request|xet-write-token|xet-read-token"
)

reading: list[URLPattern] = [
    re_path(rf"^{_ADAPTER}/resolve/.+\Z", files.resolve, name="resolve"),
    path("api/models", listing.list_models, name="models"),
    re_path(rf"{_API}\Z", info.show_model, name="model"),
    re_path(rf"{_API}/revision/.+\Z", info.show_revision, name="model_revision"),
    re_path(rf"{_API}/tree/.+\Z", trees.list_tree, name="tree"),
    re_path(rf"{_API}/paths-info/.+\Z", trees.list_paths, name="paths"),
    re_path(rf"{_API}/refs\Z", refs.list_refs, name="refs"),
    re_path(rf"{_API}/commits/.+\Z", refs.list_commits, name="commits"),
    re_path(rf"{_API}/auth-check\Z", identity.check_read, name="check_read"),
    re_path(rf"{_API}/auth-check/write\Z", identity.check_write, name="check_write"),
    re_path(rf"{_API}/like\Z", likes.change_like, name="like"),
    re_path(rf"{_API}/likers\Z", likes.list_likers, name="likers"),
    re_path(rf"{_API}/discussions\Z", missing.no_discussions, name="discussions"),
    path("api/users/<str:user>/likes", likes.list_liked, name="liked"),
    path("api/whoami-v2", identity.who_am_i, name="whoami"),
    path("api/agent-harnesses", identity.list_agent_harnesses, name="agent_harnesses"),
    path("api/telemetry/<path:topic>", identity.take_telemetry, name="telemetry"),
    re_path(rf"^{_ADAPTER}/(?:tree|blob|commit)/.+\Z", missing.go_to_page, name="page"),
]
publishing: list[URLPattern] = [
    path("api/repos/create", repos.create, name="create"),
    path("api/repos/delete", repos.delete, name="delete"),
    path("api/repos/move", repos.move, name="move"),
    path("api/validate-yaml", repos.validate_yaml, name="validate_yaml"),
    re_path(rf"{_API}/settings\Z", repos.change_settings, name="settings"),
    re_path(
        rf"{_API}/user-access-request/(?P<status>pending|accepted|rejected)\Z",
        access.list_requests,
        name="access_requests",
    ),
    re_path(rf"{_API}/user-access-request/handle\Z", access.handle, name="handle_access"),
    re_path(rf"{_API}/user-access-request/grant\Z", access.grant, name="grant_access"),
    re_path(rf"^{_ADAPTER}/ask-access\Z", access.ask, name="ask_access"),
    re_path(rf"{_API}/branch/.+\Z", refs_writing.change_branch, name="branch"),
    re_path(rf"{_API}/tag/.+\Z", refs_writing.change_tag, name="tag"),
    re_path(rf"{_API}/preupload/.+\Z", committing.preupload, name="preupload"),
    re_path(rf"{_API}/commit/.+\Z", committing.commit, name="commit"),
    re_path(rf"{_GIT}/batch\Z", lfs.batch, name="lfs_batch"),
    re_path(rf"{_GIT}/verify\Z", lfs.verify, name="lfs_verify"),
    path("_lfs/<str:permit>", lfs.receive, name="lfs_receive"),
    re_path(rf"{_API}/xet-write-token/.+\Z", xet.give_token, name="xet_token"),
    re_path(rf"{_CAS}/v1/xorbs/default/{_XORB}\Z", xet.take_one_xorb, name="xorb"),
    re_path(rf"{_CAS}/v1/shards\Z", xet.take_one_shard, name="shard"),
    re_path(rf"{_CAS}/.*\Z", xet.absent, name="xet_absent"),
]
# Single-segment ids, data sets and spaces, and whatever else clients may try.
absent: list[URLPattern] = [
    re_path(r"^[^/]+/resolve/.+\Z", missing.no_repository),
    re_path(r"^(?:datasets|spaces|kernels)/.+/resolve/.+\Z", missing.no_repository),
    re_path(rf"^api/models/[^/]+(?:/(?:{_BELOW})(?:/.*)?)?\Z", missing.no_repository),
    re_path(r"^api/(?:datasets|spaces|kernels)/.+\Z", missing.no_repository),
    re_path(r"^api/(?!v1(?:/|\Z)).*\Z", missing.no_endpoint),
]

urlpatterns = [*reading, *publishing, *absent]
