"""What a training learns from, and when: the batches of each step, and the steps at which something is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from sourcewise.data.batches import Batch, Budget, Source, shares, training_batches
from sourcewise.data.noise.features import Augmenter
from sourcewise.data.noise.text import TextNoise
from sourcewise.training.contrastive import Partners
from sourcewise.training.setup import TrainingSetup
from sourcewise.training.state import Progress
from sourcewise.training.step import Part


class Plan:
    """The steps of a training; what is drawn is a function of (seed, epoch, example)."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.config, self.seed = setup.recipe.train, setup.recipe.seed
        self.examples, self.epoch = setup.train, 0  # as this epoch draws them
        self._augment, self._noise = _augmenter(setup), _text_noise(setup)
        self._partners = Partners(setup.train, self.seed) if self.config.contrastive else None
        epochs = 1 if self.config.steps else self.config.epochs
        counts = [math.ceil(len(self.batches(epoch)) / self.config.accumulate) for epoch in range(epochs)]
        self.total = self.config.steps or sum(counts)
        self.evaluate_every = self.config.evaluate_every or counts[0]

    def steps(self, at: Progress) -> Iterator[list[np.ndarray]]:
        """The batches of each step that is left, from where `at` stands; whoever learns from them moves it on."""
        while at.step < self.total:
            batches = self.batches(at.epoch)
            self.examples, self.epoch = self.examples.at(at.epoch), at.epoch
            at.epoch_batches = len(batches)
            while at.position < len(batches) and at.step < self.total:
                yield batches[at.position : at.position + self.config.accumulate]
            if at.position >= len(batches):
                at.epoch, at.position = at.epoch + 1, 0

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, in the order in which they are learnt from: the places of their examples."""
        examples = self.examples.at(epoch)
        return training_batches(
            examples.source_lengths,
            examples.target_lengths,
            Budget(self.config.batch_tokens, self.config.batch_size),
            seed=self.seed,
            epoch=epoch,
            weights=examples.weights,
        )

    def targets(self, batches: Sequence[np.ndarray]) -> int:
        """How many target tokens these batches have."""
        return int(sum(self.examples.target_lengths[rows].sum() for rows in batches))

    def parts(self, rows: np.ndarray, count: int, target_cost: float = 1.0) -> list[Part]:
        """A batch in at most `count` parts of about the same cost; a target token costs `target_cost` source tokens."""
        sizes = self.examples.source_lengths + target_cost * self.examples.target_lengths
        return [partial(self.batch, part) for part in shares(rows, sizes, count)]

    def batch(self, rows: np.ndarray) -> Batch:
        """These examples laid out, changed as this epoch draws it."""
        if self._augment is None:
            batch = self.examples.batch(rows, coarse=True)
            return batch if self._noise is None else self._noise(batch, self.epoch)
        draws = iter([np.random.default_rng([self.seed, self.epoch, int(i)]) for i in rows])
        augment = self._augment
        return self.examples.batch(rows, lambda matrix: augment(matrix, next(draws)), coarse=True)

    @property
    def others(self) -> Callable[[list[int]], Source] | None:
        """Gives the sources of other examples for those of a batch; None where nothing is contrasted."""
        partners = self._partners
        return None if partners is None else lambda indices: self.batch(partners(indices, self.epoch)).source

    def logs(self, step: int) -> bool:
        """Whether a step has a line in the log."""
        return step % self.config.log_every == 0 or step == self.total

    def evaluates(self, step: int) -> bool:
        """Whether the validation examples are generated after a step."""
        return step % self.evaluate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Whether the state is saved after a step, beside evaluations."""
        return bool(self.config.save_every) and step % (self.config.save_every or 1) == 0

    @property
    def first_saved(self) -> int:
        """The first step after which a state is there."""
        return min(self.evaluate_every, self.config.save_every or self.total, self.total)


def _augmenter(setup: TrainingSetup) -> Augmenter | None:
    bridge = setup.network.bridge
    if bridge is None:
        return None
    augmenter = Augmenter(setup.recipe.train.augment, bridge.mean.cpu().numpy(), bridge.deviation.cpu().numpy())
    return augmenter if augmenter.active else None


def _text_noise(setup: TrainingSetup) -> TextNoise | None:
    pad, unknown = setup.network.pad_id, setup.tokenizer.unk_id
    noise = TextNoise(setup.recipe.train.text_noise, pad if unknown is None else unknown, pad, setup.recipe.seed)
    return noise if noise.active else None
