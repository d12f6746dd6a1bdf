"""People, drafts, and files of adapters that fit `make_base_model()`."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from marketplace.accounts.models import ApiToken, User
from marketplace.uploads.models import Upload
from marketplace.uploads.services import Announced, create_upload, receive_file
from tests.factories import make_base_model, make_user, tiny_adapter_files

Fill = Callable[..., Upload]


@pytest.fixture
def owner(db) -> User:
    return make_user("ann")


@pytest.fixture
def stranger(db) -> User:
    return make_user("bob")


@pytest.fixture
def base(db):
    return make_base_model()


@pytest.fixture
def upload(owner: User, base) -> Upload:
    return create_upload(owner, name="first")


@pytest.fixture
def signed_in(client: Client, owner: User) -> Client:
    client.force_login(owner)
    return client


@pytest.fixture
def token(owner: User) -> dict[str, str]:
    """Headers of a program of the owner's."""
    expires_at = timezone.now() + timedelta(days=1)
    text = ApiToken.issue(user=owner, name="program", scope="write", expires_at=expires_at)[1]
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def fill() -> Fill:
    """Put files into a draft."""

    def fill(upload: Upload, files: Mapping[str, bytes] | None = None) -> Upload:
        for path, content in (files or tiny_adapter_files(seed=1)).items():
            receive_file(upload, path, [content], Announced(size=len(content)))
        return upload

    return fill


def pickle_of(payload: object) -> bytes:
    """A checkpoint as torch.save writes it, with a pickle of our choice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(payload, protocol=2))
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", b"\0" * 16)
    return buffer.getvalue()


def change_config(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """The same adapter with another configuration."""
    config = json.loads(files["adapter_config.json"]) | changes
    return files | {"adapter_config.json": json.dumps(config).encode()}


def checkpoint_of(tensors: Mapping[str, tuple[int, int]]) -> bytes:
    """An adapter_model.bin as torch.save writes it, of float32 tensors with small values."""
    program = bytearray(b"\x80\x02ccollections\nOrderedDict\n)R(")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, (name, (rows, columns)) in enumerate(tensors.items()):
            count = rows * columns
            program += _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(("
            program += _text("storage") + b"ctorch\nFloatStorage\n" + _text(str(number))
            program += _text("cpu") + _number(count) + b"tQ" + _number(0)
            program += _number(rows) + _number(columns) + b"\x86"
            program += _number(columns) + _number(1) + b"\x86\x89"
            program += b"ccollections\nOrderedDict\n)RtR"
            archive.writestr(f"archive/data/{number}", struct.pack(f"<{count}f", *[0.01] * count))
        archive.writestr("archive/data.pkl", bytes(program) + b"u.")
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)
