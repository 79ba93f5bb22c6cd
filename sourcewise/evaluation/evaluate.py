"""Evaluates a model on a set: outputs, figures, source bits and verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sourcewise.baselines.measure import Baselines
from sourcewise.config import DatasetConfig, EvaluationConfig, GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.mixtures import EncodedMixture
from sourcewise.data.open import open_dataset
from sourcewise.data.request import SourceRequest
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.evaluation.beside import baselines_for, run_folder
from sourcewise.evaluation.by_group import add_parts
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.evaluation.shared import Found, Progress, found_by_all
from sourcewise.evaluation.source_bits import SourceBits, source_bits
from sourcewise.evaluation.tasks import set_figures, task_figures
from sourcewise.evaluation.verdict import verdict_of
from sourcewise.generation.generate import generate
from sourcewise.generation.in_memory import Pair, opened, pairs
from sourcewise.generation.model import Model
from sourcewise.generation.sampling import Hypothesis
from sourcewise.metrics.counting import check_installed
from sourcewise.model.protocol import Network
from sourcewise.runtime.random import host_kept
from sourcewise.runtime.ranks import Ranks

FoundBy = Callable[[Model, ExampleSet, GenerationConfig], Found]  # who finds outputs and source bits of a set
TIMEOUT = 600.0  # seconds after which a process that does not answer is given up


@host_kept
def evaluate(
    model: Model | str | Path | Any,
    data: str | Path | Dataset | DatasetConfig | Sequence[DatasetConfig] | Sequence[Pair],
    *,
    task: str | None = None,
    features: str | None = None,
    source: str | None = None,
    target: str | None = None,
    prefix: str | None = None,
    join_sources: bool | None = None,
    generation: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    progress: Progress | None = None,
    tokenizer: Any = None,
    ranks: Ranks | None = None,
    found_by: FoundBy | None = None,
    **limits: int,
) -> Evaluation:
    """Generate an output for every source of a set (free-running), and measure the outputs.

    `data` is a file of pairs or conversations, a manifest (with its `features` folder), `hub:NAME`, an embedded
    set, an open Dataset, a list of pairs (source, target), or the config of one or several sets as in a recipe. A
    model of Hugging Face's in memory is given with its `tokenizer`. `source` and `target` name columns,
    `task` the task of a mixture; `prefix` is put before every source. `generation` and `evaluation` are options of
    these sections of a recipe, such as beams and bleu_tokenize, beside those of the model's own. `limits` are those of
    `load`: max_source, max_target, max_frames. Raises RequestError for data that cannot be read.

    With `ranks` of several processes all call it together: each does a share of the work, and the first has the rows.
    `found_by` finds the outputs elsewhere.
    """
    ranks = ranks or Ranks()
    with ranks.agreed():
        model = opened(model, tokenizer)
        model = model.limited(**limits) if limits else model
        reading: dict[str, Any] = {"task": task, "features": features, "source": source, "target": target}
        encoded = lay_out(model, data, **reading, prefix=prefix, join_sources=join_sources)
        changes = generation or {}
        options, measuring = model.options(**changes), model.measuring(**(evaluation or {}))
        check_installed([*measuring.metrics, *(part.dataset.task.metric for part in encoded.parts)])
    ranks.connect(model.network.device, TIMEOUT)
    found = evaluate_model(model, encoded, options, progress, measuring, ranks=ranks, found_by=found_by)
    if followed := model.followed(**changes):
        found.metrics["folder_settings"] = followed
        found.settings = model.held(**changes)
    return found


def lay_out(
    model: Model,
    data: str | Path | Dataset | DatasetConfig | Sequence[DatasetConfig] | Sequence[Pair],
    *,
    task: str | None = None,
    features: str | None = None,
    source: str | None = None,
    target: str | None = None,
    prefix: str | None = None,
    join_sources: bool | None = None,
) -> ExampleSet:
    """The set that `evaluate` is asked for, or several as one, as this model's ids.

    Raises RequestError, and NotFinite if a weight of the model is NaN or infinite.
    """
    model.check_weights()
    data = pairs(data)
    if isinstance(data, Dataset):
        sets = [data]
    elif isinstance(data, (str, Path)):
        request = SourceRequest(model.data, task, features, prefix, source, target, join_sources)
        sets = [request.examples(str(data))]
    else:
        configs: Any = [data] if isinstance(data, DatasetConfig) else data
        sets = [open_dataset(config, model.data, "test") for config in configs]
    encoded = [model.lay_out(each) for each in sets]
    for each in encoded:
        each.tell()
    return encoded[0] if len(encoded) == 1 else EncodedMixture(encoded)


def evaluate_model(
    model: Model,
    encoded: ExampleSet,
    options: GenerationConfig,
    progress: Progress | None = None,
    measuring: EvaluationConfig | None = None,
    run: Path | None = None,
    training: Sequence[Dataset] | None = None,
    ranks: Ranks | None = None,
    found_by: FoundBy | None = None,
) -> Evaluation:
    """`evaluate` for a tokenised set: beside the baselines of the model's training data, with the figures of parts.

    `run` is the folder that keeps the baselines, by default that of the model; `training` are its training sets, where
    they are open. The other processes of `ranks` have the metrics alone.
    """
    measuring, ranks = measuring or model.evaluation, ranks or Ranks()
    known = None if found_by is None else found_by(model, encoded, options)
    if ranks.world > 1:
        known = found_by_all(model.network, encoded, options, ranks, progress)
    measured: list[Evaluation] = []

    def measure() -> dict[str, Any]:
        beside = baselines_for(encoded, model.data, run or run_folder(model.name), training, measuring)
        found = evaluate_encoded(model.network, model.tokenizer, encoded, options, progress, measuring, beside, known)
        add_parts(found, model.data, measuring)
        measured.append(found)
        return found.metrics

    metrics = ranks.first(measure)
    return measured[0] if measured else Evaluation(metrics)


def evaluate_encoded(
    network: Network,
    tokenizer: Tokenizer,
    encoded: ExampleSet,
    options: GenerationConfig,
    progress: Progress | None = None,
    measuring: EvaluationConfig | None = None,
    baselines: Sequence[Baselines | None] | None = None,
    known: Found | None = None,
) -> Evaluation:
    """`evaluate` for a network and a tokenised set; a mixture has figures per task in addition.

    `known` are its outputs and source bits, where several processes have found them.
    `measuring` says how outputs are measured, by default as a recipe that says nothing of it. `baselines` are those of
    the set's parts; by default they are taken from the other examples of the set.
    """
    measuring = measuring or EvaluationConfig()
    started = time.perf_counter()

    def report(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, of: progress(what, done, of)

    hypotheses = known.hypotheses if known else generate(network, encoded, options, report("generating"))
    outputs = tokenizer.decode_batch([h.said for h in hypotheses])
    bits = known.bits if known else source_bits(network, encoded, progress=report("source bits"))
    rows = _rows(encoded, outputs, hypotheses, bits)
    beside = baselines_for(encoded, measuring=measuring) if baselines is None else baselines
    metrics = set_figures(encoded, rows, bits, measuring, beside) | task_figures(encoded, rows, bits, measuring, beside)
    metrics["seconds"] = time.perf_counter() - started
    evaluation = Evaluation(metrics, rows, list(encoded.notes))
    metrics["verdict"] = said.text if (said := verdict_of(evaluation)) else ""
    return evaluation


def _rows(encoded: ExampleSet, outputs: list[str], hypotheses: list[Hypothesis], bits: SourceBits) -> list[Row]:
    return [
        Row(
            id=example.id,
            source=example.source,
            reference=example.target,
            output=outputs[i],
            finished=hypotheses[i].finished,
            nats=float(bits.nats[i]),
            nats_shuffled=float(bits.shuffled[i]),
            tokens=int(bits.tokens[i]),
            others=example.others,
            group=example.group,
        )
        for i, example in enumerate(encoded.dataset)
    ]
