"""Faults of people who train by a recipe of ours."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from others.case import Cases
from others.faults_recipe import clips, recipe, right, scored
from others.hosts import Planned

CASES = Cases()
fault = partial(CASES.fault, host="recipe")


@fault(
    name="features of another extractor",
    origin="sign language code bases: features of validation come from the published extractor, own ones for training",
    what="dimensions of the validation set are in another order and three times as large",
    expected="features of the validation set are unlike those of the training set",
    accepts="new:set-unlike-training DAT013=valid|training",
)
def _(broken: bool, seed: int, folder: Path) -> Planned:
    rows = clips(1100, seed)
    if broken:
        for clip in rows[1000:]:
            clip.matrix = np.ascontiguousarray(3 * clip.matrix[:, ::-1])
    return Planned(recipe(folder, rows[:1000], rows[1000:], train__steps=400), scored(rows[1000:]))


@fault(
    name="one stream of zeros",
    origin="SpaMo #13, #17: of two feature streams laid side by side the motion stream was never filled",
    what="half of the dimensions are zero: what tells signs apart was in them",
    expected="dead features: dimensions that never change",
    accepts="DAT011",
)
def _(broken: bool, seed: int, folder: Path) -> Planned:
    rows = clips(1100, seed)
    draw = np.random.default_rng(seed)
    for clip in rows:
        still = 0.3 * draw.normal(size=clip.matrix.shape).astype(np.float32)  # a face that says little
        motion = np.zeros_like(clip.matrix) if broken else clip.matrix
        clip.matrix = np.concatenate((still, motion), axis=1)
    return Planned(recipe(folder, rows[:1000], rows[1000:], train__steps=400), scored(rows[1000:]))


@fault(
    name="test sentences in training",
    origin="PHOENIX14T: texts of dev and test stand verbatim in train; the score is higher on them",
    what="two thirds of the validation's texts are training texts, signed again with a phrase of their own",
    expected="target texts of the validation set are in the training set",
    accepts="DAT020",
    also="DAT008 DAT021",
    gap=0.15,
    figure="the score on texts nobody has seen, as a share of the score that validation tells",
)
def _(broken: bool, seed: int, folder: Path) -> Planned:
    rows = clips(300, seed, accent=0.0, low=6, high=8)
    train, new = rows[:200], rows[200:]
    again = clips(300, seed + 1, low=6, high=8)[:0]
    for i in range(100):  # said again, in other recordings
        clip = train[i % len(train)]
        noise = np.random.default_rng([5, seed, i]).normal(size=clip.matrix.shape).astype(np.float32)
        again.append(type(clip)(f"again{i}", clip.matrix + 0.4 * noise, clip.text, clip.signer))
    valid = again if broken else new
    planned = recipe(folder, train, valid, train__steps=500)
    return Planned(planned, lambda run: min(1.0, (0.01 + right(run, new)) / max(0.01, right(run, valid))))
