"""How kernels are measured: the best of many turns, who leaves early, and how long is waited."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from irconv.backends.native import measure


class Clock:
    """Time passes only while a turn takes it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def turn(self, seconds: Sequence[float]) -> tuple[Callable[[], float], list[int]]:
        """A candidate that takes these times in turn, the last one from then on; and how often it ran."""
        count = [0]

        def run() -> float:
            taken = seconds[min(count[0], len(seconds) - 1)]
            count[0] += 1
            self.now += taken
            return taken

        return run, count


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measure, "time", made)
    return made


def test_the_best_of_many_turns_counts(clock: Clock) -> None:
    (one, _), (two, _) = clock.turn([5.0, 3.0, 1.0, 1.0]), clock.turn([2.0])
    assert measure.race([one, two], budget=20.0) == [1.0, 2.0]


def test_hopeless_candidates_leave_early(clock: Clock) -> None:
    (slow, seldom), (fast, often), (planned, _) = clock.turn([10.0]), clock.turn([0.1]), clock.turn([0.1])
    assert measure.race([planned, fast, slow], budget=100.0) == [0.1, 0.1, 10.0]
    assert seldom[0] < often[0]


def test_the_cost_models_candidate_gets_a_second_chance(clock: Clock) -> None:
    """The others ran while the machine was busy with something else, too, but not so often."""
    (planned, runs), (other, _), (slow, seldom) = clock.turn([2.0] * 5 + [0.9]), clock.turn([1.0]), clock.turn([1.2])
    assert measure.race([planned, other, slow], budget=12.0) == [0.9, 1.0, 1.2]
    assert runs[0] > seldom[0]


def test_a_time_reached_only_once_is_waited_for(clock: Clock) -> None:
    (lucky, runs), (steady, _) = clock.turn([1.0, 2.0, 2.0, 2.0, 2.0, 1.0]), clock.turn([1.5])
    assert measure.race([lucky, steady], budget=6.0) == [1.0, 1.5]
    assert runs[0] == 6


def test_the_wait_has_an_end(clock: Clock) -> None:
    (restless, runs), (steady, _) = clock.turn([0.9**i for i in range(100)]), clock.turn([1.0])
    measure.race([restless, steady], budget=2.0)
    assert measure.FEWEST < runs[0] < 20
