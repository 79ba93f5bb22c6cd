"""How well a model does on a set: outputs, figures, source bits and the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sourcewise.config import DatasetConfig, GenerationConfig
from sourcewise.data.datasets import config_for, open_dataset
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset
from sourcewise.data.tokenizer import Tokenizer
from sourcewise.evaluation.metrics import output_metrics
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.evaluation.source_bits import SourceBits, source_bits
from sourcewise.evaluation.verdict import judge
from sourcewise.generation.generate import generate
from sourcewise.generation.model import Model, load
from sourcewise.generation.sampling import Hypothesis
from sourcewise.model.protocol import Network

Progress = Callable[[str, int, int], None]  # (what is being done, done, of)


def evaluate(
    model: Model | str | Path,
    data: str | Path | Dataset | DatasetConfig,
    *,
    features: str | None = None,
    source: str | None = None,
    target: str | None = None,
    generation: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Generate for every source of a set, free-running, and measure.

    `data` is a file of pairs, a manifest (with its `features` folder), `hub:NAME`, an embedded set, or an open
    Dataset; `source` and `target` name its columns. Raises RequestError for what cannot be read.
    """
    if not isinstance(model, Model):
        model = load(model)
    dataset = data if isinstance(data, Dataset) else _open(model, data, features, source, target)
    options = model.options(**(generation or {}))
    return evaluate_encoded(model.network, model.tokenizer, model.lay_out(dataset), options, progress)


def evaluate_encoded(
    network: Network,
    tokenizer: Tokenizer,
    encoded: Encoded,
    options: GenerationConfig,
    progress: Progress | None = None,
) -> Evaluation:
    """`evaluate` for a network and a set already laid out."""
    started = time.perf_counter()

    def report(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, of: progress(what, done, of)

    hypotheses = generate(network, encoded, options, report("generating"))
    outputs = tokenizer.decode_batch([h.ids for h in hypotheses])
    bits = source_bits(network, encoded, progress=report("source bits"))
    rows = _rows(encoded, outputs, hypotheses, bits)
    metrics = _metrics(rows, bits)
    metrics["seconds"] = time.perf_counter() - started
    evaluation = Evaluation(metrics, rows)
    metrics["verdict"] = judge(metrics, evaluation.references, evaluation.outputs).text
    return evaluation


def _open(
    model: Model, data: str | Path | DatasetConfig, features: str | None, source: str | None, target: str | None
) -> Dataset:
    if isinstance(data, DatasetConfig):
        return open_dataset(data, model.data, "test")
    like = model.data.usual or DatasetConfig(pairs="-")
    named = {k: v for k, v in {"source": source, "target": target}.items() if v}
    config = config_for(str(data), features, like.model_copy(update=named))
    if source and config.manifest and not features:  # a source column means pairs, whatever else is in the file
        config = DatasetConfig(pairs=config.manifest, prefix=config.prefix, lowercase=config.lowercase)
    config = config.model_copy(update=named)  # the recipe's columns are looked for, those asked for must be there
    return open_dataset(config, model.data.model_copy(update={"root": ""}), "test")


def _rows(encoded: Encoded, outputs: list[str], hypotheses: list[Hypothesis], bits: SourceBits) -> list[Row]:
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
        )
        for i, example in enumerate(encoded.dataset)
    ]


def _metrics(rows: list[Row], bits: SourceBits) -> dict[str, Any]:
    low, high = bits.ci95()
    return {
        "loss": bits.loss,
        "loss_shuffled": bits.loss_shuffled,
        "source_bits": bits.bits,
        "source_bits_ci95": [low, high],
        **output_metrics([r.reference for r in rows], [r.output for r in rows], [r.finished for r in rows]),
        "target_tokens": int(bits.tokens.sum()),
    }
