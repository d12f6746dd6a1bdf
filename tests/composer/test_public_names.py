from __future__ import annotations

import subprocess
import sys

import pytest

import composer
from composer import errors


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_works():
    from composer import InvalidAdapter, parse_examples

    assert InvalidAdapter is errors.InvalidAdapter
    assert parse_examples("a => b")


@pytest.mark.parametrize("name", composer.__all__)
def test_every_public_name_exists(name: str):
    assert getattr(composer, name) is not None
    assert name in dir(composer)


def test_the_table_of_contents_is_complete():
    assert sorted(composer._MODULE_OF) == sorted(composer.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = composer.nonsense


def test_the_light_half_loads_no_heavy_library():
    code = (
        "import sys, composer, composer.compatibility, composer.pickle_reader, composer.examples;"
        "composer.inspect_adapter;"
        "print([n for n in ('torch', 'numpy', 'transformers', 'peft') if n in sys.modules])"
    )

    assert run(code) == "[]"
