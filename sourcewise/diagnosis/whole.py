"""Everything that can be known of a run or a model: its recipe, its course, its network, its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sourcewise.data.profiles.profile import PROFILE_FILE, like, read_profiles
from sourcewise.diagnosis import ours
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.asked import OF_SOURCE, PENALTY, TWICE, Asking, prefixes_of, suppressed_by
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.course import Course, too_early
from sourcewise.diagnosis.noted import kept_evaluation, noted_preflight
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.rules import absent, look
from sourcewise.diagnosis.trained import Trained
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.errors import FaultyData, NotFinite, RequestError, tell
from sourcewise.evaluation.beside import run_folder
from sourcewise.evaluation.evaluate import Progress, evaluate_model, lay_out
from sourcewise.evaluation.results import METRICS_FILE, Evaluation
from sourcewise.generation.in_memory import Pair, opened
from sourcewise.generation.model import Model, load
from sourcewise.runtime.random import host_kept
from sourcewise.training.events import LINES_FILE, read_lines
from sourcewise.training.run import Run
from sourcewise.training.setup import set_up

if TYPE_CHECKING:
    from sourcewise.config import DatasetConfig, Recipe
    from sourcewise.data.encoding import ExampleSet
    from sourcewise.data.examples import Dataset

NOT_HELD = "this set was never held against the training data"
GONE = "which cannot be opened"
OF_ANY_SET = "DAT006"  # of the rules over training data, those that say something of any set
OVER = "the training is not over, or its loss still fell at its end"


@dataclass(frozen=True, slots=True)
class Asked:
    """The set that a diagnosis is asked for, in the words of `evaluate`; `data` None: the run's own."""

    data: str | Path | Dataset | DatasetConfig | Sequence[DatasetConfig] | Sequence[Pair] | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)  # task, features, source, target, prefix
    generation: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)  # max_source, max_target, max_frames
    progress: Progress | None = None
    tokenizer: Any = None  # of a model in memory

    def __post_init__(self) -> None:
        """Raises RequestError for words about a set that is not given."""
        words = {**self.reading, **self.generation, **self.limits}
        said = next((name for name, value in words.items() if value is not None), None)
        if self.data is None and said is not None:
            raise RequestError(f"{said}: goes with a set; name it: sourcewise diagnose MODEL DATA")


def whole(model: Model | str | Path, asked: Asked) -> tuple[list[Piece], bool]:
    """The pieces of `diagnose`, causes before symptoms, and whether the set is the run's own.

    Raises RequestError where there is nothing to judge by, and NotFinite where weights are NaN or infinite.
    """
    run = Run(Path(model)) if isinstance(model, (str, Path)) else None
    files = ("recipe.yaml", LINES_FILE, METRICS_FILE)  # of a run, any of them
    if run is None or not any((run.folder / name).is_file() for name in files):
        loaded = opened(model, asked.tokenizer)
        name = loaded.name or "the model"
        unheld = f"{NOT_HELD} ({name} is no run folder, so what it was trained on is not known)"
        untold = [absent(each, f"{name} is no run folder") for each in (Pairs, Course)]
        return [*_of_model(loaded, asked), Piece((), [*untold, unheld])], False
    if asked.data is None:
        pieces = of_run(run)
        if not any(piece.looked_at for piece in pieces):
            raise RequestError(f"{run.folder}: nothing to judge by; {pieces[-2].not_checked[0]}")
        return pieces, True
    lines, (recipe, _) = read_lines(run.folder / LINES_FILE), _recipe(run)
    own = recipe is not None and any(_is(asked, recipe, use) for use in ("valid", "test"))
    pieces, held = _of_training(run, lines)
    if not held or recipe is None or not _is(asked, recipe, "valid"):
        why = f"its data.valid is; this is {_name(asked.data)}" if held else GONE
        pieces.append(Piece((), [f"{NOT_HELD} ({why})"]))
    return [*pieces, *_of_model(load(run.folder), asked)], own


def of_run(run: Run, *, network: bool = True) -> list[Piece]:
    """All of a run that its folder, its data and its weights tell; the outputs are those that lie in the folder.

    Without `network` it is what files alone tell in a moment, for a report while the run trains: no weights are
    loaded, no data is opened. Raises RequestError where a file is damaged, and NotFinite.
    """
    lines = read_lines(run.folder / LINES_FILE)
    evaluation = kept_evaluation(run.folder, lines)
    if not network:
        unseen = Piece((), [absent(each, "no pre-flight is noted here") for each in (Pairs, Wiring)])
        pieces = [noted_preflight(lines) or unseen, _course(run, lines)]
        return [*pieces, Piece((), [absent(Trained, "not while it trains")]), _outputs(evaluation)]
    pieces, held = _of_training(run, lines)
    final = (run.folder / METRICS_FILE).is_file()
    seen, evaluation = _own_network(run, evaluation, final)
    recipe, _ = _recipe(run)
    if not held:
        pieces.append(Piece((), [f"{NOT_HELD} ({GONE})"]))
    elif final and recipe is not None and recipe.data.test:
        pieces.append(Piece((), [f"{NOT_HELD} (its data.valid is; this is its data.test)"]))
    return [*pieces, seen, _outputs(evaluation)]


def of_course(course: Course, nothing: str = "no metrics.jsonl with its lines") -> Piece:
    """What the lines of metrics.jsonl show; `nothing` says why there are none, where there are none."""
    found = look(course)
    if course.empty:
        return replace(found, not_checked=[absent(Course, nothing)])
    early = too_early(course)
    looked_at = [f"the course of training, up to step {course.step:,}"]
    return Piece(found.findings, found.not_checked, looked_at, (early or OVER) if course.going_on else "", early)


def of_evaluation(evaluation: Evaluation) -> Piece:
    """What an evaluation shows: source use and outputs."""
    return replace(look(Outputs(evaluation)), looked_at=[f"the evaluation, of {len(evaluation.rows):,} examples"])


def _outputs(evaluation: Evaluation | None) -> Piece:
    return Piece((), [absent(Outputs, "none are here")]) if evaluation is None else of_evaluation(evaluation)


def of_network(model: Model, encoded: ExampleSet) -> Piece:
    """What its tokenizer loses of a set, the wiring of a trained network, and every rule over it, on that set."""
    parts = [part for part in encoded.parts if not part.drawn]
    texts = [Pairs(part, whole_words=ours.whole_words(model.data), fewest=1) for part in parts]
    found = (
        look(*texts, codes=OF_ANY_SET),
        *_held_to_training(model, encoded),
        look(*ours.after(model, encoded, _from_scratch(model))),
    )
    findings = [finding for piece in found for finding in piece.findings]
    return Piece(findings, [words for piece in found for words in piece.not_checked], ["the trained network"])


def _from_scratch(model: Model) -> bool:
    """Whether the model is of a run whose recipe names no weights that it began with."""
    folder = run_folder(model.name)
    recipe = _recipe(Run(folder))[0] if folder else None
    return recipe is not None and ours.plan_of(recipe).fresh


def _held_to_training(model: Model, encoded: ExampleSet) -> list[Piece]:
    """Every part of a set beside the profile of the data that the model was trained on."""
    folder = run_folder(model.name)
    profiles = read_profiles(folder / PROFILE_FILE) if folder else []
    if not profiles:
        return [Piece((), [absent(Beside, f"{model.name or 'the model'} has no {PROFILE_FILE}, as a run has")])]
    parts = [(part.dataset, like(profiles, part.dataset)) for part in encoded.parts if not part.drawn]
    pieces = [look(Beside(profile, dataset)) for dataset, profile in parts if profile is not None]
    for dataset in (dataset for dataset, profile in parts if profile is None):
        pieces.append(Piece((), [absent(Beside, f"{dataset.name} is of no task that was trained")]))
    return pieces


def _recipe(run: Run) -> tuple[Recipe | None, str]:
    """The run's recipe, or why it cannot be read."""
    try:
        return run.recipe, ""
    except RequestError as problem:
        return None, str(problem)


def _of_training(run: Run, lines: Sequence[Mapping[str, Any]]) -> tuple[list[Piece], bool]:
    """Its data and wiring, and its course; and whether its validation set was held against its training data.

    What the pre-flight found before the first step is what counts: the data may have changed since.
    """
    recipe, unreadable = _recipe(run)
    noted = noted_preflight(lines)
    if noted is not None:
        return [noted, _course(run, lines)], True
    if recipe is None:
        return [Piece((), [f"the recipe: {unreadable}"]), _course(run, lines)], False
    piece, opened = _of_recipe(run, recipe)
    return [piece, _course(run, lines)], opened


def _course(run: Run, lines: Sequence[Mapping[str, Any]]) -> Piece:
    return of_course(ours.course_of(lines, _recipe(run)[0]))


@host_kept
def _of_recipe(run: Run, recipe: Recipe) -> tuple[Piece, bool]:
    """Its data, and the wiring of the network it began with; and whether these are still where they were."""
    try:
        piece = look(*ours.before(set_up(recipe, run.tokenizer if run.has_tokenizer else None)))
    except FaultyData as fault:
        return look(Pairs(None, refused=str(fault))), False
    except RequestError as problem:
        return Piece((), [f"its training data and initial wiring: {problem}"]), False
    return replace(piece, looked_at=["the data and the wiring, as before the first step"]), True


def _of_model(model: Model, asked: Asked) -> list[Piece]:
    """The network on a set that was asked for, and its outputs there, as `evaluate` measures them."""
    model = model.limited(**asked.limits) if asked.limits else model
    encoded = _set_of(model, asked)
    options, held = model.options(**asked.generation), model.held(**asked.generation)
    if held:
        tell(held)
    evaluation = evaluate_model(model, encoded, options, asked.progress, model.evaluation)
    asking = look(
        Asking(
            encoded,
            options.min_new_tokens,
            options.max_new_tokens,
            prefixes_of(model.name),
            suppressed=suppressed_by(model.network),
            barred={
                TWICE: options.no_repeat_ngram,
                OF_SOURCE: options.encoder_no_repeat_ngram,
                PENALTY: options.repetition_penalty,
            },
            drawn=f"do_sample is set, at a temperature of {options.temperature:g}" if options.sample else "",
        )
    )
    return [of_network(model, encoded), asking, of_evaluation(evaluation)]


def _own_network(run: Run, evaluation: Evaluation | None, final: bool) -> tuple[Piece, Evaluation | None]:
    """A run's network on its own set, and its outputs: those that are there, else such as it gives now."""
    try:
        model = load(run.folder)
        data = model.data.test or model.data.valid if final or evaluation is None else model.data.valid
        encoded = _set_of(model, Asked(data))
        if evaluation is None:
            evaluation = evaluate_model(model, encoded, model.options(), run=run.folder)
        else:
            _put_sources(evaluation, encoded)
        return of_network(model, encoded), evaluation
    except NotFinite:
        raise
    except RequestError as problem:
        return Piece((), [f"the trained network: {problem}"]), evaluation


def _put_sources(evaluation: Evaluation, encoded: ExampleSet) -> None:
    """A folder keeps ids, references and outputs; where these are of this set, its source texts are put beside them."""
    sources = {(example.id, example.target): example.source for example in encoded.dataset}
    keys = [(row.id, row.reference) for row in evaluation.rows]
    if len(sources) == len(encoded.dataset) and all(key in sources for key in keys):
        for row, key in zip(evaluation.rows, keys, strict=True):
            row.source = sources[key]


def _set_of(model: Model, asked: Asked) -> ExampleSet:
    chosen: Any = asked.data if asked.data is not None else model.data.test or model.data.valid
    if chosen is None:
        raise RequestError("no evaluation and no test set of its own; name one: sourcewise diagnose MODEL DATA")
    return lay_out(model, chosen, **asked.reading)


def _is(asked: Asked, recipe: Recipe, use: str) -> bool:
    """Whether the set that was asked for is one of a recipe's own, by its file."""
    if not isinstance(asked.data, (str, Path)):
        return False
    root = Path(recipe.data.root).expanduser()
    sets = recipe.data.sets(use)  # type: ignore[arg-type]
    files = [name for c in sets for name in (c.pairs, c.manifest, c.conversations, c.text, c.builtin) if name]
    given = str(asked.data)
    return given in files or Path(given).expanduser().resolve() in [(root / name).resolve() for name in files]


def _name(data: object) -> str:
    return str(data) if isinstance(data, (str, Path)) else getattr(data, "name", "") or "the set"
