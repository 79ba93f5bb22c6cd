"""Processes of one training agree; here they are threads that share a store."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch.distributed as dist

from sourcewise.errors import ElsewhereError, Notice, RequestError
from sourcewise.runtime import ranks as module
from sourcewise.runtime.ranks import Ranks, Remaining, SeveralRanks, joined, told_here

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "SILENT", 0.3)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    yield


def of(world: int) -> list[SeveralRanks]:
    store = dist.HashStore()
    return [SeveralRanks(rank, world, store) for rank in range(world)]


def at_once(several: list[SeveralRanks], does: Callable[[SeveralRanks], Any]) -> list[Any]:
    """What each process gets, or the error that it ends with."""
    found: list[Any] = [None] * len(several)

    def run(ranks: SeveralRanks) -> None:
        try:
            found[ranks.rank] = does(ranks)
        except Exception as error:
            found[ranks.rank] = error

    threads = [threading.Thread(target=run, args=(each,)) for each in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for each in several:
        each._done.set()
    return found


def test_what_the_first_does_alone_is_known_to_all() -> None:
    called: list[int] = []

    def does(ranks: SeveralRanks) -> Any:
        return ranks.first(lambda: called.append(ranks.rank) or {"bleu": 1.5, "none": None})

    assert at_once(of(3), does) == [{"bleu": 1.5, "none": None}] * 3
    assert called == [0]


@pytest.mark.parametrize(("error", "status"), [(RequestError("no such file"), 2), (ZeroDivisionError(), 70)])
def test_what_fails_on_the_first_ends_all(error: Exception, status: int) -> None:
    def does(ranks: SeveralRanks) -> Any:
        def fail() -> None:
            raise error

        ranks.first(fail)

    found = at_once(of(3), does)
    assert found[0] is error
    assert [each.status for each in found[1:] if isinstance(each, ElsewhereError)] == [status] * 2


@pytest.mark.parametrize("failing", [[1], [0], [1, 2], [0, 1, 2]])
def test_an_error_on_any_process_ends_all_and_one_tells_it(failing: list[int]) -> None:
    def does(ranks: SeveralRanks) -> Any:
        with ranks.agreed():
            if ranks.rank in failing:
                raise RequestError(f"clip7.npy: no such file, says {ranks.rank}")

    found = at_once(of(3), does)
    told = [str(each) for each in found if not isinstance(each, ElsewhereError)]
    assert told == [f"clip7.npy: no such file, says {failing[0]}"]
    assert all(isinstance(each, RequestError) for each in found)


def test_nobody_waits_for_a_process_that_is_silent() -> None:
    several = of(3)
    several[1]._done.set()  # stopped: no sign of life, and no word

    def does(ranks: SeveralRanks) -> Any:
        ranks.timeout = 0.5
        if ranks.rank == 1:
            return None
        with ranks.agreed():
            return None

    began = time.monotonic()
    found = at_once(several, does)
    assert time.monotonic() - began < 10
    told = [str(each) for each in (found[0], found[2]) if not isinstance(each, ElsewhereError)]
    assert len(told) == 1 and told[0].startswith("process 1 of 3 (counted from 0) is gone, or did not answer for 0.5 s")


def test_those_who_are_started_anew_know_what_began_and_hear_nobody_of_before() -> None:
    kept = dist.HashStore()
    before = [SeveralRanks(rank, 2, dist.PrefixStore("0", kept), kept) for rank in range(2)]
    assert not before[0].began_before
    assert at_once(before, lambda ranks: ranks.first(lambda: "old")) == ["old"] * 2
    before[0].begins()
    after = [SeveralRanks(rank, 2, dist.PrefixStore("1", kept), kept) for rank in range(2)]
    assert all(ranks.began_before for ranks in after)
    assert at_once(after, lambda ranks: ranks.first(lambda: "new")) == ["new"] * 2


def test_a_slow_process_is_waited_for_as_long_as_it_is_heard() -> None:
    def does(ranks: SeveralRanks) -> Any:
        ranks.timeout = 0.2
        return ranks.first(lambda: time.sleep(1) or "done")

    assert at_once(of(2), does) == ["done", "done"]


def test_a_process_that_ended_by_itself_is_not_waited_for() -> None:
    def does(ranks: SeveralRanks) -> Any:
        if ranks.leads:
            ranks.store.set("left/0", "70")
            return None
        return ranks.first(lambda: None)

    (_, error) = at_once(of(2), does)
    assert isinstance(error, ElsewhereError) and error.status == 70


@pytest.mark.parametrize(
    "given", [{"RANK": "1"}, {"RANK": "0", "WORLD_SIZE": "4"}, {"WORLD_SIZE": "2", "MASTER_PORT": "1"}]
)
def test_variables_without_torchrun_are_told_and_not_followed(
    given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.warns(Notice, match="set, but not by torchrun, so this process trains alone"), joined() as ranks:
        assert type(ranks) is Ranks and ranks.world == 1 and ranks.leads and told_here()


@pytest.mark.parametrize("given", [{}, {"WORLD_SIZE": "1", "RANK": "0"}])
def test_a_process_that_is_alone_is_told_nothing(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with joined() as ranks:
            assert ranks.first(lambda: 3) == 3 and ranks.any(True) and not ranks.any(False)


def test_a_process_that_is_left_alone_knows_that_the_training_began() -> None:
    kept = dist.HashStore()
    several = SeveralRanks(0, 2, dist.PrefixStore("start", kept), kept)
    assert not Remaining(kept).began_before
    several.begins()
    several._done.set()
    left = Remaining(kept)
    assert left.began_before and left.leads and left.world == 1
    alone = dist.HashStore()
    Remaining(alone).begins()
    assert Remaining(alone).began_before
