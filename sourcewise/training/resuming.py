"""Resuming a run: checks that state, tokenizer, data and options are those of its start, and warns of differences."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from torch import Tensor

from sourcewise.config import Recipe
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import DataWarning, NotFinite, RequestError, tell
from sourcewise.evaluation.results import METRICS_FILE
from sourcewise.model.finite import damage
from sourcewise.runtime.files import write_atomically
from sourcewise.runtime.ranks import Ranks
from sourcewise.training.events import started
from sourcewise.training.optimizer import MasterAdamW, moments_of
from sourcewise.training.run import Run
from sourcewise.training.setup import TrainingSetup
from sourcewise.training.sharding import load_shards
from sourcewise.training.state import Progress, is_saved, load_progress, load_state, shards_of

ELSEWHERE = ("name", "output")  # options that name the run
SAME = ("device", "native code", "torch")  # properties of a machine that change the last digits of a step
OF_MACHINES = (
    "train.shard",
    "train.timeout",
    "train.checkpointing",
    "train.compile",
)  # options that may be others on other machines
LONGER = ("train.steps", "train.epochs", "train.patience")  # options that may be increased; 0: no end


def resumed(asked: Recipe, kept: Recipe, overrides: dict[str, Any]) -> Recipe:
    """The recipe of a resumed run: its own, possibly with more steps or epochs.

    Raises RequestError for other differing options, which a resumed run would ignore.
    """
    longer: dict[str, float] = {}
    for key in overrides:
        name = key.replace("-", "_")
        if name in ELSEWHERE:
            continue
        wanted, has = (attrgetter(name)(recipe) for recipe in (asked, kept))
        if wanted == has:
            continue
        if name in OF_MACHINES:
            longer[name.partition(".")[2]] = wanted
            continue
        if name not in LONGER or has is None or wanted is None or 0 < wanted < has:
            more = "; it can only be more" if name in LONGER and has is not None else ""
            raise RequestError(
                f"--{key}: the run has {has}{more}; a resumed run keeps its recipe, so leave --{key} out"
            )
        longer[name.partition(".")[2]] = wanted
        if kept.train.schedule == "cosine" and name != "train.patience":
            told = "the learning rate goes on as if it had been so from the beginning"
            warnings.warn(f"{key}: {wanted} instead of {has}; {told}", DataWarning, stacklevel=2)
    return kept.model_copy(update={"train": kept.train.model_copy(update=longer)}) if longer else kept


def resume(
    run: Run,
    setup: TrainingSetup,
    optimizer: MasterAdamW,
    first_saved: int,
    machine: Mapping[str, str],
    ranks: Ranks,
    base: str = "",
) -> Progress | None:
    """Load a run's state exactly; None if it has none yet and starts anew.

    `first_saved` is the step of the first saved state, `base` the digest of the network's borrowed weights. Raises
    RequestError, or NotFinite, if the run cannot continue.
    """

    def check() -> None:
        check_state(run, first_saved)
        check_origin(run, setup)

    ranks.first(check)
    shards = shards_of(run.state)
    with ranks.agreed():
        state = load_state(run.state) if shards is None else load_progress(shards)
    ranks.first(lambda: run.rewind(state["step"] if state else 0))
    if state is None:
        return None
    tell_of_machine(run, machine)
    with ranks.agreed():
        check_base(run, setup, str(state.get("base") or ""), base)
        if shards is None:
            check_weights(run, state["optimizer"], optimizer)
            optimizer.load_state_dict(state["optimizer"])
        else:
            load_shards(shards, state["steps"], optimizer)
        if found := damage(optimizer.exact()):
            raise NotFinite(f"{shards or run.state}: {found}; nothing can go on from it: train again with --overwrite")
    return Progress.of(state)


def check_state(run: Run, first_saved: int) -> None:
    """Raises RequestError if a run has no state although it was trained beyond the step of the first saved one.

    Likewise if it has a state but no log to continue. If nothing was ever saved it starts again, with a warning.
    """
    if is_saved(run.state):
        if not run.metrics():
            problem = "no such file, or empty, so the course of the run before its last state is lost"
            raise RequestError(f"{run.log}: {problem}; put it back, or {_anew(run)}")
        return
    reached = max((int(line.get("step") or 0) for line in run.metrics()), default=0)
    if reached > first_saved or (run.folder / METRICS_FILE).is_file():
        raise RequestError(
            f"{run.state}: no such file, so the run, which was at step {reached:,}, cannot go on exactly; {_anew(run)}"
        )
    if reached:
        told = f"nothing was saved before it ended at step {reached:,}, so it begins again"
        warnings.warn(f"{run.folder}: {told}", DataWarning, stacklevel=2)


def check_origin(run: Run, setup: TrainingSetup) -> None:
    """Compare a resumed run with its origin in state/origin.json, which a new run writes.

    Raises RequestError for another tokenizer, whose ids do not fit the weights; warns of other data, and of options
    that were changed in recipe.yaml.
    """
    path, options = run.state.with_name("origin.json"), flat(setup.recipe.model_dump(mode="json"))
    now: dict[str, Any] = {
        "tokenizer": setup.tokenizer.digest(),
        "train": _origin(setup.train),
        "valid": setup.valid and _origin(setup.valid),
        "options": {name: value for name, value in options.items() if name not in (*ELSEWHERE, *LONGER, *OF_MACHINES)},
    }
    if not path.is_file() or not run.metrics():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(now, indent=2) + "\n")
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise RequestError(f"{path}: damaged; delete it, and what the run began with is not checked") from None
    if before.get("tokenizer") != now["tokenizer"]:
        raise RequestError(
            f"{run.tokenizer}: not the tokenizer that the run began with, whose ids its weights know; put that back"
        )
    for use, what in (("train", "training"), ("valid", "validation")):
        had, has = before.get(use), now[use]
        if had != has:
            before_now = ("none" if each is None else f"{each['examples']:,} examples" for each in (had, has))
            told = f"the {what} data is not what the run began with ({', now '.join(before_now)})"
            warnings.warn(f"{run.folder}: {told}; it goes on with the new data", DataWarning, stacklevel=2)
    _tell_of_options(run, before.get("options"), now["options"])


def check_base(run: Run, setup: TrainingSetup, had: str, has: str) -> None:
    """Raises RequestError if the frozen weights that another folder keeps are not those that the run began with."""
    if not had or had == has:
        return
    model = setup.recipe.model
    names = [(model.weights, "model.weights"), (model.source_encoder.name, "model.source_encoder")]
    said = [f"{name} ({key})" for name, key in names if name]
    where = " or ".join(said) or f"{model.feature_encoder.weights} (model.feature_encoder.weights)"
    problem = f"the frozen weights that it was trained beside are others now: {where} has changed"
    raise RequestError(f"{run.state}: {problem}; put it back, or {_anew(run)}")


def check_weights(run: Run, saved: dict[str, Any], optimizer: MasterAdamW) -> None:
    """Raises RequestError if the saved state of the optimizer does not fit the recipe's network.

    Raises NotFinite if it has NaN or infinity.
    """
    had = {(part, name): tuple(each.shape) for part in ("masters", "frozen") for name, each in saved[part].items()}
    named = zip(optimizer.names, optimizer.parameters, strict=True)
    has = {("masters", name): tuple(parameter.shape) for name, parameter in named}
    has |= {("frozen", name): tuple(parameter.shape) for name, (parameter, _) in optimizer.frozen.items()}
    lent = optimizer.borrowed.items()  # a state of an older version has these, too
    has |= {("frozen", name): tuple(each.shape) for name, each in lent if ("frozen", name) in had}
    differ = [key for key in dict.fromkeys((*has, *had)) if had.get(key) != has.get(key)]
    if differ:
        part, name = differ[0]
        sizes = (" × ".join(map(str, of[differ[0]])) if differ[0] in of else "not there" for of in (had, has))
        told = f"{name} ({part}) is {next(sizes)} in it, and {next(sizes)} in the network"
        more = f"; {len(differ):,} parts differ" if len(differ) > 1 else ""
        raise RequestError(
            f"{run.state}: not the state of the network that {run.folder / 'recipe.yaml'} describes: {told}{more}; "
            "was one of the two changed? Put it back"
        )
    moments = [
        (f"{what} of {name}", value)
        for name, each in moments_of(saved).items()
        for what, value in each.items()
        if isinstance(value, Tensor)
    ]
    if found := damage([*saved["masters"].items(), *saved["frozen"].items(), *moments]):
        raise NotFinite(f"{run.state}: {found}; nothing can go on from it: train again with --overwrite")


def tell_of_machine(run: Run, now: Mapping[str, str]) -> None:
    """Warn if a run continues with another device, threads, processes, native code or torch than at its start.

    Its steps then differ in their last digits, since sums are in another order.
    """
    began = started(run.metrics())
    pairs = {key: (now[key], began[key]) for key in SAME if key in began}
    pairs["processes"] = now.get("processes", "1"), began.get("processes", "1")
    other = [f"{key} {has} instead of {had}" for key, (has, had) in pairs.items() if has != had]
    if other:
        tell(f"{run.folder}: resumed elsewhere than it began: {'; '.join(other)}; its steps differ a little from there")


def _tell_of_options(run: Run, had: dict[str, Any] | None, has: dict[str, Any]) -> None:
    """Warn of options that differ from the start of the run; without a record of them (`had` is None) never."""
    changed = [name for name in has if had is not None and name in had and had[name] != has[name]]
    if changed:
        told = ", ".join(f"{name} {has[name]} instead of {had[name]}" for name in changed[:3] if had)
        more = f", and {len(changed) - 3} others" if len(changed) > 3 else ""
        told = f"not as the run began: {told}{more}; it goes on with the new"
        warnings.warn(f"{run.folder / 'recipe.yaml'}: {told}", DataWarning, stacklevel=3)


def flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A recipe as {"section.key": value}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def _anew(run: Run) -> str:
    """Advice on training further without an exact resume."""
    return f"begin a new one from its weights with --name NEW --model {run.last}, or begin again with --overwrite"


def _origin(encoded: ExampleSet) -> dict[str, Any]:
    return {"examples": len(encoded), "digest": encoded.digest()}
