"""docs/operations.md names commands, options, tasks and settings that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from celery import current_app
from django.core.management import get_commands, load_command_class
from django.urls import resolve

PROJECT = Path(__file__).resolve().parents[2]
TEXT = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
MANAGED = sorted(set(re.findall(r"manage\.py ([a-z_]+[^`|#&\n]*)", TEXT)))
TASKS = sorted(set(re.findall(r"marketplace\.\w+\.tasks\.\w+", TEXT)))
FOR_READERS = ("README.md", "docs/operations.md", "docs/api.md", "docs/hub.md")
# Read by the database's image and the compose file, by hub clients, by the reader of a setting.
NOT_OURS = {"DATABASE_PASSWORD", "WEB_BIND", "HF_ENDPOINT", "HF_TOKEN"}


def test_it_works():
    assert len(MANAGED) > 5
    assert len(TASKS) > 1


@pytest.mark.parametrize("command", MANAGED)
def test_each_management_command_takes_what_the_document_gives_it(command):
    name, *words = shlex.split(command.split(" -c ")[0])
    found = get_commands()[name]
    app = found if isinstance(found, str) else found.__module__.rsplit(".management", 1)[0]
    parser = load_command_class(app, name).create_parser("manage.py", name)
    known = {option for action in parser._actions for option in action.option_strings}

    assert {word for word in words if word.startswith("-")} - known == set()


@pytest.mark.parametrize("task", TASKS)
def test_each_task_that_can_be_called_exists(task):
    current_app.loader.import_default_modules()

    assert task in current_app.tasks


def test_each_task_of_the_clock_exists(settings):
    current_app.loader.import_default_modules()
    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}

    assert scheduled - set(current_app.tasks) == set()


def test_the_addresses_of_health_exist():
    for path in re.findall(r"^- `(/\w+)`", TEXT, re.MULTILINE):
        assert resolve(path)


@pytest.mark.parametrize("file", FOR_READERS)
def test_each_setting_that_is_named_is_in_the_list_of_settings(file):
    listed = (PROJECT / "docs" / "settings.md").read_text(encoding="utf-8")
    text = (PROJECT / file).read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", text))

    assert {name for name in named - NOT_OURS if f"`{name}`" not in listed} == set()


def test_each_link_of_the_readme_leads_to_a_file():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^):]+)\)", text)

    assert {"docs/operations.md", "docs/api.md", "docs/hub.md", "docs/lorahub.md"} <= set(targets)
    assert [target for target in targets if not (PROJECT / target).exists()] == []
