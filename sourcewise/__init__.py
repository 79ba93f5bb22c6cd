"""sourcewise trains, runs, measures and debugs encoder-decoder models.

    import sourcewise

    model = sourcewise.load("runs/digits")                  # a run, a Hugging Face folder or a hub name
    model.generate(["a source"], beams=4)
    sourcewise.train("digits", {"train.steps": 100})
    sourcewise.compare("compare_bridges_fsdd", jobs=2).winner   # variants × seeds, with intervals
    sourcewise.evaluate(model, "test.tsv").metrics["source_bits"]
    sourcewise.score("test.de", ["a.de", "b.de"], paired="bootstrap").systems   # of outputs that exist
    sourcewise.diagnose(model, "valid.tsv").findings
    doctor = sourcewise.doctor(module, optimizer)           # in any training loop: doctor.step(loss, batch)
    sourcewise.export("runs/digits", "digits-onnx", to="onnx").check
    sourcewise.trace(model, "a source").steps               # each token's probability, source bits and attention
    sourcewise.source_bits(any_model, batch).bits           # of any torch module, one batch

The import is instant: torch and other libraries are imported when a function is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.api import compare, preflight, train
    from sourcewise.diagnosis.diagnose import diagnose
    from sourcewise.evaluation.evaluate import evaluate
    from sourcewise.evaluation.one_batch import source_bits
    from sourcewise.exporting.export import export
    from sourcewise.generation.model import load
    from sourcewise.generation.tracing import trace
    from sourcewise.integrations.loop import doctor
    from sourcewise.scoring.score import score

__version__ = "0.1.0"
__all__ = [
    "RequestError",
    "__version__",
    "compare",
    "diagnose",
    "doctor",
    "evaluate",
    "export",
    "load",
    "preflight",
    "score",
    "source_bits",
    "trace",
    "train",
]

_HOMES = {
    "load": "sourcewise.generation.model",
    "doctor": "sourcewise.integrations.loop",
    "train": "sourcewise.api",
    "preflight": "sourcewise.api",
    "compare": "sourcewise.api",
    "evaluate": "sourcewise.evaluation.evaluate",
    "diagnose": "sourcewise.diagnosis.diagnose",
    "source_bits": "sourcewise.evaluation.one_batch",
    "score": "sourcewise.scoring.score",
    "trace": "sourcewise.generation.tracing",
    "export": "sourcewise.exporting.export",
}


def __getattr__(name: str) -> Any:
    """Import a function of the library on first access."""
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    raise AttributeError(f"module 'sourcewise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
