"""Windows by other machines, here in this process: in any order, nothing twice, of no other model or sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.data import windows
from sourcewise.errors import RequestError
from sourcewise.evaluation import elsewhere as evaluation
from sourcewise.evaluation.evaluate import lay_out
from sourcewise.evaluation.shared import found_in
from sourcewise.generation import sharing
from sourcewise.generation.sharing import Elsewhere, planned, write_by_pool, write_share
from sourcewise.generation.written import Asked, Writer
from sourcewise.runtime.cluster import Machines
from sourcewise.runtime.shares import Share
from tests.cli.test_shards import texts
from tests.commands import Models
from tests.training.recipes import pairs_file

ASKED = Asked(options={"max_new_tokens": 5, "sample": True, "seed": 3})


@pytest.fixture
def work(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Eight windows, of which none is written yet."""
    monkeypatch.setattr(windows, "WINDOW", 8)
    path = texts(tmp_path)
    writer = Writer(sourcewise.load(models.text), ASKED)
    pieces = planned(str(path), writer, str(tmp_path / "out.txt"))
    return Elsewhere(str(path), str(models.text), "fp32", {}, ASKED, pieces, 8)


def in_turn(machines: Machines, make: Callable[[], Callable[[int], Any]], items: Sequence[int]) -> Iterator[Any]:
    """What a cluster does, by one process, the last item first."""
    function = make()
    return (function(item) for item in reversed(items))


def whole(work: Elsewhere) -> str:
    writer = Writer(sourcewise.load(work.models), ASKED)
    (window,) = windows.windows(work.named, writer.request, size=1000)
    return writer.lines(window.read(), 0)[0]


def test_windows_are_written_in_any_order(work: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "over_pool", in_turn)
    writer = Writer(sourcewise.load(work.models), ASKED)
    some = write_share(work.named, writer, work.pieces, Share(1, 4), lambda notes: None, lambda size, before: None)
    assert (some.written, some.missing) == (2, 6)
    done = write_by_pool(Machines(2, 0), work, lambda size, before: None)
    assert (done.windows, done.written, done.missing, done.counts.outputs) == (8, 6, 0, 60 - 16)
    assert work.pieces.output.read_text() == whole(work)
    again = write_by_pool(Machines(2, 0), work, lambda size, before: None)
    assert (again.written, again.missing) == (0, 0)


def test_a_worker_writes_nothing_twice(work: Elsewhere) -> None:
    write = work.worker()
    first = [write(number)[0].outputs for number in (5, 2, 7)]
    assert first == [8, 8, 4]
    assert [write(number)[0].outputs for number in (5, 2, 7)] == [0, 0, 0]


def test_another_model_is_refused(work: Elsewhere, models: Models) -> None:
    other = replace(work, asked=replace(ASKED, options={"beams": 2}))
    with pytest.raises(RequestError, match="is another model, or another version of sourcewise"):
        other.worker()


def test_sources_that_changed_are_refused(work: Elsewhere, models: Models) -> None:
    write, path = work.worker(), Path(work.named)
    path.write_text(path.read_text().replace("ba", "no"))
    with pytest.raises(RequestError, match="window 3 has other sources than when the work was begun"):
        write(3)
    path.write_text("ba\n" * 8)
    with pytest.raises(RequestError, match="window 7 has other sources"):
        work.worker()(7)
    assert work.pieces.missing() == [*range(8)]


def test_what_decides_on_outputs_is_in_the_identity(models: Models) -> None:
    model = sourcewise.load(models.text)
    same = Writer(model, ASKED).identity()
    assert Writer(sourcewise.load(models.text), ASKED).identity() == same
    for changed in (
        Writer(model, replace(ASKED, options={**ASKED.options, "seed": 4})),
        Writer(model, replace(ASKED, json=True)),
        Writer(model, replace(ASKED, prefix="x: ")),
        Writer(model, replace(ASKED, version="another")),
        Writer(sourcewise.load(models.text, max_source=3), ASKED),
        Writer(sourcewise.load(models.text, precision="bf16"), ASKED),
        Writer(sourcewise.load([models.text, models.text]), ASKED),
    ):
        assert changed.identity() != same


def test_an_evaluation_by_other_machines(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "over_pool", in_turn)
    data = str(pairs_file(tmp_path, "test.tsv", 40, 7))
    model = sourcewise.load(models.text)
    encoded, options = lay_out(model, data), model.options(beams=2, max_new_tokens=5)
    asked = evaluation.Elsewhere(str(models.text), data, options={"beams": 2, "max_new_tokens": 5})
    found = asked.found_by(Machines(3, 0), model, encoded, options)
    alone = found_in(model.network, encoded, options, (0, 1))
    assert [each.ids for each in found.hypotheses] == [alone.hypotheses[i][0].ids for i in range(40)]
    pairs_file(tmp_path, "test.tsv", 40, 8)
    with pytest.raises(RequestError, match=r"test.tsv or the tokenizer of .* is another one"):
        asked.found_by(Machines(3, 0), model, encoded, options)
