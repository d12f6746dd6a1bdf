"""What goes wrong, end to end: a clear error or an honest report, and no folder left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from composer.__main__ import main
from composer.adapter import LoraAdapter, LoraLayer
from composer.base_model import BaseModelCache, BaseModelSource, LoadedBase
from composer.composing import (
    CandidateScored,
    ComposeRequest,
    Composition,
    LogLine,
    PhaseStarted,
    PoolMember,
    Progress,
    compose,
)
from composer.errors import (
    ComposerError,
    IncompatibleAdapters,
    InvalidAdapter,
    InvalidExamples,
    SearchError,
    Stopped,
    StorageFull,
)
from composer.examples import Example
from tests.composer.tiny import (
    ATTENTION,
    BASE_NAME,
    ROWS,
    load_tiny,
    make_adapter,
    save_causal,
    tokenizer_of,
)

RESULT = ["README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.json"]


class Bench:
    """A pool on disk and a base, composed by the library or by the command line."""

    def __init__(self, folder: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.base_folder = base_folder
        self.out = folder / "results" / "out"
        self.cache = BaseModelCache()
        self._capsys = capsys

    def save(self, base: LoadedBase, *adapters: LoraAdapter) -> None:
        for adapter in adapters:
            adapter.save(self.folder / "pool" / adapter.name, base.module_table)

    def request(self, **changes: Any) -> ComposeRequest:
        pool = sorted((self.folder / "pool").iterdir())
        request = ComposeRequest(
            base=BaseModelSource("folder", str(self.base_folder), name=BASE_NAME),
            pool=tuple(PoolMember(path.name, path) for path in pool),
            examples=ROWS,
            output_folder=self.out,
            budget=6,
            dtype="float32",
            device="cpu",
            max_new_tokens=3,
            base_cache=self.cache,
        )
        return replace(request, **changes)

    def compose(self, **changes: Any) -> Composition:
        result = compose(self.request(**changes))
        assert sorted(path.name for path in result.folder.iterdir()) == RESULT
        # Whatever the figures are, what is kept of them is JSON that any reader takes.
        json.dumps(result.report.to_dict(), allow_nan=False)
        json.dumps(result.recipe, allow_nan=False)
        return result

    def refused(self, kind: type[ComposerError], **changes: Any) -> str:
        with pytest.raises(kind) as caught:
            compose(self.request(**changes))
        self.assert_nothing_is_left()
        return str(caught.value)

    def shell(self, *more: object, rows: tuple[Example, ...] = ROWS) -> tuple[int, str, str]:
        examples = self.folder / "rows.jsonl"
        lines = [json.dumps({"input": row.input, "output": row.output}) for row in rows]
        examples.write_text("\n".join(lines))
        args = (
            *("compose", "--base", self.base_folder, "--base-name", BASE_NAME),
            *("--adapters", self.folder / "pool", "--examples", examples, "--out", self.out),
            *("--budget", 6, "--max-new-tokens", 3, "--dtype", "float32", "--quiet", *more),
        )
        code = main([str(arg) for arg in args])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def shell_refused(self, *more: object, rows: tuple[Example, ...] = ROWS) -> str:
        code, out, err = self.shell(*more, rows=rows)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        self.assert_nothing_is_left()
        return err

    def assert_nothing_is_left(self) -> None:
        left = {path.name for path in self.folder.iterdir()}
        assert left <= {"pool", "rows.jsonl"}


@pytest.fixture
def bench(
    tmp_path: Path, causal: LoadedBase, causal_folder: Path, capsys: pytest.CaptureFixture[str]
) -> Bench:
    bench = Bench(tmp_path, causal_folder, capsys)
    names = ("one", "two")
    bench.save(causal, *(make_adapter(causal, n, seed=i, size=0.1) for i, n in enumerate(names)))
    return bench


def exploding(base: LoadedBase, name: str) -> LoraAdapter:
    """An adapter of finite numbers whose product is not."""
    layers = {
        path: LoraLayer(layer.a * 1e30, layer.b * 1e30, 2.0)
        for path, layer in make_adapter(base, name).layers.items()
    }
    return LoraAdapter(name, layers, base_name=BASE_NAME, task_type="CAUSAL_LM")


def test_it_works(bench: Bench) -> None:
    assert bench.compose().report.n_held_out == 3
    code, out, err = bench.shell("--out", bench.folder / "other")
    assert (code, err) == (0, "")
    assert "Composed" in out


class TestIncompatibleAdapters:
    def test_of_other_ranks(self, bench: Bench, causal: LoadedBase) -> None:
        bench.save(causal, make_adapter(causal, "three", rank=2))
        text = bench.refused(IncompatibleAdapters, merge_method="factor")
        assert "Ranks differ: 4 (one, two); 2 (three)." in text
        assert "Choose concat or svd" in text
        assert "Ranks differ" in bench.shell_refused("--method", "factor")

    def test_of_another_base_by_name(self, bench: Bench, causal: LoadedBase) -> None:
        bench.save(causal, replace(make_adapter(causal, "three"), base_name="other/base"))
        assert "Base models differ" in bench.refused(IncompatibleAdapters)
        assert "Base models differ" in bench.shell_refused()

    def test_of_another_base_by_shape(self, bench: Bench, causal: LoadedBase) -> None:
        layers = dict(make_adapter(causal).layers)
        wide = LoraLayer(torch.ones(4, 48), torch.ones(32, 4), 1.0)
        layers[ATTENTION[0]] = wide
        bench.save(causal, LoraAdapter("wide", layers, BASE_NAME, "CAUSAL_LM"))
        deep = {"model.layers.7.self_attn.q_proj": wide}
        bench.save(causal, LoraAdapter("deep", deep, BASE_NAME, "CAUSAL_LM"))
        text = bench.refused(InvalidAdapter)
        assert f"wide, adapter_model.safetensors: changes {ATTENTION[0]} with 48 to 32" in text
        assert f"changes model.layers.7.self_attn.q_proj, which {BASE_NAME} has not." in text
        assert "made for this base" in bench.shell_refused()


class TestExamples:
    def test_too_long_for_the_model(self, bench: Bench) -> None:
        long = Example("x" * 400, "y")
        for place in ({"examples": (*ROWS, long)}, {"held_out": (long,)}):
            heard: list[Progress] = []
            with pytest.raises(InvalidExamples, match=r"row 9: has 40\d tokens; .* at most 256"):
                compose(bench.request(**place), heard.append)
            # It is known before the search, not after it.
            assert [e.phase for e in heard if isinstance(e, PhaseStarted)] == ["loading"]
            bench.assert_nothing_is_left()
        assert "row 9" in bench.shell_refused(rows=(*ROWS, long))

    def test_with_no_room_for_an_answer(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Learned positions end: rows that just fit leave an answer no room beyond them."""
        config = GPT2Config(
            vocab_size=258, n_positions=24, n_embd=32, n_layer=1, n_head=2, eos_token_id=256
        )
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
        tokenizer_of(ends_texts=False).save_pretrained(tmp_path / "base")
        base = load_tiny(tmp_path / "base")
        (tmp_path / "bench").mkdir()
        bench = Bench(tmp_path / "bench", tmp_path / "base", capsys)
        bench.save(base, make_adapter(base, "one", modules=("lm_head",), size=0.1))
        rows = tuple(Example(letter * 20, "no") for letter in "abcdef")
        report = bench.compose(examples=rows, max_new_tokens=16, prompting=True).report
        assert len(report.answers) == 6

    @pytest.mark.parametrize(("source", "target"), [("x", " "), ("", "y")])
    def test_with_an_empty_side(self, source: str, target: str, bench: Bench) -> None:
        rows = (*ROWS, Example(source, target))
        text = bench.refused(InvalidExamples, examples=rows)
        assert text.startswith("examples, row 9: has an empty ")
        assert "held-out row 9: has an empty" in bench.refused(InvalidExamples, held_out=rows)
        assert "line 9: has an empty" in bench.shell_refused(rows=rows)

    def test_none(self, bench: Bench) -> None:
        assert "no examples" in bench.refused(InvalidExamples, examples=())
        assert "no examples" in bench.shell_refused(rows=())

    def test_a_single_one(self, bench: Bench) -> None:
        report = bench.compose(examples=ROWS[:1]).report
        assert (report.n_fit, report.n_held_out) == (1, 0)
        assert report.verdict.headline == "Nothing was held out."
        code, out, _ = bench.shell("--out", bench.folder / "other", rows=ROWS[:1])
        assert code == 0
        assert "Nothing was held out." in out


class TestNumbers:
    @pytest.mark.parametrize(
        ("changes", "args", "words"),
        [
            ({"budget": 0}, ("--budget", 0), "The budget must be at least 1 evaluation, not 0"),
            ({"n_candidates": 0}, ("--candidates", 0), "must be at least 1 candidate"),
            ({"n_fit": 0}, ("--n-fit", 0), "fit rows must be at least 1 row, not 0"),
            ({"svd_rank": -1}, ("--svd-rank", -1), "rank of the SVD must be at least 1, not -1"),
            ({"max_new_tokens": 0}, ("--max-new-tokens", 0), "at least 1 token, not 0"),
            ({"seed": -1}, ("--seed", -1), "The seed must lie between 0 and"),
            ({"weight_bound": 0.0}, ("--weight-bound", 0), "bound of the weights must be above 0"),
            ({"l1_penalty": float("nan")}, ("--l1-penalty", "nan"), "penalty on the weights"),
            ({"prior_penalty": -1.0}, ("--prior-penalty", -1), "penalty beside the prior"),
            (
                {"prior": "mean", "optimizer": "gradient"},
                ("--prior", "mean", "--optimizer", "gradient"),
                "gradient begins at the best adapter and takes no prior",
            ),
            ({"optimizer": "Oracle"}, ("--optimizer", "Oracle"), "no optimiser called 'Oracle'"),
            (
                {"hand_weights": {"one": float("nan")}},
                ("--weight", "one=nan"),
                "The weight of one is nan, which is no finite number.",
            ),
            ({"hand_weights": {"one": 0.0}}, ("--weight", "one=0"), "nothing to compose"),
            ({"hand_weights": {"six": 1.0}}, ("--weight", "six=1"), "which is not in the pool"),
        ],
    )
    def test_out_of_range_are_named(
        self, changes: dict[str, Any], args: tuple[object, ...], words: str, bench: Bench
    ) -> None:
        assert words in bench.refused(SearchError, **changes)
        assert words in bench.shell_refused(*args)

    def test_are_named_all_at_once(self, bench: Bench) -> None:
        text = bench.refused(SearchError, budget=0, seed=-1, n_fit=-3)
        assert len(text.splitlines()) == 3

    def test_a_budget_of_one_and_a_pool_of_one(self, bench: Bench) -> None:
        pool = bench.request().pool[:1]
        result = bench.compose(budget=1, pool=pool)
        assert (result.names, result.evaluations_spent) == (("one",), 3)
        code, out, _ = bench.shell(
            *("--budget", 1, "--adapters", pool[0].folder, "--out", bench.folder / "other")
        )
        assert code == 0
        assert "Best single: one" in out


class TestLosses:
    def test_of_a_base_that_gives_no_numbers(
        self, tmp_path: Path, causal: LoadedBase, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = save_causal(tmp_path / "base")
        model = LlamaForCausalLM.from_pretrained(folder)
        model.model.norm.weight.data.fill_(float("nan"))
        model.save_pretrained(folder)
        (tmp_path / "bench").mkdir()
        bench = Bench(tmp_path / "bench", folder, capsys)
        bench.save(causal, make_adapter(causal, "one"))
        text = bench.refused(SearchError)
        assert "No adapter gave a loss that is a number" in text
        assert "loss that is a number" in bench.shell_refused()

    def test_of_an_adapter_with_nan_inside(self, bench: Bench, causal: LoadedBase) -> None:
        layers = dict(make_adapter(causal).layers)
        layers[ATTENTION[0]] = LoraLayer(torch.full((4, 32), float("nan")), torch.ones(32, 4), 1.0)
        bench.save(causal, LoraAdapter("nan", layers, BASE_NAME, "CAUSAL_LM"))
        assert "NaN" in bench.refused(InvalidAdapter)
        assert "NaN" in bench.shell_refused()

    def test_of_a_candidate_that_explodes(self, bench: Bench, causal: LoadedBase) -> None:
        bench.save(causal, exploding(causal, "wild"))
        heard: list[Progress] = []
        result = compose(bench.request(), heard.append)
        assert sorted(result.names) == ["one", "two"]
        told = {event.name: event.loss for event in heard if isinstance(event, CandidateScored)}
        assert told["wild"] == 1e4
        assert any(isinstance(e, LogLine) and "left out" in e.text for e in heard)
        code, out, _ = bench.shell("--out", bench.folder / "other")
        assert code == 0
        assert "wild" not in out

    def test_of_an_exploding_weight_set_by_hand(self, bench: Bench, causal: LoadedBase) -> None:
        text = bench.refused(SearchError, hand_weights={"one": 3e38, "two": 3e38})
        assert "set by hand" in text
        bench.save(causal, exploding(causal, "wild"))
        weights = {"one": 1.0, "wild": 1e-3}
        assert "wild alone is not a number" in bench.refused(SearchError, hand_weights=weights)
        assert "wild alone" in bench.shell_refused("--weight", "one=1", "--weight", "wild=0.1")

    def test_when_every_candidate_is_worse_than_the_base(
        self, bench: Bench, causal: LoadedBase
    ) -> None:
        loud = [make_adapter(causal, f"loud{i}", seed=i, size=3.0) for i in range(2)]
        bench.save(causal, *loud)
        pool = bench.request().pool[:2]
        assert [member.name for member in pool] == ["loud0", "loud1"]
        result = bench.compose(pool=pool, optimizer="NGOpt", budget=2)
        assert result.weights == (0.0, 0.0)
        verdict = result.report.verdict
        assert verdict.winner in {"base", "best_single"}
        assert "Composing helped" not in verdict.headline


def test_what_is_not_there_is_named(bench: Bench) -> None:
    assert "holds no model" in bench.shell_refused("--base", bench.folder / "pool")
    assert "no device called 'tpu9'" in bench.shell_refused("--device", "tpu9")
    assert "holds no adapter_config.json" in bench.shell_refused("--adapters", "/proc")


@pytest.mark.parametrize("place", ["file", "full", "file/below"])
def test_a_folder_that_cannot_be_made_is_known_at_once(place: str, bench: Bench) -> None:
    (bench.folder / "pool" / "full").mkdir()
    (bench.folder / "pool" / "full" / "mine").touch()
    (bench.folder / "pool" / "file").write_text("mine")
    pool = bench.request().pool
    pool = tuple(member for member in pool if member.name in {"one", "two"})
    heard: list[Progress] = []
    target = bench.folder / "pool" / place
    with pytest.raises(SearchError, match=r"not empty|cannot be made"):
        compose(bench.request(pool=pool, output_folder=target), heard.append)
    assert heard == []
    assert (bench.folder / "pool" / "file").read_text() == "mine"


class TestStops:
    """At every event in turn: asked for, and by Ctrl-C, which may come anywhere."""

    @pytest.mark.parametrize("extra", [{}, {"quick_lora": True}, {"folds": 3}])
    def test_at_any_moment_leave_nothing(self, extra: dict[str, Any], bench: Bench) -> None:
        request = bench.request(
            budget=4, max_new_tokens=2, examples=ROWS[:6], optimizer="greedy", **extra
        )
        heard: list[Progress] = []
        compose(replace(request, output_folder=bench.folder / "whole"), heard.append)
        step = len(heard) // 8 if extra else 1  # a training has many steps alike
        assert len(heard) > 20
        for moment in range(1, len(heard), step):
            self.stop_at(moment, request)
            assert {path.name for path in bench.folder.iterdir()} == {"pool", "whole"}
            self.interrupt_at(moment, request)
            assert {path.name for path in bench.folder.iterdir()} == {"pool", "whole"}

    def stop_at(self, moment: int, request: ComposeRequest) -> None:
        heard: list[Progress] = []
        with pytest.raises(Stopped):
            compose(request, heard.append, lambda: len(heard) >= moment)

    def interrupt_at(self, moment: int, request: ComposeRequest) -> None:
        left = iter(range(moment))

        def hear(event: Progress) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            compose(request, hear)

    def test_by_the_keyboard_end_the_command(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for phase in ("searching", "writing"):

            def hear(self: object, event: Progress, *, phase: str = phase) -> None:
                if isinstance(event, PhaseStarted) and event.phase == phase:
                    raise KeyboardInterrupt

            monkeypatch.setattr("composer.commands.compose._Bars.update", hear)
            code, out, err = bench.shell()
            assert (code, out) == (130, "")
            assert "Stopped" in err
            bench.assert_nothing_is_left()

    def test_by_a_signal_end_the_command(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = signal.getsignal(signal.SIGTERM)

        def hear(self: object, event: Progress) -> None:
            if isinstance(event, PhaseStarted) and event.phase == "scoring":
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr("composer.commands.compose._Bars.update", hear)
        assert bench.shell()[0] == 130
        bench.assert_nothing_is_left()
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize("folds", [0, 2])
    def test_resume_to_the_same_weights(self, folds: int, bench: Bench) -> None:
        whole = bench.compose(budget=8, folds=folds)
        checkpoint = bench.folder / "pool" / "one" / "checkpoint.json"
        request = bench.request(
            budget=8, folds=folds, checkpoint=checkpoint, output_folder=bench.folder / "resumed"
        )
        for moment in (3, 6, 9, 12, 15, 17, 18, 19):
            self.stop_at(moment, request)
        resumed = compose(request)
        assert resumed.report == whole.report
        assert resumed.weights == whole.weights
        assert resumed.summary.weights_sha256 == whole.summary.weights_sha256


class TestAFullDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Callable[[int], Path]]:
        """A file system of so many pages of 4 KiB."""
        place = tmp_path / "results"
        place.mkdir()
        if os.geteuid() != 0 or not self._mount(place, 1):
            pytest.skip("only root can make a small file system")

        def resize(pages: int) -> Path:
            self._mount(place, pages, "remount,")
            return place

        yield resize
        subprocess.run(["umount", place], check=True)

    def _mount(self, place: Path, pages: int, how: str = "") -> bool:
        options = f"{how}size={pages * 4}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def test_leaves_nothing_wherever_it_is_met(
        self, bench: Bench, disk: Callable[[int], Path]
    ) -> None:
        """Page by page: weights, config, card and recipe are each met by the end of the disk."""
        request = bench.request(examples=ROWS[:1], hand_weights={"one": 1.0})
        errors = 0
        for pages in range(1, 40):
            place = disk(pages)
            try:
                result = compose(request)
            except StorageFull:
                errors += 1
                assert list(place.iterdir()) == []
            else:
                assert sorted(path.name for path in result.folder.iterdir()) == RESULT
                break
        assert errors >= 4
        assert bench.out.is_dir()

    def test_is_a_sentence_on_the_command_line(
        self, bench: Bench, disk: Callable[[int], Path]
    ) -> None:
        place = disk(1)
        code, out, err = bench.shell()
        assert (code, out) == (1, "")
        assert err.strip() == "The disk is full, so the result was not written."
        assert list(place.iterdir()) == []

    def test_is_met_by_the_checkpoint_too(self, bench: Bench, disk: Callable[[int], Path]) -> None:
        place = disk(1)
        (place / "filler").write_bytes(b"x" * 4096)
        with pytest.raises(StorageFull, match="checkpoint"):
            compose(bench.request(checkpoint=place / "checkpoint.json"))
        assert [path.name for path in place.iterdir()] == ["filler"]

    @pytest.mark.parametrize("name", RESULT)
    def test_is_met_at_each_file_without_root(
        self, name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same where no file system can be mounted: the write of one file fails."""
        write, save = Path.write_text, LoraAdapter.save

        def full_text(self: Path, *args: Any, **more: Any) -> int:
            if self.name == name:
                write(self, "half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
            return write(self, *args, **more)

        def full_save(self: LoraAdapter, folder: Path, *args: Any) -> None:
            (folder / name).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / name))

        request = bench.request(hand_weights={"one": 1.0})
        monkeypatch.setattr(Path, "write_text", full_text)
        weights = name.endswith("safetensors")
        monkeypatch.setattr(LoraAdapter, "save", full_save if weights else save)
        with pytest.raises(StorageFull):
            compose(request)
        bench.assert_nothing_is_left()
