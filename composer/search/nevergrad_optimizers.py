"""nevergrad's optimisers by name, driven one weight vector or one population at a time."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from composer.errors import SearchError
from composer.scoring import FloatArray
from composer.search.asking import Ask, Optimizer, SearchSettings

OWN_OPTIMIZERS = ("duel", "gauss-newton", "greedy+gn", "greedy")


def _library() -> Any:
    """Import nevergrad where a search needs it: it takes seconds and 110 MB."""
    import nevergrad  # noqa: PLC0415

    return nevergrad


def optimizer_names() -> tuple[str, ...]:
    """Return every name a search accepts."""
    return (*OWN_OPTIMIZERS, *sorted(_library().optimizers.registry))


def require_optimizer(name: str) -> None:
    """Refuse an unknown optimiser before anything is loaded."""
    if name not in OWN_OPTIMIZERS and name not in _library().optimizers.registry:
        message = (
            f"There is no optimiser called {name!r}. "
            "Choose duel, gauss-newton, greedy+gn, greedy, NGOpt, CMA, DE, PSO, OnePlusOne or "
            "another of nevergrad's."
        )
        raise SearchError(message)


class RunningOptimizer:
    """One of nevergrad's optimisers at work; leaving the block ends the threads it keeps.

    Some (Cobyla among them, to which NGOpt often resolves) run in a thread that waits for the next
    loss for ever. It would keep the process alive at exit, so it is born of a daemon thread, which
    makes it one, and told to stop. `sigma` is the first step: 1, or a sixth of the range.
    """

    def __init__(
        self,
        settings: SearchSettings,
        start: FloatArray,
        *,
        sigma: Literal["unit", "sixth"] = "unit",
    ) -> None:
        require_optimizer(settings.optimizer)
        factory = _library().optimizers.registry[settings.optimizer]
        alone = getattr(factory, "no_parallelization", False)
        self.num_workers = 1 if alone else settings.num_workers
        self._name = settings.optimizer
        bound = settings.weight_bound
        if sigma == "sixth":
            # nevergrad's own choice where an array is made with its bounds: a sixth of the range.
            upper = np.full(len(start), bound)
            parametrization = _library().p.Array(init=start, lower=-upper, upper=upper)
        else:
            parametrization = _library().p.Array(init=start).set_bounds(-bound, bound)
        parametrization.random_state.seed(settings.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._optimizer = factory(
                parametrization=parametrization,
                budget=settings.budget,
                num_workers=self.num_workers,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in _parts(self._optimizer):
            thread = getattr(part, "_messaging_thread", None)
            if thread is not None:
                thread.stop()

    @property
    def resolved(self) -> str:
        """Return what NGOpt chose; it knows after the first `ask`."""
        inner = self._optimizer
        while getattr(inner, "_optim", None) is not None:
            inner = inner._optim
        return str(inner.name or self._name)

    def ask(self) -> Any:
        """Return the next candidate.

        Raises:
            SearchError: if the optimiser breaks down.
        """
        answer: list[Any] = []

        def ask() -> None:
            try:
                answer.append(self._optimizer.ask())
            except Exception as error:  # raised again where it was asked for
                answer.append(error)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            thread = threading.Thread(target=ask, daemon=True)
            thread.start()
            thread.join()
        if isinstance(answer[0], Exception):
            raise self._broken(answer[0]) from answer[0]
        return answer[0]

    def tell(self, candidate: Any, loss: float) -> None:
        """Say what a candidate's loss was."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._optimizer.tell(candidate, loss)
            except Exception as error:
                raise self._broken(error) from error

    def recommend(self) -> FloatArray:
        """Return the weights that the optimiser holds to be the best."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(self._optimizer.provide_recommendation().value, dtype=np.float64)

    def _broken(self, error: Exception) -> SearchError:
        return SearchError(
            f"The optimiser {self.resolved} broke down ({error}). Choose duel or CMA, "
            "or ask it for one candidate at a time (num_workers 1)."
        )


def drive_nevergrad(
    start: FloatArray, settings: SearchSettings, on_choice: Callable[[str], None]
) -> Optimizer:
    """Ask and tell one of nevergrad's optimisers; `on_choice` hears what NGOpt resolved to.

    With `num_workers` above 1 so many candidates are asked for before their losses are told, and
    scored as one population; optimisers that cannot do that go on one by one.
    """
    with RunningOptimizer(settings, start) as optimizer:
        spent = 0
        while True:
            # NGOpt may choose one that takes candidates singly: it is not asked beyond the budget.
            count = max(1, min(optimizer.num_workers, settings.budget - spent))
            candidates = [optimizer.ask() for _ in range(count)]
            # Only now does NGOpt know what it chose.
            on_choice(optimizer.resolved)
            values = [np.asarray(item.value, dtype=np.float64) for item in candidates]
            told = yield Ask(np.stack(values))
            for candidate, loss in zip(candidates, told.losses, strict=False):
                optimizer.tell(candidate, float(loss))
            spent += count


def _parts(optimizer: Any) -> Iterator[Any]:
    """Walk over an optimiser and those it hands the work to."""
    if optimizer is None:
        return
    yield optimizer
    inner = [getattr(optimizer, "_optim", None), *getattr(optimizer, "optims", [])]
    for part in inner:
        yield from _parts(part)
