"""The training loop: batches in, a run folder out; what happens at each step reads from top to bottom."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from sourcewise.config import Recipe
from sourcewise.data.batches import Batch, Budget, shares, training_batches
from sourcewise.data.encoding import Encoded
from sourcewise.data.mixtures import spread
from sourcewise.data.noise.features import Augmenter
from sourcewise.data.noise.text import TextNoise
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import NotFinite
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.results import without_nan
from sourcewise.evaluation.shown import write_shown
from sourcewise.figures import figures
from sourcewise.generation.model import Model
from sourcewise.model.finite import damage
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.runtime.info import machine
from sourcewise.runtime.signals import interrupts
from sourcewise.runtime.threads import WorkerThreads
from sourcewise.training.contrastive import Partners
from sourcewise.training.decoder_inputs import reference_share
from sourcewise.training.events import Evaluated, Listener, Started, Step, Stopped
from sourcewise.training.gradients import gradients
from sourcewise.training.not_finite import why_not_finite
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW, freeze
from sourcewise.training.resampling import resample
from sourcewise.training.resuming import check_origin, check_state, check_weights, tell_of_machine
from sourcewise.training.run import Run
from sourcewise.training.schedule import learning_rate
from sourcewise.training.state import load_state, random_states, restore_random_states, save_state
from sourcewise.training.statistics import gradient_norms, target_entropy, update_ratios
from sourcewise.training.token_weights import token_weights
from sourcewise.training.unfreezing import Unfreezing

COUNTERS = (
    *("step", "epoch", "position", "epoch_batches", "best", "snapshots"),
    *("seconds", "nats", "targets", "tokens", "logged_at", "step_logged", "clipped", "largest_norm"),
)
LEAST_FLOPS = 5e10  # a batch; below, workers wait for the interpreter more than they gain
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C: the run was saved and can be resumed."""


class Trainer:
    """One training of one network on one machine."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        network: Seq2Seq,
        tokenizer: Tokenizer,
        train: Encoded,
        valid: Encoded | None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self.recipe, self.run, self.network, self.tokenizer = recipe, run, network, tokenizer
        self.train, self.listeners = train, listeners
        self.valid = None if valid is None else spread(valid, recipe.train.evaluate_examples)
        self.options = recipe.generation.model_copy(update={"beams": 1, "sample": False})
        freeze(network, recipe.train.freeze)
        resample(train, recipe.train.resample_below)
        rarity = token_weights(train, network.vocabulary, recipe.train)
        self.objective = Objective(network, recipe.train, tokenizer.unk_id, rarity).to(network.device)
        self.optimizer = MasterAdamW(self.objective, recipe.train, PRECISIONS[recipe.train.precision], network.parts())
        self.unfreezing = Unfreezing(self.optimizer.parts, recipe.train.unfreeze)
        self.workers = WorkerThreads(network.device if _step_flops(self.objective, recipe) > LEAST_FLOPS else None)
        self.target_cost = _target_cost(network) if self.workers.count > 1 else 1.0
        self.augment, self.noise = _augmenter(recipe, network), _text_noise(recipe, network, tokenizer)
        counts = self._steps_of_epochs()
        self.total = recipe.train.steps or sum(counts)
        self.evaluate_every = recipe.train.evaluate_every or counts[0]
        self.step = self.epoch = self.position = 0  # position: batches of this epoch already learnt from
        self.epoch_batches = 1  # of the epoch under way
        if recipe.train.contrastive:
            partners = Partners(train, recipe.seed)
            self.objective.others = lambda indices: self._batch(partners(indices, self.epoch)).source
        self.best: tuple[float, float] | None = None  # of the best checkpoint, as `_standing` has it
        self.snapshots: list[str] = []
        self.seconds, self.nats, self.targets, self.tokens = 0.0, 0.0, 0, 0  # the last three since the last log line
        self.logged_at = 0.0  # `seconds` then
        self.step_logged = self.clipped = 0  # `step` then; steps whose gradient was clipped since
        self.largest_norm = 0.0  # of the gradients since
        self.vitals: dict[str, Any] = {}  # of the step that is to be logged

    def fit(self) -> None:
        """Train to the end, resuming where the run's state left off. Raises Interrupted after a saved Ctrl-C."""
        self._resume()
        for listener in self.listeners:
            listener.started(self.run, self.step, self.total)
        if self.step and not self.run.last.is_dir():
            self._checkpoint(self.run.last)  # somebody deleted it; the state holds its weights
        with interrupts() as interrupted:
            while self.step < self.total and not interrupted:
                self._epoch(interrupted)
        if interrupted:
            self._save()
        for listener in self.listeners:
            listener.stopped(self.run, finished=not interrupted)
        if interrupted:
            raise Interrupted(f"saved at step {self.step}; go on with: sourcewise train {self.run.folder} --resume")
        self._average()

    def _epoch(self, interrupted: list[bool]) -> None:
        """The batches of one epoch from `position` on, as far as the steps go."""
        self.train = self.train.at(self.epoch)
        batches = self.batches(self.epoch)
        self.epoch_batches = len(batches)
        stride = self.recipe.train.accumulate
        while self.position < len(batches) and self.step < self.total and not interrupted:
            started = time.perf_counter()
            norm, rate = self.learn(batches[self.position : self.position + stride])
            self.position += stride
            self.step += 1
            self.seconds += time.perf_counter() - started
            self._after_step(norm, rate)
        if self.position >= len(batches):
            self.epoch, self.position = self.epoch + 1, 0

    def learn(self, batches: list[np.ndarray]) -> tuple[float, float]:
        """One optimizer step from these batches, each weighing as many target tokens as it has.

        Gives the norm of the gradient and the learning rate. Steps are counted, logged and saved by `fit`.
        Raises NotFinite where the loss or its gradient is not.
        """
        self.objective.train()
        targets = int(sum(self.train.target_lengths[rows].sum() for rows in batches))
        sizes = self.train.source_lengths + self.target_cost * self.train.target_lengths
        objective = partial(self.objective, reference=reference_share(self.step, self.total, self.recipe.train))
        for i, rows in enumerate(batches):
            parts = [partial(self._batch, part) for part in shares(rows, sizes, self.workers.count)]
            room = None if i else self.optimizer.room
            found = gradients(objective, self.optimizer.parameters, parts, targets, self.workers, room)
            self.optimizer.add(found.of)
            self.nats += found.nats
            self.tokens += found.source_tokens
        self.targets += targets
        self.tokens += targets
        rate = learning_rate(self.step, self.total, self.recipe.train)
        logged = self._is_logged(self.step + 1)
        norms = gradient_norms(self.optimizer) if logged else {}
        factors = self.unfreezing.factors(self._epochs_done()) if self.unfreezing.active else None
        norm = self.optimizer.step(rate, factors)
        if not (math.isfinite(self.nats) and math.isfinite(norm)):
            why = why_not_finite(self.objective, self.optimizer, self.train, batches)
            loss = self.nats / self.targets
            said = f"the loss is {loss:.4g}, the norm of its gradient {norm:.4g}"
            self._stop(self.step + 1, said, why, loss=loss, gradient_norm=norm)
        self.clipped += bool(self.recipe.train.clip) and norm > self.recipe.train.clip
        self.largest_norm = max(self.largest_norm, norm)
        self.vitals = {"gradient_norms": norms, "update_ratios": update_ratios(self.optimizer)} if logged else {}
        self.optimizer.zero_grad()
        return norm, rate

    def _stop(self, step: int, said: str, why: str, **figures: float) -> NoReturn:
        """What is not finite ends a training before it reaches a checkpoint; what was saved last stays."""
        self.run.append(Stopped(step=step, why=f"{said}: {why}", **figures))
        for listener in self.listeners:
            listener.stopped(self.run, finished=False)
        kept = "the last state is kept" if self.run.state.is_file() else "nothing was saved before it"
        raise NotFinite(f"step {step}: {said}; {kept}: {why} (sourcewise explain TRN001)")

    def _check_weights(self) -> None:
        """Nothing is saved that has a NaN or an infinity in it."""
        if (found := damage(self.optimizer.exact())) is not None:
            self._stop(self.step, "its update left weights that are not finite", found)

    def _is_logged(self, step: int) -> bool:
        return step % self.recipe.train.log_every == 0 or step == self.total

    def _after_step(self, norm: float, rate: float) -> None:
        """Log, evaluate and save when it is time."""
        config = self.recipe.train
        line = None
        if self._is_logged(self.step):
            line = self.run.append(self._log_line(norm, rate))
        for listener in self.listeners:
            listener.stepped(self.step, line)
        if self.step % self.evaluate_every == 0 or self.step == self.total:
            self._evaluate()
        elif config.save_every and self.step % config.save_every == 0:
            self._save()

    def _log_line(self, norm: float, rate: float) -> Step:
        """The steps since the line before; what counts them begins anew."""
        sampled = self.recipe.train.scheduled_sampling != "none"
        event = Step(
            step=self.step,
            epoch=round(self._epochs_done(), 3),
            loss=self.nats / self.targets,
            learning_rate=rate,
            gradient_norm=norm,
            largest_norm=self.largest_norm,
            clipped=self.clipped / (self.step - self.step_logged),
            **self.vitals,
            tokens_per_s=self.tokens / max(self.seconds - self.logged_at, 1e-9),
            seconds=self.seconds,
            reference_share=reference_share(self.step - 1, self.total, self.recipe.train) if sampled else None,
        )
        self.nats, self.targets, self.tokens, self.logged_at = 0.0, 0, 0, self.seconds
        self.step_logged, self.clipped, self.largest_norm = self.step, 0, 0.0
        return event

    def _evaluate(self) -> None:
        """Generate on the validation examples; keep the last and the best checkpoint; save the state."""
        self._checkpoint(self.run.last)
        metrics = self._measure()
        best = self._keep_if_best(metrics)
        self._snapshot()
        line = self.run.append(self._evaluated(metrics, best))
        self._save()
        for listener in self.listeners:
            listener.evaluated(line)

    def _evaluated(self, metrics: dict[str, Any], best: bool | None, averaged: int | None = None) -> Evaluated:
        epoch = round(self._epochs_done(), 3)
        return Evaluated(step=self.step, epoch=epoch, averaged=averaged, metrics=metrics, best=best)

    def _checkpoint(self, folder: Path) -> None:
        """Write the fp32 masters as a checkpoint folder."""
        self._check_weights()
        with self.optimizer.in_full():
            save_network(self.network, folder, self.tokenizer, self.recipe.generation)

    def _measure(self) -> dict[str, Any]:
        """The figures of the validation examples by greedy search, without text; none where there are no examples."""
        if self.valid is None:
            return {}
        self.network.eval()
        evaluation = evaluate_encoded(self.network, self.tokenizer, self.valid, self.options)
        evaluation.write_translations(self.run.folder)
        model = Model(self.network, self.tokenizer, self.recipe.name, self.recipe.data, self.options)
        write_shown(model, self.valid, self.run.folder)
        return dict(without_nan(evaluation.metrics))

    def _keep_if_best(self, metrics: dict[str, Any]) -> bool | None:
        """Make these weights the best checkpoint if no evaluation did better; without a validation set the last is."""
        standing = self._standing(metrics) if metrics else None
        if standing is None or self.best is None or standing < self.best:
            self.best = standing
            self._checkpoint(self.run.best)
            return True
        return None

    def _standing(self, metrics: dict[str, Any]) -> tuple[float, float]:
        """Lower is better; the loss decides between equals: BLEU is 0 as long as no four words are right."""
        value, loss = metrics[self.recipe.train.best], metrics["loss"]
        signed = None if value is None else -figures()[self.recipe.train.best].sign * value
        return math.inf if signed is None else signed, math.inf if loss is None else loss

    def _snapshot(self) -> None:
        """Keep the weights of the last K evaluations for the average at the end."""
        if self.recipe.train.average < 2:
            return
        path = self.run.state.with_name(f"weights-{self.step}.pt")
        save_state(self.optimizer.weights(), path)
        self.snapshots = [*self.snapshots, path.name][-self.recipe.train.average :]
        for old in path.parent.glob("weights-*.pt"):
            if old.name not in self.snapshots:
                old.unlink()

    def _average(self) -> None:
        """Average the last snapshots; they become the best checkpoint if they do better (Vaswani et al. 2017)."""
        loaded = [load_state(self.run.state.with_name(name)) for name in self.snapshots]
        weights = [w for w in loaded if w is not None]
        if len(weights) < 2 or self.run.metrics()[-1].get("averaged"):
            return
        mean = {name: sum(w[name] for w in weights) / len(weights) for name in weights[0]}
        kept = {name: w.clone() for name, w in self.optimizer.weights().items()}
        self.optimizer.set_weights(mean)
        metrics = self._measure()
        best = self._keep_if_best(metrics)
        self.optimizer.set_weights(kept)
        self.run.append(self._evaluated(metrics, best, averaged=len(weights)))

    def batches(self, epoch: int) -> list[np.ndarray]:
        """The batches of an epoch, in the order in which they are learnt from: the places of their examples."""
        config = self.recipe.train
        examples = self.train.at(epoch)
        return training_batches(
            examples.source_lengths,
            examples.target_lengths,
            Budget(config.batch_tokens, config.batch_size),
            seed=self.recipe.seed,
            epoch=epoch,
            weights=examples.weights,
        )

    def _batch(self, rows: np.ndarray) -> Batch:
        if self.augment is None:
            batch = self.train.batch(rows, coarse=True)
            return batch if self.noise is None else self.noise(batch, self.epoch)
        draws = iter([np.random.default_rng([self.recipe.seed, self.epoch, int(i)]) for i in rows])
        augment = self.augment
        return self.train.batch(rows, lambda matrix: augment(matrix, next(draws)), coarse=True)

    def _steps_of_epochs(self) -> list[int]:
        epochs = 1 if self.recipe.train.steps else self.recipe.train.epochs
        return [math.ceil(len(self.batches(e)) / self.recipe.train.accumulate) for e in range(epochs)]

    def _epochs_done(self) -> float:
        return self.epoch + min(1.0, self.position / self.epoch_batches)

    def _save(self) -> None:
        self._check_weights()
        state = {name: getattr(self, name) for name in COUNTERS}
        save_state({**state, "optimizer": self.optimizer.state_dict(), "random": random_states()}, self.run.state)

    def _machine(self) -> dict[str, str]:
        dtype = next(self.network.parameters()).dtype
        precision = "bf16" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.").replace("float32", "fp32")
        return machine(self.network.device, precision, torch.get_num_threads() // self.workers.count)

    def _resume(self) -> None:
        saving = self.recipe.train.save_every or self.total
        check_state(self.run, min(self.evaluate_every, saving, self.total))
        check_origin(self.run, self.recipe, self.tokenizer, self.train, self.valid)
        state = load_state(self.run.state)
        self.run.rewind(state["step"] if state else 0)
        if state is None:
            if not self.run.metrics():
                parameters = sum(p.numel() for p in self.network.parameters())
                entropy = target_entropy(self.train)
                started = Started(
                    steps=self.total, parameters=parameters, target_entropy=entropy, machine=self._machine()
                )
                self.run.append(started)
            return
        tell_of_machine(self.run, self._machine())
        check_weights(self.run, state["optimizer"], self.optimizer.state_dict())
        self.optimizer.load_state_dict(state.pop("optimizer"))
        restore_random_states(state.pop("random"))
        for name, value in state.items():
            setattr(self, name, value)


def _step_flops(objective: Objective, recipe: Recipe) -> float:
    """About what a full batch costs: 6 FLOPs a parameter and token (Kaplan et al. 2020)."""
    return 6.0 * sum(p.numel() for p in objective.parameters()) * recipe.train.batch_tokens


def _target_cost(network: Seq2Seq) -> float:
    """About what a target token costs where a source's costs 1: by the parameters that each meets."""
    sizes = Counter[str]()
    for info in network.parts():
        sizes[info.part] += info.parameter.numel()
    encoder, decoder = sizes["encoder"], sizes["decoder"]
    if network.bridge is not None or not encoder:
        return 1.0
    return (decoder + network.body.output_matrix.numel()) / encoder


def _augmenter(recipe: Recipe, network: Seq2Seq) -> Augmenter | None:
    if network.bridge is None:
        return None
    bridge = network.bridge
    augmenter = Augmenter(recipe.train.augment, bridge.mean.cpu().numpy(), bridge.deviation.cpu().numpy())
    return augmenter if augmenter.active else None


def _text_noise(recipe: Recipe, network: Seq2Seq, tokenizer: Tokenizer) -> TextNoise | None:
    unknown = network.pad_id if tokenizer.unk_id is None else tokenizer.unk_id
    noise = TextNoise(recipe.train.text_noise, unknown, network.pad_id, recipe.seed)
    return noise if noise.active else None
