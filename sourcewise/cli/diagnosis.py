"""Commands that measure a model, find its faults and show where its outputs come from."""

from __future__ import annotations

import json
import math
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sourcewise
from sourcewise.cli.options import (
    COLUMN,
    COUNTED,
    COUNTING,
    CUTS,
    ENSEMBLE,
    FEATURES,
    GENERATION,
    JSON,
    LIMITS,
    MODEL,
    RAY_UNSEEN,
    READ,
    READING,
    SAMPLING,
    SAMPLING_UNSEEN,
    SEARCH,
    SET,
    TASK,
    UNREAD,
    asked_generation,
    given,
    measured,
    models,
)
from sourcewise.cli.parser import argument, command, filled, path
from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.diagnosis.answer import Diagnosis
    from sourcewise.evaluation.evaluate import FoundBy
    from sourcewise.evaluation.results import Evaluation
    from sourcewise.runtime.ranks import Ranks


@command(
    "measure a model: BLEU, WER, unique outputs, source bits, verdict",
    "MODEL DATA [-o DIR] [options]",
    [
        "sourcewise evaluate runs/mine test.tsv --require 'bleu>=20' -o results",
        "sourcewise evaluate runs/mine manifest.tsv --features features/test",
        "sourcewise evaluate t5-small qa.tsv --source question --target answer",
    ],
    MODEL,
    argument("data", type=path, metavar="DATA", help="a table (.tsv, .jsonl, …), hub:NAME, or a manifest"),
    argument("-o", "--output", type=path, metavar="DIR", help="write metrics.json and translations.tsv there"),
    *SET,
    *SEARCH,
    *SAMPLING_UNSEEN,
    *GENERATION,
    ENSEMBLE,
    argument("--metrics", type=filled, metavar="NAMES", help="measured, too: chrf_pp, ter, rouge_l; or all"),
    argument("--join-sources", action="store_true", default=None, help=SUPPRESS),  # docs/score.md
    *COUNTING,
    argument("--require", action="append", default=[], metavar="'KEY>=N'", help="exit 1 unless met; may be repeated"),
    JSON,
    RAY_UNSEEN,
)
def evaluate(arguments: Namespace) -> int:
    """Generate outputs for a set and measure them: quality, diversity, and how much they
    depend on their sources. More: docs/score.md, docs/generation.md, docs/scale.md.
    """
    from sourcewise.evaluation.requirement import parse_requirement
    from sourcewise.runtime.files import check_writable
    from sourcewise.runtime.ranks import Ranks, joined, several

    requirements = [parse_requirement(text) for text in arguments.require]
    if arguments.output:
        check_writable(Path(arguments.output) / "metrics.json")
    with joined() if several() else nullcontext(Ranks()) as ranks:
        with _on_cluster(arguments) if arguments.ray else nullcontext() as found_by:
            evaluation = _evaluated(arguments, ranks, found_by)
        if ranks.leads:
            _tell_evaluation(arguments, evaluation)
    unmet = [r for r in requirements if not r.met_by(evaluation.metrics)]
    for requirement in unmet if ranks.leads else ():
        found = f"{evaluation.metrics.get(requirement.key, math.nan):.4g}"
        print(f"sourcewise: required {requirement}, but {requirement.key} is {found}", file=sys.stderr)
    return 1 if unmet else 0


@contextmanager
def _on_cluster(arguments: Namespace) -> Iterator[FoundBy]:
    """Within: what finds outputs on a Ray cluster. Raises RequestError."""
    from sourcewise.evaluation.elsewhere import Elsewhere
    from sourcewise.runtime.cluster import connected

    reading = {name: getattr(arguments, name) for name in (*READING, "join_sources")}
    asked = Elsewhere(models(arguments), arguments.data, reading, asked_generation(arguments), given(arguments, *CUTS))
    with connected(arguments.ray) as machines:
        yield partial(asked.found_by, machines)


def _evaluated(arguments: Namespace, ranks: Ranks, found_by: FoundBy | None) -> Evaluation:
    """The evaluation that is asked for, by this process, all of torchrun's, or a cluster. Raises RequestError."""
    from sourcewise.reporting.progress import TrainingProgress
    from sourcewise.runtime.device import device_beside

    model: Any = models(arguments)
    options: dict[str, Any] = {}
    if ranks.world > 1:
        with ranks.agreed():
            model = sourcewise.load(model, device=str(device_beside("auto", ranks.local_world)))
        options = {"ranks": ranks}
    if found_by is not None:
        options = {"found_by": found_by}
    return sourcewise.evaluate(
        model,
        arguments.data,
        **{name: getattr(arguments, name) for name in READING},
        generation=asked_generation(arguments),
        join_sources=arguments.join_sources,
        evaluation=given(arguments, *COUNTED) | measured(arguments),
        progress=TrainingProgress().evaluating if ranks.leads else None,
        **given(arguments, *CUTS),
        **options,
    )


def _tell_evaluation(arguments: Namespace, evaluation: Evaluation) -> None:
    """Write the files of an evaluation, and print it."""
    from sourcewise.reporting.terminal import print_evaluation, print_notes

    print_notes([note for note in evaluation.notes if note.where])  # the others were printed when the set was tokenised
    if evaluation.settings:
        print(f"sourcewise: {evaluation.settings}", file=sys.stderr)
    if arguments.output:
        evaluation.write(arguments.output)
    if arguments.json:
        figures = json.loads(json.dumps(evaluation.metrics), parse_constant=lambda _: None)  # JSON has no NaN
        print(json.dumps(figures, indent=2, ensure_ascii=False))
    else:
        print_evaluation(evaluation)


@command(
    "say why a model does not work, with evidence and cure",
    "MODEL [DATA] | DATA [DATA] | --script FILE [-- ARGS]",
    [
        "sourcewise diagnose train.tsv test.tsv",
        "sourcewise diagnose runs/mine manifest.tsv --features features/test",
        "sourcewise diagnose --script train.py --steps 100 -- --lr 1e-3",
    ],
    argument(
        "model", nargs="?", type=path, metavar="MODEL", help="a recipe, run, Hugging Face folder or name, or data"
    ),
    argument("data", nargs="?", type=path, metavar="DATA", help="pairs to look at it with (default: the run's own)"),
    *SET,
    *SEARCH,
    argument("--script", type=path, metavar="FILE", help="run this training script, and watch its steps"),
    argument("--steps", type=int, metavar="N", help="end it after so many (default: 60); 0: let it run"),
    argument("--junit", type=path, metavar="FILE", help="write JUnit XML there, for continuous integration"),
    JSON,
    overrides=True,
    passes_on=("--script",),
)
def diagnose(arguments: Namespace) -> int:
    """Report what is wrong, the cause first; exit status 1 for an error. A recipe
    (.yaml, or a shipped one's name) is checked before training, by `train`'s options.
    """
    from sourcewise.reporting.junit import as_junit
    from sourcewise.reporting.terminal import print_diagnosis
    from sourcewise.runtime.files import check_writable, write_atomically

    if arguments.junit:
        check_writable(Path(arguments.junit))
    status = 0
    if arguments.script:
        diagnosis, status = _of_script(arguments)
    else:
        diagnosis = _of_model(arguments)
    if arguments.junit:
        write_atomically(Path(arguments.junit), as_junit(diagnosis, str(arguments.script or arguments.model)))
    if arguments.json:
        print(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis)
    return status or (1 if diagnosis.verdict == "ill" else 0)


def _of_script(arguments: Namespace) -> tuple[Diagnosis, int]:
    """The diagnosis of a script, and the exit status that it ended with. Raises RequestError."""
    from sourcewise.integrations.script import STEPS, watch_script

    others = given(arguments, "model", "data", *READING, *CUTS, "beams", "max_new_tokens")
    first = next(iter(others), None)
    if arguments.overrides or first is not None:
        said = f"--{next(iter(arguments.overrides))}" if arguments.overrides else f"{others[first or '']}"
        way = f"sourcewise diagnose --script {arguments.script} -- {said}"
        raise RequestError(f"{said}: what the script is given stands behind --: {way}")
    steps = STEPS if arguments.steps is None else arguments.steps
    watched = watch_script(arguments.script, arguments.passed_on, steps=steps, quiet=arguments.json)
    print(f"sourcewise: {watched.words}", file=sys.stderr)
    status = watched.status
    return watched.diagnosis, 128 - status if status < 0 else status


def _of_model(arguments: Namespace) -> Diagnosis:
    """The diagnosis of a recipe, a model or data. Raises RequestError."""
    from sourcewise.config.files import is_recipe
    from sourcewise.diagnosis.data_alone import is_data

    if arguments.model is None:
        raise RequestError("MODEL is missing: a recipe, a run, a folder, data, or --script FILE.py")
    if str(arguments.model).endswith(".py"):
        way = f"sourcewise diagnose --script {arguments.model}"
        raise RequestError(f"{arguments.model}: is a script, and no model; to run and watch it: {way}")
    if arguments.steps is not None:
        raise RequestError("--steps: goes with --script; of a recipe: --train.steps")
    reading, search = given(arguments, *READING, *CUTS), given(arguments, "beams", "max_new_tokens")
    asked = reading | search
    if is_recipe(arguments.model):
        if arguments.data or asked:
            said = arguments.data or f"--{next(iter(asked)).replace('_', '-')}"
            raise RequestError(f"{said}: a recipe names its data; set --data.valid.pairs FILE")
        return sourcewise.preflight(arguments.model, arguments.overrides)
    if arguments.overrides:
        raise RequestError(f"--{next(iter(arguments.overrides))}: goes with a recipe; {arguments.model} is none")
    if asked and not arguments.data and not is_data(arguments.model):
        said = f"--{next(iter(asked)).replace('_', '-')}"
        raise RequestError(f"{said}: goes with DATA: sourcewise diagnose {arguments.model} DATA {said} …")
    words = {"task": None, **reading} | ({"generation": search} if search else {})
    return sourcewise.diagnose(arguments.model, arguments.data, **words)


@command(
    "versions, hardware, extras, native code in use",
    "[--json]",
    ["sourcewise info", "sourcewise info --json"],
    JSON,
)
def info(arguments: Namespace) -> int:
    """Print versions, hardware, extras and native code: what a bug report needs."""
    from sourcewise.runtime.info import info as found

    sections = found()
    if arguments.json:
        print(json.dumps(sections, indent=2))
        return 0
    for section, values in sections.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:18}{value}")
    return 0


@command(
    "explain a rule of diagnose, or find rules by a symptom",
    "[CODE or SYMPTOM]",
    ["sourcewise explain SRC001", 'sourcewise explain "same output"'],
    argument("words", nargs="*", type=filled, metavar="CODE or SYMPTOM", help="without it, all of both are listed"),
)
def explain(arguments: Namespace) -> int:
    """Print what a rule measures, why that is bad, its threshold and its cure; of a
    symptom, in your own words, what to ask first, and the rules that find its causes.
    """
    from sourcewise.diagnosis import diagnose, rules, symptoms

    if arguments.words:
        print(diagnose.explain(" ".join(arguments.words)))
    else:
        print("Symptoms: " + symptoms.listed(symptoms.SYMPTOMS) + "\n")
        for code, rule in sorted(rules.RULES.items()):
            print(f"{code}  {rule.level:8} {rule.name}")
    return 0


@command(
    "show an output token by token, and which source parts were read",
    "MODEL SOURCE [--id ID] [-o FILE.html] [options]",
    [
        "sourcewise trace runs/dates 'de_DE:3.3.1987' --what-if -o trace.html",
    ],
    MODEL,
    argument("source", type=filled, metavar="SOURCE", help="a text, a .npy of features, or a file of many"),
    argument("--what-if", action="store_true", help="and without each part of the source"),
    argument("--beside", type=path, metavar="MODEL", help="and the same of another model"),
    argument("--id", type=filled, metavar="ID", help="which of the sources of a file, by its id"),
    argument("-o", "--output", type=path, metavar="FILE", help="write a page to click through there"),
    FEATURES,
    TASK,
    COLUMN,
    UNREAD,
    argument("--prefix", metavar="TEXT", help="put before the source (default: as in training)"),
    *LIMITS,
    *SEARCH,
    *SAMPLING,
    *GENERATION,
    JSON,
)
def trace(arguments: Namespace) -> int:
    """Show for each token of an output its probability, source bits, and what it read."""
    from sourcewise.cli.sources import name_one, position
    from sourcewise.data.request import SourceRequest
    from sourcewise.reporting.terminal_trace import print_trace
    from sourcewise.reporting.trace import write_trace
    from sourcewise.runtime.files import check_writable

    if arguments.output:
        check_writable(Path(arguments.output))
    named = name_one(arguments.source, arguments.id)
    traces = []
    for name in filter(None, (arguments.model, arguments.beside)):
        model = sourcewise.load(name, **given(arguments, *READ))
        request = SourceRequest(model.data, arguments.task, arguments.features, arguments.prefix, arguments.column)
        sources = request.sources(named)
        place, settings = position(sources, arguments.id), asked_generation(arguments)
        traces.append(sourcewise.trace(model, sources, place, what_if=arguments.what_if, **settings))
    if arguments.output:
        written = write_trace(traces[0], arguments.output, *traces[1:])
    if arguments.json:
        print("\n".join(traced.to_json() for traced in traces))  # one line each
    else:
        for traced in traces:
            print_trace(traced, named=len(traces) > 1)
    if arguments.output:
        print(f"sourcewise: wrote {written}", file=sys.stderr)
    return 0


@command(
    "write the report of a run again",
    "RUN",
    ["sourcewise report runs/digits"],
    argument("run", type=path, metavar="RUN", help="a run folder"),
)
def report(arguments: Namespace) -> int:
    """Write RUN/report.html anew from the files of the run, and print its path."""
    from sourcewise.reporting.report import write_report

    print(write_report(Path(arguments.run)))
    return 0
