"""A small task that every type learns in 150 steps, and what its folder then says of itself."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.generation.model import load
from sourcewise.generation.trace import Trace
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import set_up
from tests.model.families.zoo import KINDS, task, tokenizer

FIGURES = Path(__file__).with_name("learned.json")  # what the table of docs/models.md says
STEPS = 150


@dataclass(frozen=True)
class Figures:
    """What a type has learned, as docs/models.md tells it."""

    exact: int  # of the outputs of the opened folder, per cent
    source_bits: float


@dataclass(frozen=True)
class Learned:
    """A folder after the training, and what was measured of it."""

    figures: Figures
    diagnosis: Diagnosis
    trace: Trace
    target: str  # of the traced source


def learned(name: str, folder: Path) -> Learned:
    """Train a tiny model of a type on the small task, save it, and measure, trace and diagnose what was saved."""
    torch.manual_seed(0)
    KINDS[name].make().save_pretrained(folder / "model")
    tokenizer(folder / "model")
    data = task(folder, KINDS[name].reads, load_network(folder / "model").dims)
    train = {"steps": STEPS, "learning_rate": 1e-2, "warmup_steps": 20, "precision": "fp32", "batch_tokens": 100_000}
    generation = {"beams": 1, "max_new_tokens": 8}
    recipe = {"model": {"weights": str(folder / "model")}, "train": train, "generation": generation}
    sets = {"train": data, "max_source": 60, "max_target": 60}
    setup = set_up(Recipe.model_validate({**recipe, "data": sets}))
    learner = Learner(setup)
    for _ in range(STEPS):
        learner.learn([np.arange(len(setup.train))])
    save_network(setup.network, folder / "out", setup.tokenizer, setup.recipe.generation)
    model, dataset = load(folder / "out"), setup.train.dataset
    metrics = sourcewise.evaluate(model, dataset).metrics
    figures = Figures(round(metrics["exact_match_pct"]), round(metrics["source_bits"], 1))
    trace = sourcewise.trace(model, dataset, 3)
    return Learned(figures, sourcewise.diagnose(model, dataset), trace, dataset[3].target)


def recorded() -> dict[str, Figures]:
    """Type → figures, of all types, as they were written last."""
    read = json.loads(FIGURES.read_text(encoding="utf-8"))
    return {name: Figures(**figures) for name, figures in read.items()}


def record(figures: dict[str, Figures]) -> None:
    """Write the figures of all types."""
    tree = {name: asdict(each) for name, each in sorted(figures.items())}
    FIGURES.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
