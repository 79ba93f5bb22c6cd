"""`sourcewise diagnose` and `sourcewise explain`, as functions."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.data_alone import check_words, is_data, of_data
from sourcewise.diagnosis.ranking import put_together
from sourcewise.diagnosis.rules import RULES
from sourcewise.diagnosis.symptoms import SYMPTOMS, listed, symptoms_of
from sourcewise.diagnosis.whole import Asked, whole
from sourcewise.errors import RequestError
from sourcewise.runtime.random import host_kept

if TYPE_CHECKING:
    from sourcewise.config import DatasetConfig
    from sourcewise.data.examples import Dataset
    from sourcewise.evaluation.evaluate import Progress
    from sourcewise.generation.in_memory import Pair
    from sourcewise.generation.model import Model


@host_kept
def diagnose(
    model: Model | str | Path | Any,
    data: str | Path | Dataset | DatasetConfig | Sequence[DatasetConfig] | Sequence[Pair] | None = None,
    *,
    task: str | None = None,
    features: str | None = None,
    source: str | None = None,
    target: str | None = None,
    prefix: str | None = None,
    generation: dict[str, Any] | None = None,
    progress: Progress | None = None,
    tokenizer: Any = None,
    **limits: int,
) -> Diagnosis:
    """Diagnose a model on a set: a loaded model, a run folder, a Hugging Face folder or a hub name; or one
    of Hugging Face's models in memory, with its `tokenizer`. `data` may be a list of pairs (source, target).

    Of a run all is looked at that is still there: its recipe's data and wiring, its course, its network, its outputs.
    Without `data` it is judged by the outputs it holds, and else on its own test or validation set. All else says what
    it says to `evaluate`, whose verdict on the same set is among the findings. A set in the place of a model is looked
    at by itself, with `data` as the set that is held out. Raises RequestError where there is nothing to judge by, and
    NotFinite where weights are NaN or infinite.
    """
    start = time.perf_counter()
    reading = {"task": task, "features": features, "source": source, "target": target, "prefix": prefix}
    if isinstance(model, (str, Path)) and is_data(model):
        check_words({"task": task, **(generation or {}), **limits})
        if data is not None and not isinstance(data, (str, Path)):
            raise RequestError(f"{model}: is a set of examples; the other one is to be a file, too")
        return put_together(of_data(model, data, reading), time.perf_counter() - start)
    pieces, own = whole(model, Asked(data, reading, generation or {}, limits, progress, tokenizer))
    return put_together(pieces, time.perf_counter() - start, own_set=own)


def explain(code: str) -> str:
    """A rule in full, or what a symptom may come from, for `sourcewise explain`.

    Raises RequestError with the nearest code for an unknown one, and with the known symptoms.
    """
    rule = RULES.get(code.strip().upper())
    if rule is not None:
        return rule.page()
    if found := symptoms_of(code):
        return "\n\n".join(each.text() for each in found)
    near = difflib.get_close_matches(code.strip().upper(), list(RULES), n=1, cutoff=0.5)
    end = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(RULES))}"
    raise RequestError(f"{code}: no such rule; {end}; or a symptom: {listed(SYMPTOMS)}")
