"""The command line, called as a user calls it but in this process."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from composer.__main__ import main
from composer.base_model import LoadedBase
from composer.commands import arguments
from composer.gradient import GRADIENT
from composer.search import OWN_OPTIMIZERS, require_optimizer
from tests.composer.tiny import BASE_NAME, ROWS, make_adapter


class Shell:
    def __init__(self, folder: Path, base: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.base = base
        self._capsys = capsys
        self.examples = folder / "rows.jsonl"
        lines = [json.dumps({"input": row.input, "output": row.output}) for row in ROWS]
        self.examples.write_text("\n".join(lines))

    def run(self, *args: object) -> tuple[int, str, str]:
        code = main([str(arg) for arg in args])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def json(self, *args: object) -> tuple[int, dict[str, Any]]:
        code, out, _ = self.run(*args, "--json", "--quiet")
        return code, json.loads(out)


@pytest.fixture
def shell(
    tmp_path: Path, causal: LoadedBase, causal_folder: Path, capsys: pytest.CaptureFixture[str]
) -> Shell:
    for name, seed, rank in (("one", 1, 4), ("two", 2, 4), ("three", 3, 2)):
        adapter = make_adapter(causal, name, seed=seed, rank=rank, size=0.1)
        adapter.save(tmp_path / "pool" / name, causal.module_table)
    return Shell(tmp_path, causal_folder, capsys)


@pytest.fixture
def compose_args(shell: Shell) -> list[object]:
    return [
        *("compose", "--base", shell.base, "--base-name", BASE_NAME),
        *("--adapters", shell.folder / "pool", "--examples", shell.examples),
        *("--out", shell.folder / "out", "--budget", 4, "--max-new-tokens", 4),
        *("--dtype", "float32", "--device", "cpu"),
    ]


class TestCompose:
    def test_it_works(self, shell: Shell, compose_args: list[object]) -> None:
        code, out, err = shell.run(*compose_args)
        assert code == 0
        assert "Composed" in out
        assert f"Written to {shell.folder / 'out'}" in out
        assert "Evaluations: 3 of adapters alone, 5 of the search." in out
        assert "best alone" in err
        assert (shell.folder / "out" / "adapter_model.safetensors").is_file()

    @pytest.mark.parametrize("columns", [60, 80, 200])
    def test_a_long_name_is_folded_and_no_figure_is_cut(
        self,
        columns: int,
        shell: Shell,
        compose_args: list[object],
        causal: LoadedBase,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        name = "an_adapter_whose_author_was_fond_of_names_that_tell_the_whole_story_of_it"
        for folder in (shell.folder / "pool").iterdir():
            shutil.rmtree(folder)
        make_adapter(causal, name, size=0.1).save(shell.folder / "pool" / name, causal.module_table)
        code, out, _ = shell.run(*compose_args, "--folds", 2, "--metric", "rougeL", "--prompting")
        assert code == 0
        assert "…" not in out
        lines = [line for line in out[out.index("and loss per row") :].splitlines() if line.strip()]
        heads, _, *table = itertools.takewhile(lambda line: "ROUGE-L on" not in line, lines[1:])
        assert re.split(r"  +", heads.strip()) == [
            *("method", "held-out", "95 %", "exact", "loss", "2 folds", "fit", "fit loss"),
        ]
        if columns > 60:
            assert max(map(len, (heads, *table))) <= columns
        figures = heads.index("held-out")
        labels = "".join(line[:figures].strip() for line in table).replace(" ", "")
        assert f"Bestsingle:{name}Composed" in labels
        assert re.search(r"0\.\d{3}  +0\.00-0\.\d\d  +0/3  ", table[0])

    def test_json_is_one_object(self, shell: Shell, compose_args: list[object]) -> None:
        code, data = shell.json(*compose_args, "--optimizer", "NGOpt")
        assert code == 0
        assert set(data["weights"]) == {"one", "two", "three"}
        assert data["optimizer"] == "Cobyla"
        assert data["report"]["n_held_out"] == 3

    def test_own_held_out_rows_and_weights(self, shell: Shell, compose_args: list[object]) -> None:
        code, data = shell.json(
            *compose_args, "--held-out", shell.examples, "--weight", "one=0.5", "--weight", "two=-1"
        )
        assert code == 0
        assert data["weights"] == {"one": 0.5, "two": -1.0} or data["weights"] == {
            "two": -1.0,
            "one": 0.5,
        }
        assert data["report"]["n_held_out"] == 8

    def test_few_rows_are_reported_as_fit_rows(
        self, shell: Shell, compose_args: list[object]
    ) -> None:
        shell.examples.write_text("a => b\nc => d\n")
        code, out, _ = shell.run(*compose_args)
        assert code == 0
        assert "Nothing was held out." in out
        assert "held-out loss" not in out

    def test_refusals_are_sentences_and_exit_with_1(
        self, shell: Shell, compose_args: list[object]
    ) -> None:
        code, out, err = shell.run(*compose_args, "--optimizer", "Oracle")
        assert (code, out) == (1, "")
        assert "no optimiser called 'Oracle'" in err
        assert "Traceback" not in err
        code, _, err = shell.run(*compose_args, "--weight", "one=much")
        assert code == 1
        assert "not NAME=NUMBER" in err

    def test_json_lists_the_problems(self, shell: Shell, compose_args: list[object]) -> None:
        shell.examples.write_text('{"input": "a"}\n{"output": "b"}')
        code, data = shell.json(*compose_args)
        assert code == 1
        assert data["error"] == "InvalidExamples"
        assert [problem["field"] for problem in data["problems"]] == ["line 1", "line 2"]

    def test_ctrl_c_keeps_the_checkpoint(
        self, shell: Shell, compose_args: list[object], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from composer.commands import compose

        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(compose, "compose", interrupt)
        code, _, err = shell.run(*compose_args)
        assert code == 130
        assert "Stopped" in err

    def test_every_optimiser_in_the_help_is_one(
        self, shell: Shell, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            shell.run("compose", "--help")
        told = " ".join(capsys.readouterr().out.split())
        assert f"{', '.join(arguments.OPTIMIZERS)} or another of nevergrad's" in told
        for name in {*arguments.OPTIMIZERS} - {GRADIENT}:
            require_optimizer(name)
        assert {*OWN_OPTIMIZERS, GRADIENT} <= {*arguments.OPTIMIZERS}

    def test_gradients_are_asked_for_by_name(
        self, shell: Shell, compose_args: list[object]
    ) -> None:
        code, data = shell.json(*compose_args, "--optimizer", "gradient", "--weight-blocks", 2)
        assert code == 0
        assert data["recipe"]["weight_blocks"] == 2

    def test_wrong_usage_exits_with_2(self, shell: Shell) -> None:
        with pytest.raises(SystemExit) as caught:
            shell.run("compose")
        assert caught.value.code == 2


class TestInspect:
    def test_it_works(self, shell: Shell) -> None:
        code, out, _ = shell.run("inspect", shell.folder / "pool")
        assert code == 0
        assert "q_proj, v_proj" in out
        assert "concat: fits" in out
        assert "factor: " in out

    def test_a_base_checks_the_shapes(self, shell: Shell) -> None:
        one = shell.folder / "pool" / "one"
        code, data = shell.json("inspect", one, "--base", shell.base)
        assert code == 0
        assert data["accepted"]["one"]["rank"] == 4

    def test_all_problems_are_printed(self, shell: Shell) -> None:
        (shell.folder / "pool" / "one" / "adapter_model.safetensors").write_bytes(b"?")
        code, out, _ = shell.run("inspect", shell.folder / "pool")
        assert code == 1
        assert "one is refused." in out
        code, data = shell.json("inspect", shell.folder / "pool" / "one")
        assert code == 1
        assert data["refused"]["one"]

    def test_folders_that_hold_nothing_or_clash_are_named(self, shell: Shell) -> None:
        empty = shell.folder / "empty"
        empty.mkdir()
        one = shell.folder / "pool" / "one"
        code, _, err = shell.run("inspect", empty, one, one)
        assert code == 1
        assert "holds no adapter_config.json" in err
        assert "same name" in err


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
class TestMerge:
    def merge(self, shell: Shell, *more: object) -> tuple[int, dict[str, Any]]:
        folders = [shell.folder / "pool" / name for name in ("one", "two")]
        weights = ("--weights", 0.5, -0.25)
        out = ("--out", shell.folder / "out")
        return shell.json("merge", "--adapters", *folders, *weights, *out, *more)

    def test_it_works(self, shell: Shell) -> None:
        code, data = self.merge(shell)
        assert code == 0
        assert data["summary"]["rank"] == 8
        assert data["svd_error"] is None

    def test_svd_tells_its_error(self, shell: Shell) -> None:
        folders = [shell.folder / "pool" / name for name in ("one", "three")]
        code, out, _ = shell.run(
            *("merge", "--adapters", *folders, "--weights", 1, 1, "--method", "svd"),
            *("--svd-rank", 3, "--out", shell.folder / "out", "--base", shell.base),
        )
        assert code == 0
        assert "rank 3. Relative error 0." in out

    def test_combinations_of_peft(self, shell: Shell) -> None:
        code, data = self.merge(shell, "--combination", "cat", "--base", shell.base)
        assert code == 0
        assert data["summary"]["rank"] == 8

    def test_refusals(self, shell: Shell) -> None:
        code, data = self.merge(shell, "--combination", "ties")
        assert code == 1
        assert "--base" in data["message"]
        code, _, err = shell.run(
            *("merge", "--adapters", shell.folder / "pool", "--weights", 1),
            *("--out", shell.folder / "out"),
        )
        assert code == 1
        assert "3 adapters and 1 weights" in err
        assert not (shell.folder / "out").exists()


class TestEvaluate:
    def test_it_works(self, shell: Shell) -> None:
        args = [
            *("evaluate", "--base", shell.base, "--adapters", shell.folder / "pool"),
            *("--examples", shell.examples, "--dtype", "float32", "--max-new-tokens", 3),
        ]
        code, data = shell.json(*args)
        assert code == 0
        assert list(data["scores"]) == ["base", "one", "three", "two"]
        assert data["scores"]["one"]["n"] == 8
        code, out, _ = shell.run(*args, "--metric", "rougeL")
        assert code == 0
        assert "rougeL" in out


def test_a_file_that_is_missing_is_named(shell: Shell, compose_args: list[object]) -> None:
    shell.examples.unlink()
    code, _, err = shell.run(*compose_args)
    assert code == 1
    assert "rows.jsonl: No such file or directory." in err


def test_a_file_that_is_no_text_is_refused(shell: Shell, compose_args: list[object]) -> None:
    shell.examples.write_bytes(b"\xff\xfe\x00")
    code, _, err = shell.run(*compose_args)
    assert code == 1
    assert "not UTF-8" in err
