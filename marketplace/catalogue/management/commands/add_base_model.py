"""manage.py add_base_model: make a base model known and read its layers at once."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError

from marketplace.catalogue.licences import LicenceError, normalise_licence
from marketplace.catalogue.models import BaseModel, PromptFormat

KIND = BaseModel.SourceKind


class Command(BaseCommand):
    """Add a base model, or change the one of this name."""

    help = "Add a base model that adapters can be made for, or change the one of this name."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare where it comes from and what is to be known of it."""
        parser.add_argument("name", help="the hub id that adapter_config.json names")
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("--hub", metavar="ID", help="a hub repository, owner/name")
        source.add_argument("--folder", metavar="PATH", help="a folder with config.json")
        source.add_argument(
            "--gguf",
            nargs=2,
            metavar=("PACKAGE", "FILE"),
            help="an installed Python package and the GGUF inside it",
        )
        parser.add_argument("--revision", default="", help="commit or tag of the hub repository")
        parser.add_argument("--licence", default="", help="SPDX id")
        parser.add_argument(
            "--prompt-format", choices=PromptFormat.values, default=PromptFormat.PLAIN.value
        )
        parser.add_argument(
            "--alias", action="append", default=[], help="another name; may be given again"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Store the record and read the layers from the configuration."""
        from marketplace.catalogue.runner import fill_module_table  # noqa: PLC0415 - imports torch

        base_model = BaseModel.objects.filter(name=options["name"]).first()
        base_model = base_model or BaseModel(name=options["name"])
        for field, value in _read_fields(options).items():
            setattr(base_model, field, value)
        try:
            base_model.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from None
        base_model.state = BaseModel.State.PENDING
        base_model.save()
        fill_module_table(base_model)
        if base_model.state == BaseModel.State.FAILED:
            message = f"{base_model.name} is stored, but cannot be read: {base_model.error}"
            raise CommandError(message)
        self.stdout.write(
            self.style.SUCCESS(
                f"{base_model.name}: {base_model.architecture}, "
                f"{len(base_model.module_table)} linear layers, "
                f"{base_model.parameter_count:,} parameters."
            )
        )


def _read_fields(options: dict[str, Any]) -> dict[str, Any]:
    try:
        licence = normalise_licence(options["licence"])
    except LicenceError as error:
        raise CommandError(str(error)) from None
    fields = {
        "revision": options["revision"],
        "licence": licence,
        "prompt_format": options["prompt_format"],
        "aliases": sorted(set(options["alias"])),
        "file": "",
    }
    if options["hub"]:
        return fields | {"source_kind": KIND.HUB, "location": options["hub"]}
    if options["folder"]:
        location = str(Path(options["folder"]).resolve())
        if not Path(location, "config.json").is_file():
            raise CommandError(f"There is no config.json in {location}. Name the model's folder.")
        return fields | {"source_kind": KIND.FOLDER, "location": location}
    package, file = options["gguf"]
    return fields | {"source_kind": KIND.GGUF_PACKAGE, "location": package, "file": file}
