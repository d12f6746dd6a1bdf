from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncRequestFactory, RequestFactory

from marketplace.blobs.hashing import READ_BYTES
from marketplace.blobs.models import Blob
from marketplace.blobs.responses import blob_response, content_disposition
from marketplace.blobs.services import DamagedBlob, local_path, store_bytes

pytestmark = pytest.mark.django_db
CONTENT = bytes(range(256)) * (READ_BYTES // 256 * 2) + b"the end"


@pytest.fixture
def blob() -> Blob:
    return store_bytes(CONTENT)


@pytest.fixture(params=["wsgi", "asgi"])
def get(request, blob):
    """Ask for the blob and return the response and its body."""
    factory = RequestFactory() if request.param == "wsgi" else AsyncRequestFactory()

    def get(*, method: str = "GET", headers: dict[str, str] | None = None, **options):
        asked = factory.generic(method, "/", headers=headers or {})
        options = {"filename": "adapter_model.safetensors"} | options
        response = blob_response(asked, options.pop("blob", blob), **options)
        return response, read(response)

    return get


def read(response: Any) -> Any:
    try:
        if not response.streaming:
            return response.content
        if response.is_async:
            return async_to_sync(collect)(response)
        return b"".join(response.streaming_content)
    finally:
        response.close()


async def collect(response: Any) -> bytes:
    return b"".join([chunk async for chunk in response.streaming_content])


def test_it_works(get, blob):
    response, body = get()
    assert response.status_code == 200
    assert body == CONTENT
    assert response["Content-Length"] == str(len(CONTENT))
    assert response["ETag"] == f'"{blob.sha256}"'
    assert response["Accept-Ranges"] == "bytes"


def test_user_content_leaves_where_no_browser_runs_it(get):
    for options in ({}, {"method": "HEAD"}, {"headers": {"Range": "bytes=0-0"}}):
        response, _ = get(**options)
        assert response["Content-Type"] == "application/octet-stream"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in response["Content-Security-Policy"]
        assert response["Content-Disposition"].startswith("attachment;")
        assert not response.cookies


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT)),
        (f"bytes={READ_BYTES - 1}-{READ_BYTES + 1}", READ_BYTES - 1, READ_BYTES + 2),
        ("bytes=5-", 5, len(CONTENT)),
        ("bytes=0-", 0, len(CONTENT)),
    ],
)
def test_a_part_is_sent(get, header, start, end):
    response, body = get(headers={"Range": header})
    assert response.status_code == 206
    assert body == CONTENT[start:end]
    assert response["Content-Range"] == f"bytes {start}-{end - 1}/{len(CONTENT)}"
    assert response["Content-Length"] == str(end - start)


def test_several_ranges_at_once_get_the_whole(get):
    response, body = get(headers={"Range": "bytes=0-1,5-6"})
    assert response.status_code == 200
    assert len(body) == len(CONTENT)


def test_a_range_past_the_end_is_416(get):
    response, body = get(headers={"Range": f"bytes={len(CONTENT)}-"})
    assert response.status_code == 416
    assert response["Content-Range"] == f"bytes */{len(CONTENT)}"
    assert body == b""


def test_a_resumed_download_of_other_content_starts_anew(get, blob):
    headers = {"Range": "bytes=5-", "If-Range": '"another"'}
    assert get(headers=headers)[0].status_code == 200
    headers["If-Range"] = f'"{blob.sha256}"'
    assert get(headers=headers)[0].status_code == 206


def test_content_that_the_client_has_is_not_sent(get, blob):
    response, body = get(headers={"If-None-Match": f'"{blob.sha256}"'})
    assert (response.status_code, body) == (304, b"")
    assert response["ETag"] == f'"{blob.sha256}"'
    assert get(headers={"If-None-Match": '"another"'})[0].status_code == 200


def test_a_precondition_that_fails_is_412(get):
    assert get(headers={"If-Match": '"another"'})[0].status_code == 412


def test_head_tells_what_get_would(get):
    head, nothing = get(method="HEAD", headers={"Range": "bytes=0-0"})
    full, _ = get()
    assert nothing == b""
    assert head.status_code == 200  # a range has no meaning for HEAD
    assert dict(head.items()) == dict(full.items())


def test_an_empty_file_is_sent(get):
    response, body = get(blob=store_bytes(b""))
    assert (response.status_code, body, response["Content-Length"]) == (200, b"", "0")


def test_another_etag_can_be_given(get):
    response, _ = get(etag="abc")
    assert response["ETag"] == '"abc"'


def test_headers_are_set_on_refusals_too(blob, rf):
    request = rf.get("/", headers={"Range": "bytes=99999999-"})
    response = blob_response(request, blob, filename="f", headers={"X-Repo-Commit": "1234"})
    assert response["X-Repo-Commit"] == "1234"


def test_wrong_bytes_are_never_sent_to_the_end(get, blob):
    path = Path(str(local_path(blob)))
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DamagedBlob):
        get()


def test_wrong_bytes_are_found_after_a_right_download_too(get, blob):
    get()
    path = Path(str(local_path(blob)))
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DamagedBlob):
        get()


def test_a_file_that_was_cut_off_is_not_sent_as_if_whole(get, blob):
    Path(str(local_path(blob))).write_bytes(CONTENT[:100])
    with pytest.raises(DamagedBlob):
        get()
    with pytest.raises(DamagedBlob):
        get(headers={"Range": "bytes=50-199"})


def test_missing_content_is_an_error_before_anything_is_sent(get, blob):
    Path(str(local_path(blob))).unlink()
    with pytest.raises(DamagedBlob):
        get()


def test_a_client_that_leaves_at_once_leaves_no_file_open(blob, rf):
    for factory in (rf, AsyncRequestFactory()):
        blob_response(factory.get("/"), blob, filename="f").close()
    handles = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    targets = [str(handle.resolve()) for handle in handles if handle.is_symlink()]
    assert targets
    assert not any(blob.sha256 in target for target in targets)


def test_the_proxy_sends_it_where_there_is_one(get, blob, settings):
    settings.X_ACCEL_REDIRECT = "/protected/"
    response, body = get(headers={"Range": "bytes=0-9"})
    assert response["X-Accel-Redirect"] == f"/protected/{blob.storage_name}"
    assert body == b""
    assert response["ETag"] == f'"{blob.sha256}"'


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        ("a.bin", 'attachment; filename="a.bin";'),
        ('a"b.bin', "attachment; filename=\"a_b.bin\"; filename*=UTF-8''a%22b.bin;"),
        ("a\r\nX: 1", "attachment; filename=\"a__X: 1\"; filename*=UTF-8''a%0D%0AX%3A%201;"),
        ("é.bin", "attachment; filename=\"_.bin\"; filename*=UTF-8''%C3%A9.bin;"),
        ("../x", "attachment; filename=\".._x\"; filename*=UTF-8''..%2Fx;"),
        ("\ud800", "attachment; filename=\"_\"; filename*=UTF-8''%3F;"),
    ],
)
def test_any_file_name_gives_a_sound_header(filename, header):
    assert content_disposition(filename) == header


MEASURE = """
import asyncio, resource, sys
import django
django.setup()
from django.conf import settings
from django.core.files.storage import default_storage
from django.test import AsyncRequestFactory, RequestFactory
from pathlib import Path
from typing import Any
from marketplace.blobs.hashing import hash_file
from marketplace.blobs.models import Blob
from marketplace.blobs.responses import blob_response
from marketplace.blobs.zips import ZipEntry, zip_response
source = Path(sys.argv[1])
found = hash_file(source)
blob = Blob(sha256=found.sha256, git_sha1=found.git_sha1, size=found.size)
path = Path(default_storage.path(blob.storage_name))
path.parent.mkdir(parents=True)
source.rename(path)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
async def drain(response):
    total = 0
    async for chunk in response.streaming_content:
        total += len(chunk)
    return total
before = peak()
request = AsyncRequestFactory().get("/")
assert asyncio.run(drain(blob_response(request, blob, filename="f"))) == found.size
response = zip_response(request, [ZipEntry("a", blob), ZipEntry("b", blob)], filename="f.zip")
assert asyncio.run(drain(response)) == int(response["Content-Length"])
request = RequestFactory().get("/")
assert sum(map(len, blob_response(request, blob, filename="f").streaming_content)) == found.size
print(peak() - before)
"""


def test_a_large_file_leaves_in_little_memory(tmp_path):
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(96 * 1024 * 1024)
    environment = {
        **os.environ,
        "DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "marketplace.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30
