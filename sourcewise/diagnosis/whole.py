"""Everything that can be known of a run or a model: its recipe, its course, its network, its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sourcewise.data.plain_text import Denoised
from sourcewise.diagnosis.course import Course, too_early
from sourcewise.diagnosis.diagnose import Piece, of_evaluation
from sourcewise.diagnosis.looked import Looked
from sourcewise.diagnosis.preflight import PREFLIGHT_CHECKS, left_unchecked
from sourcewise.diagnosis.rules import COURSE_CHECKS, NETWORK_CHECKS, reading
from sourcewise.diagnosis.rules.data import check_characters
from sourcewise.diagnosis.rules.data_texts import REFUSED
from sourcewise.diagnosis.rules.wiring import check_network, check_start, not_compared, one_batch
from sourcewise.errors import FaultyData, RequestError
from sourcewise.evaluation.evaluate import evaluate_encoded, lay_out
from sourcewise.evaluation.results import METRICS_FILE, Evaluation
from sourcewise.generation.model import Model, load
from sourcewise.training.opening import open_training
from sourcewise.training.run import Run

if TYPE_CHECKING:
    from sourcewise.config import Recipe
    from sourcewise.data.encoding import Encoded
    from sourcewise.data.examples import Dataset

NO_TRAINING = (
    "the training data: imbalance, duplicates, misaligned pairs, cut texts",
    "the course of training: learning rate, over-fitting",
)


def whole(model: Model | str | Path, data: str | Path | Dataset | None, task: str | None) -> list[Piece]:
    """The pieces of `diagnose`, causes before symptoms. Raises RequestError where there is nothing to judge by."""
    run = Run(Path(model)) if isinstance(model, (str, Path)) else None
    if run is None or not _is_run(run):
        return [*_of_model(model, data, task), Piece((), NO_TRAINING)]
    recipe, unreadable = _recipe(run)
    pieces = [_of_recipe(run, recipe) if recipe else Piece((), [f"the recipe: {unreadable}"])]
    pieces.append(of_course(Course.read(run.metrics(), recipe)))
    return pieces + _of_model(run.folder, data, task, judged=run)


def of_course(course: Course) -> Piece:
    """What the lines of metrics.jsonl show."""
    if not course.train and course.stopped is None:
        return Piece((), ["the course of training: no metrics.jsonl with its lines"])
    missing = []
    if not course.evaluations:
        missing.append("source use in the course of training: no evaluation was logged")
    if course.stopped is None and 0 < course.step < course.total:
        missing.append(f"the rest of the training: step {course.step} of {course.total} is the last that was logged")
    found = [finding for check in COURSE_CHECKS for finding in check(course)]
    return Piece(found, missing, early=too_early(course))


def look(model: Model, encoded: Encoded) -> Piece:
    """What its tokenizer loses of a set, the wiring of a trained network, and every rule over it, on that set."""
    network: Any = model.network
    network.eval()
    batch, bypass = one_batch(encoded), getattr(network, "route", "encoder") == "bypass"
    looked = Looked(network, model.tokenizer, encoded, batch, bypass)
    pairs = [part for part in encoded.parts if not isinstance(part, Denoised)]
    found = [finding for part in pairs for finding in check_characters(part, model.data)]
    found += [*check_network(network, batch, as_asked=bypass), *check_start(network, model.tokenizer)]
    found += [finding for check in NETWORK_CHECKS for finding in check(looked)]
    return Piece(found, [*not_compared(found), *reading.not_checked(looked)])


def _is_run(run: Run) -> bool:
    names = ("recipe.yaml", "metrics.jsonl", METRICS_FILE)
    return any((run.folder / name).is_file() for name in names)


def _recipe(run: Run) -> tuple[Recipe | None, str]:
    """The run's recipe, or why it cannot be read."""
    try:
        return run.recipe, ""
    except RequestError as problem:
        return None, str(problem)


def _of_recipe(run: Run, recipe: Recipe) -> Piece:
    """Its data, and the wiring of the network it began with, where data and weights are still where they were."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            prepared, _ = open_training(recipe, run.tokenizer if run.has_tokenizer else None)
            found = [finding for check in PREFLIGHT_CHECKS for finding in check(prepared)]
    except FaultyData as fault:
        return Piece([REFUSED.finding(str(fault))])
    except RequestError as problem:
        return Piece((), [f"its training data and initial wiring: {problem}"])
    finally:
        torch.set_num_threads(threads)
    return Piece(found, [*left_unchecked(prepared), *not_compared(found)])


def _of_model(
    model: Model | str | Path, data: str | Path | Dataset | None, task: str | None, judged: Run | None = None
) -> list[Piece]:
    """The network on a set, and its outputs there; of a run whose outputs are there already, these."""
    evaluation = None
    if judged is not None and data is None and (judged.folder / METRICS_FILE).is_file():
        evaluation = Evaluation.from_folder(judged.folder)
    try:
        loaded = model if isinstance(model, Model) else load(model)
        encoded = _set_of(loaded, data, task)
        seen = look(loaded, encoded)
        if evaluation is None:
            evaluation = evaluate_encoded(loaded.network, loaded.tokenizer, encoded, loaded.options())
        else:
            _put_sources(evaluation, encoded)
    except RequestError as problem:
        if judged is None or data is not None or (evaluation is None and not judged.metrics()):
            raise
        seen = Piece((), [f"the trained network: {problem}"])
    return [seen] if evaluation is None else [seen, of_evaluation(evaluation)]


def _put_sources(evaluation: Evaluation, encoded: Encoded) -> None:
    """A folder keeps ids, references and outputs; where this is the same set, its source texts are put beside them."""
    if [(row.id, row.reference) for row in evaluation.rows] == [(e.id, e.target) for e in encoded.dataset]:
        for row, example in zip(evaluation.rows, encoded.dataset, strict=True):
            row.source = example.source


def _set_of(model: Model, data: str | Path | Dataset | None, task: str | None) -> Encoded:
    chosen: Any = data if data is not None else model.data.test or model.data.valid
    if chosen is None:
        raise RequestError("no evaluation and no test set of its own; name one: sourcewise diagnose MODEL DATA")
    return lay_out(model, chosen, task=task)
