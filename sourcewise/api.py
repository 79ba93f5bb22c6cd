"""The library's functions for complete tasks: train, preflight, compare; `sourcewise` exports them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sourcewise.comparison.finished import Finished, State
from sourcewise.comparison.plan import Comparison, Planned, load_comparison
from sourcewise.comparison.runs import Ends, run_all, run_on_cluster, settle, train_one
from sourcewise.comparison.table import Table
from sourcewise.config import Recipe
from sourcewise.config.files import checked, load_recipe, set_option
from sourcewise.data.examples import Dataset
from sourcewise.data.mixtures import encode_sets
from sourcewise.data.profiles.profile import profile_of, write_profiles
from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.preflight import before_training, not_told
from sourcewise.diagnosis.preflight import preflight as diagnosed
from sourcewise.diagnosis.watch import Watch
from sourcewise.errors import Notice, RequestError, tell
from sourcewise.evaluation.evaluate import evaluate_model
from sourcewise.evaluation.results import METRICS_FILE, Evaluation
from sourcewise.evaluation.shown import write_shown
from sourcewise.generation.model import load
from sourcewise.reporting.comparison import write_table
from sourcewise.reporting.comparison_progress import ComparisonProgress
from sourcewise.reporting.progress import LiveReport, TrainingProgress
from sourcewise.reporting.terminal import print_findings, print_notes
from sourcewise.reporting.tracked import Tracked
from sourcewise.runtime.cluster import as_ranks, connected
from sourcewise.runtime.processes import refuse_ranks
from sourcewise.runtime.random import host_kept
from sourcewise.runtime.ranks import Ranks, joined
from sourcewise.tracking import check_installed
from sourcewise.training.events import Listener
from sourcewise.training.loop import Interrupted, Training
from sourcewise.training.resuming import resumed
from sourcewise.training.run import Run, create_run, locked, write_recipe
from sourcewise.training.setup import TrainingSetup, set_up


@host_kept
def train(
    recipe: Recipe | str | Path | None,
    overrides: dict[str, Any] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    listeners: Sequence[Listener] = (),
) -> Run:
    """Train by a recipe into its run folder, then evaluate the best checkpoint on the test set.

    `overrides` are options such as {"train.steps": 100}. With `resume` the run continues exactly from its saved state
    with its own recipe; overrides may only add steps or epochs. `listeners` are called with the training's events.
    Raises RequestError, and Interrupted if the training was saved after a Ctrl-C.

    Started several times by torchrun it is one training by all of these processes, of which the first writes the files
    and evaluates. After a restart by torchrun it goes on from the saved state, if there is one.
    """
    with joined() as ranks:
        going_on = resume or ranks.began_before
        with ranks.agreed():
            recipe = _with(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
            check_installed(recipe.train.track)
            run, found = create_run(recipe, resume=going_on, overwrite=overwrite), False
            if going_on and (found := run.exists):
                recipe = resumed(recipe, run.recipe, overrides or {})
            elif resume:
                tell(f"{run.folder}: no run to resume is there, so it begins")
        with ranks.led(lambda: locked(run.folder)):
            return _train(recipe, run, ranks, listeners, resume=found, overwrite=overwrite and not found)


def train_on_cluster(
    recipe: str | Path | None,
    overrides: dict[str, Any] | None = None,
    *,
    ray: str,
    workers: tuple[int, int],
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """`train` by the machines of a Ray cluster: as many processes as there is room for, between two numbers.

    Each has `train.threads` cores (default: 1), and an accelerator where there are some. All machines see the folder of
    the run. What a machine was doing when it was lost goes on from the saved state. Raises RequestError.
    """
    chosen = load_recipe(recipe, overrides)
    run = create_run(chosen, resume=resume, overwrite=overwrite)
    with connected(ray) as machines, TemporaryDirectory(dir=_output(chosen), prefix=".ray-") as kept:
        asked = partial(_train_there, recipe, overrides, resume, overwrite, run, _stamp(run))
        as_ranks(machines, asked, workers, chosen.train.threads or 1, chosen.train.timeout, kept)
    run.evaluation = Evaluation.from_folder(run.folder) if (run.folder / METRICS_FILE).is_file() else None
    return run


def _train_there(
    recipe: str | Path | None,
    overrides: dict[str, Any] | None,
    resume: bool,
    overwrite: bool,
    run: Run,
    before: int,
) -> None:
    """`train` in one of the processes of a cluster, which are begun again when one is lost.

    The first ones begin the run, those after them go on with it: its recipe is another file than `before`.
    """
    begun = _stamp(run) != before
    train(recipe, overrides, resume=resume or begun, overwrite=overwrite and not begun)


def _stamp(run: Run) -> int:
    """When the recipe of a run was written, in nanoseconds; 0 if there is none."""
    return (run.folder / "recipe.yaml").stat().st_mtime_ns if run.exists else 0


def _output(recipe: Recipe) -> Path:
    """The folder of the runs, made if it is not there. Raises RequestError."""
    folder = Path(recipe.output).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"{folder}: cannot be made ({error.strerror})") from None
    return folder.resolve()


def _train(
    recipe: Recipe, run: Run, ranks: Ranks, listeners: Sequence[Listener], *, resume: bool, overwrite: bool
) -> Run:
    """`train` for a run, by all processes; its folder is locked."""
    with ranks.agreed():
        setup = set_up(recipe, run.tokenizer if resume and run.has_tokenizer else None, ranks.local_world)
    ranks.connect(setup.network.device, recipe.train.timeout)
    before: list[Piece] = []

    def check() -> None:
        if not resume and recipe.train.preflight:
            before.append(_without_errors(before_training(setup)))

    ranks.first(check)
    with ranks.agreed():  # each finds what cannot be sharded, and one tells it
        training = _training(setup, run, before[0] if before else None, listeners, ranks)
    ranks.first(lambda: _begin(setup, run, before[0] if before else None, resume=resume, overwrite=overwrite))
    ranks.begins()
    training.fit(lambda: ranks.first(lambda: write_recipe(run, setup.recipe)) if resume else None)
    _end(setup, run, ranks)
    return run


def _begin(setup: TrainingSetup, run: Run, before: Piece | None, *, resume: bool, overwrite: bool) -> None:
    """Write what a training writes before its first step: only now, a refused request leaves all files unchanged.

    A resumed run's recipe, which may have more steps, is written once its state is read.
    """
    if overwrite:
        run.clear()
    if not resume:
        write_recipe(run, setup.recipe)
    if not run.has_tokenizer:
        setup.tokenizer.save(run.tokenizer)
    seen = [each.notes for each in (setup.train, setup.valid, *setup.test) if each is not None]
    notes = list(dict.fromkeys(note for each in seen for note in each))  # valid may be train
    run.write_notes(notes)
    print_notes(not_told(notes, before.findings if before else ()), run.notes)
    if not run.profile.is_file():
        write_profiles([profile_of(each) for each in setup.pairs], run.profile)


def _end(setup: TrainingSetup, run: Run, ranks: Ranks) -> None:
    """Evaluate the best checkpoint of a finished training by all processes; the first writes the report."""
    try:
        if setup.test:
            device = str(setup.network.device)
            run.evaluation = evaluate_run(run, setup.test, setup.pairs, device=device, ranks=ranks)
        ranks.first(lambda: _report(run))
    except KeyboardInterrupt:
        if ranks.leads:
            LiveReport().interrupted(run)
        problem = "trained, but not evaluated"
        raise Interrupted(f"{problem}; go on with: sourcewise train {run.folder} --resume") from None


def _report(run: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Notice)  # printed before; the report reads the same data again
        LiveReport().done(run)


def _with(recipe: Recipe, overrides: dict[str, Any] | None) -> Recipe:
    """A recipe with other options. Raises RequestError for one that does not exist or does not fit."""
    if not overrides:
        return recipe
    tree = recipe.model_dump()
    for dotted, value in overrides.items():
        set_option(tree, dotted, value)
    return checked(tree, "options", overrides)


def prepare(recipe: Recipe, run: Run, *, resume: bool = False) -> Training:
    """Set up a training without taking a step. Raises RequestError.

    With `resume` the tokenizer is that of the run.
    """
    return _training(set_up(recipe, run.tokenizer if resume and run.has_tokenizer else None), run)


def _training(
    setup: TrainingSetup,
    run: Run,
    before: Piece | None = None,
    listeners: Sequence[Listener] = (),
    ranks: Ranks | None = None,
) -> Training:
    """The training with its listeners; `before` is the report of its pre-flight check."""
    progress, tracked = TrainingProgress(), Tracked(setup.recipe)

    def found(step: int, finding: Finding) -> None:
        progress.found(step, finding)
        tracked.found(step, finding)

    watching: tuple[Listener, ...] = (progress, tracked, Watch(setup.recipe, found, before), LiveReport(), *listeners)
    return Training(setup, run, watching, ranks)


def _without_errors(before: Piece) -> Piece:
    """The report of a pre-flight check. Raises RequestError after printing it if a finding is an error."""
    grave = next((finding for finding in before.findings if finding.level == "error"), None)
    if grave is None:
        return before
    print_findings(before.findings)
    problem = f"before the first step: {grave.code}, {grave.name}: {grave.evidence}"
    raise RequestError(f"{problem}; to train all the same: --train.preflight false")


@host_kept
def preflight(recipe: Recipe | str | Path, overrides: dict[str, Any] | None = None) -> Diagnosis:
    """Diagnose a training before it begins: all is set up as in `train`, but no step is taken.

    Raises RequestError for a wrong recipe or option; faults of the data are findings.
    """
    chosen = _with(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    return diagnosed(lambda: set_up(chosen))


def evaluate_run(
    run: Run,
    test: Sequence[Dataset],
    training: Sequence[Dataset] | None = None,
    *,
    device: str | None = None,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Evaluate the best checkpoint of a run on one or several sets; writes metrics.json and translations.tsv.

    The baselines are taken from `training`, by default the training sets of its recipe. All processes of `ranks` call
    it together; the first writes the files.
    """
    ranks = ranks or Ranks()
    with ranks.agreed():
        model = load(run.folder, device or run.recipe.train.device)
        encoded = encode_sets(test, model.tokenizer, model.data)
    progress = TrainingProgress().evaluating if ranks.leads else None
    encoded.tell()
    evaluation = evaluate_model(
        model, encoded, model.generation, progress, model.evaluation, run=run.folder, training=training, ranks=ranks
    )

    def write() -> None:
        evaluation.write(run.folder)
        write_shown(model, encoded, run.folder)

    ranks.first(write)
    return evaluation


def compare(
    recipe: str | Path,
    overrides: dict[str, Any] | None = None,
    *,
    jobs: int = 1,
    overwrite: bool = False,
    ray: str | None = None,
) -> Table:
    """Train every variant of a recipe with every seed, `jobs` at a time, and compare them.

    With `ray`, the address of a Ray cluster, each training is a task there, with `train.threads` cores (default: 1).

    Finished trainings are reused, interrupted ones are resumed; with `overwrite`, runs of other recipes are replaced.
    All variants are checked before the first training. After every training the table is written to the comparison's
    folder as Markdown, HTML, CSV and JSON. Raises RequestError that names the variant and the key, and Interrupted
    after a Ctrl-C, when all running trainings are saved.
    """
    refuse_ranks()
    comparison = load_comparison(recipe, overrides)
    states = settle(comparison.planned, overwrite=overwrite)
    progress = ComparisonProgress(comparison, states)
    try:
        with connected(ray) if ray else nullcontext() as machines, locked(comparison.folder):
            to_do = [each for each in comparison.planned if states[each.name] != "finished"]
            for planned in _first_of_each(to_do):
                progress.checking(planned)
                _check_variant(planned)
            if machines is None:
                threaded = [_threaded(each, jobs) for each in to_do]
                ended = run_all(threaded, states, train, jobs, comparison.folder, progress)
            else:
                threaded = [_threaded(each, os.cpu_count() or 1) for each in to_do]
                ended = run_on_cluster(machines, threaded, train, comparison.folder, progress)
            return _tell_ends(comparison, ended, states, progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped, what was running is saved; go on with the same command") from None


def compare_one(
    recipe: str | Path, only: str, overrides: dict[str, Any] | None = None, *, overwrite: bool = False
) -> Run:
    """Train one training of a comparison, such as "perceiver-0", in this process; others may do so with others.

    A finished one is left as it is, an interrupted one resumed. `compare` makes the table. Raises RequestError.
    """
    refuse_ranks()
    planned = load_comparison(recipe, overrides).named(only)
    state = settle([planned], overwrite=overwrite)[planned.name]
    if state != "finished":
        _check_variant(planned)
        train_one(planned, state, train)
    return Run(planned.folder)


def listing(
    recipe: str | Path, overrides: dict[str, Any] | None = None, *, overwrite: bool = False
) -> tuple[Comparison, dict[str, State]]:
    """The trainings that `compare` would run and their states; nothing is trained or written."""
    comparison = load_comparison(recipe, overrides)
    return comparison, settle(comparison.planned, overwrite=overwrite)


def _tell_ends(
    comparison: Comparison,
    ended: Ends,
    states: dict[str, State],
    progress: ComparisonProgress,
) -> Table:
    """The table, written whenever a training ends."""
    finished = [Finished.read(each) for each in comparison.planned if states[each.name] == "finished"]
    failed: dict[str, str] = {}
    with progress, closing(ended):
        for planned, error in ended:
            if error is None:
                finished.append(Finished.read(planned))
            else:
                failed[planned.name] = error
            progress.ended(planned, error)
            write_table(Table.of(comparison, finished, failed))
    table = Table.of(comparison, finished, failed)
    write_table(table)
    return table


def _first_of_each(planned: Sequence[Planned]) -> list[Planned]:
    """The first training of each variant."""
    return list({each.variant: each for each in reversed(planned)}.values())[::-1]


def _check_variant(planned: Planned) -> None:
    """Set up a training as `train` does. Raises RequestError that names the variant."""
    try:
        test = prepare(planned.recipe, Run(planned.folder)).setup.test
    except RequestError as error:
        raise RequestError(f"variant {planned.variant}: {error}") from None
    if not test:
        raise RequestError("data.test: missing; a comparison measures on data.test, or data.valid: name one")


def _threaded(planned: Planned, jobs: int) -> Planned:
    """The training with its share of the cores, if several run at a time."""
    if jobs == 1 or planned.recipe.train.threads:
        return planned
    threads = max(1, (os.cpu_count() or 1) // jobs)
    options = planned.recipe.train.model_copy(update={"threads": threads})
    return Planned(planned.variant, planned.seed, planned.recipe.model_copy(update={"train": options}))
