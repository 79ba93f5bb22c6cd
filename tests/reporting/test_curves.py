"""Training curves: which figures are taken from the lines, and that a picture comes of any of them."""

import math

import pytest

from sourcewise.errors import RequestError
from sourcewise.reporting.curves import series, smoothed, training_curves
from sourcewise.training.events import Evaluated, Step

LINES = [
    {"kind": "train", "step": 20, "loss": 3.0, "learning_rate": 1e-4, "gradient_norm": 2.0},
    {"kind": "train", "step": 40, "loss": 2.0, "learning_rate": 2e-4, "gradient_norm": 0.5},
    {"kind": "evaluation", "step": 40, "loss": 2.5, "loss_shuffled": 2.6, "source_bits": 0.1, "bleu": 1.0},
    {"kind": "train", "step": 60, "loss": math.nan, "learning_rate": 3e-4, "gradient_norm": math.inf},
    {"kind": "evaluation", "step": 80, "loss": None, "source_bits": "?", "bleu": 4.0},
]


def test_series_takes_finite_figures_of_one_kind():
    assert series(LINES, Step, "loss") == [(20, 3.0), (40, 2.0)]
    assert series(LINES, Evaluated, "loss") == [(40, 2.5)]
    assert series(LINES, Evaluated, "source_bits") == [(40, 0.1)]
    assert series(LINES, Step, "bleu") == []


def test_a_resumed_run_overwrites_the_steps_it_repeats():
    lines = [
        {"kind": "train", "step": s, "loss": loss}
        for s, loss in ((10, 5.0), (20, 4.0), (30, 3.0), (20, 4.5), (25, 4.2))
    ]
    assert series(lines, Step, "loss") == [(10, 5.0), (20, 4.5), (25, 4.2), (30, 3.0)]


def test_smoothing_does_not_lag():
    line = [(float(s), 10.0 - s / 100) for s in range(500)]
    assert smoothed(line) == [(s, pytest.approx(v)) for s, v in line]
    noisy = [(float(s), 1.0 + (-1) ** s) for s in range(500)]
    assert all(abs(v - 1) < 0.06 for _, v in smoothed(noisy)[20:-20])
    assert smoothed([]) == []


@pytest.mark.parametrize("lines", [LINES, LINES[:1], LINES[2:3], []])
def test_a_picture_comes_of_whatever_was_measured(tmp_path, lines):
    training_curves(lines, tmp_path / "training_curves.png")
    drawn = (tmp_path / "training_curves.png").read_bytes()
    assert drawn.startswith(b"\x89PNG") and len(drawn) > 10_000
    assert [p.name for p in tmp_path.iterdir()] == ["training_curves.png"]


def test_the_curves_are_in_the_picture(tmp_path):
    training_curves([], tmp_path / "empty.png")
    training_curves(LINES, tmp_path / "full.png")
    assert (tmp_path / "empty.png").read_bytes() != (tmp_path / "full.png").read_bytes()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RequestError, match="cannot be written"):
        training_curves(LINES, tmp_path / "taken" / "x.png")
