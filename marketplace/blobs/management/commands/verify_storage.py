"""`manage.py verify_storage`: read every stored file and compare it with its row."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError
from rich.console import Console
from rich.progress import Progress

from marketplace.blobs.checking import check_storage, remove_orphan
from marketplace.blobs.models import Blob


class Command(BaseCommand):
    """Exit with 1 where something is missing, damaged or left over."""

    help = "Check that every stored file is there and whole; list what no row speaks of."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Offer to remove what is left over."""
        parser.add_argument(
            "--fix-orphans", action="store_true", help="remove files that no row speaks of"
        )

    def handle(self, *_: Any, fix_orphans: bool, **__: Any) -> None:
        """Print each finding and a closing count."""
        console = Console(file=sys.stderr)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("Reading files", total=_count_blobs())
            findings = list(check_storage(on_blob=lambda: progress.advance(task)))
        for finding in findings:
            removed = fix_orphans and finding.kind == "orphan" and remove_orphan(finding)
            self.stdout.write(f"{finding}{', removed' if removed else ''}")
        left = [finding for finding in findings if not (fix_orphans and finding.kind == "orphan")]
        self.stdout.write(f"{Blob.objects.count()} files checked, {len(left)} findings")
        if left:
            sys.exit(1)


def _count_blobs() -> int:
    """Return how many files the database knows.

    Raises:
        CommandError: if it has no tables.
    """
    try:
        return Blob.objects.count()
    except ProgrammingError as error:
        message = f"The database has no table of files; run `manage.py migrate` first. ({error})"
        raise CommandError(message) from error
