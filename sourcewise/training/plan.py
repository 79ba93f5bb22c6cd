"""The plan of a training: batches and learning rate of each step, and the steps of logging, evaluation and saving."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from sourcewise.config import TrainConfig
from sourcewise.data.batches import WIDE, Batch, Budget, Source, shares, training_batches
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.noise.features import Augmenter
from sourcewise.data.noise.segmentation import resegmented
from sourcewise.data.noise.text import TextNoise
from sourcewise.errors import RequestError
from sourcewise.model.builder import feature_statistics
from sourcewise.runtime.device import is_host
from sourcewise.training.contrastive import Partners
from sourcewise.training.parts import Part, part_seed
from sourcewise.training.setup import TrainingSetup
from sourcewise.training.state import Progress


class Plan:
    """The steps of a training; all draws are functions of (seed, epoch, example)."""

    def __init__(self, setup: TrainingSetup) -> None:
        self.config, self.seed = setup.recipe.train, setup.recipe.seed
        data, sampling = setup.recipe.data, self.config.subword_sampling
        self.examples: ExampleSet = resegmented(setup.train, data, sampling, self.seed)
        self.epoch = 0  # as this epoch draws them
        self.coarse = 1 if is_host(setup.network.device) else WIDE
        self._laid_out: tuple[int, list[np.ndarray]] = (-1, [])  # (epoch, its batches)
        if any(part.dataset.windows for part in self.examples.parts):
            self._check_stream()
        self._augment, self._noise = _augmenter(setup), _text_noise(setup)
        self._partners = Partners(setup.train, self.seed) if self.config.contrastive else None
        first = self._count(0)
        self.total = self.config.steps or self._total(first)
        self.evaluate_every = self.config.evaluate_every or first

    def _check_stream(self) -> None:
        """Raises RequestError for options that need all examples at once."""
        if not self.config.steps and self.examples.per_pass > 1:
            raise RequestError("train.steps: missing; a stream is not read to its end before, so say how many steps")
        for name in ("contrastive", "resample_below"):
            if getattr(self.config, name):
                raise RequestError(f"train.{name}: chooses among all examples, of which a stream knows some; set 0")

    def _count(self, epoch: int) -> int:
        """Number of steps of an epoch."""
        return math.ceil(len(self.batches(epoch)) / self.config.accumulate)

    def _total(self, first: int) -> int:
        """Number of steps of all epochs.

        Where the set is on disk, or segmented anew in each epoch, each is taken to have as many as the first: they
        differ in a few of thousands of batches, and laying out millions of examples takes long.
        """
        if self.config.subword_sampling.active or any(part.dataset.kept for part in self.examples.parts):
            return first * self.config.epochs
        return first + sum(self._count(epoch) for epoch in range(1, self.config.epochs))

    def steps(self, at: Progress) -> Iterator[list[np.ndarray]]:
        """Yields the batches of each remaining step from `at` on, which the caller advances."""
        while at.step < self.total:
            batches = self.batches(at.epoch)
            self.examples, self.epoch = self.examples.at(at.epoch), at.epoch
            at.epoch_batches, at.per_pass = len(batches), self.examples.per_pass
            while at.position < len(batches) and at.step < self.total:
                yield batches[at.position : at.position + self.config.accumulate]
            if at.position >= len(batches):
                at.epoch, at.position = at.epoch + 1, 0

    def upcoming(self, at: Progress) -> list[np.ndarray]:
        """The batches of the step after the next one in `at`; none if that is of another epoch."""
        start = at.position + self.config.accumulate
        return self.batches(at.epoch)[start : start + self.config.accumulate] if at.step + 1 < self.total else []

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch in order, each as indices of examples."""
        if self._laid_out[0] != epoch:  # laying out millions of examples takes seconds
            examples = self.examples.at(epoch)
            batches = training_batches(
                examples.source_lengths,
                examples.target_lengths,
                Budget(self.config.batch_tokens, self.config.batch_size),
                seed=self.seed,
                epoch=epoch,
                weights=examples.weights,
            )
            self._laid_out = (epoch, batches)
        return self._laid_out[1]

    def targets(self, batches: Sequence[np.ndarray]) -> int:
        """Number of target tokens in these batches."""
        return int(sum(self.examples.target_lengths[rows].sum() for rows in batches))

    def parts(self, batches: Sequence[np.ndarray], step: int, count: int, target_cost: float = 1.0) -> list[list[Part]]:
        """The batches of a step (from 0), each in at most `count` parts of similar cost, dealt to threads or processes.

        A target token costs `target_cost` source tokens: a matter of the network alone, so that whoever computes the
        parts cuts alike. A batch in one part is in the order of its lengths.
        """
        found, target_cost = [], target_cost if count > 1 else 1.0
        for number, rows in enumerate(batches):
            sizes = self.examples.source_lengths[rows] + target_cost * self.examples.target_lengths[rows]
            cut = shares(np.arange(len(rows)), sizes, count)
            seeds = [part_seed(self.seed, step, number * count + place) for place in range(len(cut))]
            parts = zip(cut, seeds, strict=True)
            found.append([Part(partial(self.batch, rows[part]), seed, sizes[part].sum()) for part, seed in parts])
        return found

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these examples, with this epoch's augmentation and noise."""
        if self._augment is None:
            batch = self.examples.batch(rows, coarse=self.coarse)
            return batch if self._noise is None else self._noise(batch, self.epoch)
        draws = iter([np.random.default_rng([self.seed, self.epoch, int(i)]) for i in rows])
        augment = self._augment
        return self.examples.batch(rows, lambda matrix: augment(matrix, next(draws)), coarse=self.coarse)

    @property
    def others(self) -> Callable[[list[int]], Source] | None:
        """A function from a batch's examples to sources of others, for the contrastive loss; None without it."""
        partners = self._partners
        return None if partners is None else lambda indices: self.batch(partners(indices, self.epoch)).source

    def logs(self, step: int) -> bool:
        """Whether a step is logged."""
        return step % self.config.log_every == 0 or step == self.total

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation follows a step."""
        return step % self.evaluate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Whether the state is saved after a step without an evaluation."""
        return bool(self.config.save_every) and step % (self.config.save_every or 1) == 0

    @property
    def first_saved(self) -> int:
        """The first step after which the state is saved."""
        return min(self.evaluate_every, self.config.save_every or self.total, self.total)


def learning_rate(step: int, total: int, train: TrainConfig) -> float:
    """Learning rate of step `step` (from 0) of `total`: linear warm-up, then cosine, inverse root, or constant."""
    warmup = min(train.warmup_steps, total)
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    if train.schedule == "constant":
        return train.learning_rate
    if train.schedule == "inverse_sqrt":
        return train.learning_rate * math.sqrt(max(warmup, 1) / (step + 1))
    done = (step - warmup) / max(1, total - warmup)
    floor = train.final_rate
    return train.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def _augmenter(setup: TrainingSetup) -> Augmenter | None:
    bridge, config = setup.network.bridge, setup.recipe.train.augment
    if not setup.network.dims or not Augmenter(config, np.zeros(0), np.zeros(0)).active:
        return None
    if bridge is not None:
        return Augmenter(config, bridge.mean.cpu().numpy(), bridge.deviation.cpu().numpy())
    return Augmenter(config, *feature_statistics(setup.train.dataset))


def _text_noise(setup: TrainingSetup) -> TextNoise | None:
    pad, unknown = setup.network.pad_id, setup.tokenizer.unk_id
    noise = TextNoise(setup.recipe.train.text_noise, pad if unknown is None else unknown, pad, setup.recipe.seed)
    return noise if noise.active else None
