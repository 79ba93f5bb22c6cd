"""Optimizer steps: gradients, update, and the counts for the next log line."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.errors import RequestError
from sourcewise.model import attention
from sourcewise.model.borrowed import borrowed, digest
from sourcewise.model.finite import damage
from sourcewise.model.network import Seq2Seq
from sourcewise.runtime.device import is_host
from sourcewise.runtime.info import machine, peak_memory
from sourcewise.runtime.ranks import Ranks
from sourcewise.training.ahead import Ahead
from sourcewise.training.checkpointing import checkpoint_blocks
from sourcewise.training.compiled import compile_blocks
from sourcewise.training.decoder_inputs import reference_share
from sourcewise.training.events import Step
from sourcewise.training.freezing import Unfreezing, freeze
from sourcewise.training.not_finite import StepNotFinite, why_not_finite
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.plan import Plan, learning_rate
from sourcewise.training.rarity import resample, token_weights
from sourcewise.training.setup import TrainingSetup
from sourcewise.training.sharding import set_up_ranks
from sourcewise.training.state import Progress
from sourcewise.training.statistics import gradient_norms, update_ratios
from sourcewise.training.step import StepEngine, engine_for, target_cost

READERS = 4  # threads that read features ahead of a step: they wait for files, not for cores
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(slots=True)
class Taken:
    """A finished step; its nats and gradient norm stay on the device until they are read."""

    step: int
    batches: Sequence[np.ndarray]
    nats: list[list[Tensor]]  # per batch and part
    norm: Tensor
    rate: float
    statistics: dict[str, dict[str, float]] = field(default_factory=dict)  # statistics per part, only of a logged step


def suit(network: Seq2Seq, config: TrainConfig) -> None:
    """Let a network compute as a training asks for it. Raises RequestError for what it or its device cannot do."""
    host = is_host(network.device)
    if config.deterministic and not host:
        if config.ctc_weight:
            raise RequestError("train.deterministic: the gradient of CTC is not deterministic on a GPU; leave out one")
        attention.choose(network, "eager")  # the gradients of fused kernels are sums in any order
    if config.checkpointing != "none":
        checkpoint_blocks(network, config.checkpointing)
    if config.compile:
        if config.checkpointing != "none":
            raise RequestError("train.compile: compiled blocks choose themselves what to compute again; leave out one")
        if host:
            raise RequestError("train.compile: on a CPU blocks are native code already; it is for accelerators")
        compile_blocks(network)


class Learner:
    """The network with its objective, step engine and optimizer."""

    def __init__(self, setup: TrainingSetup, ranks: Ranks | None = None) -> None:
        """`ranks` are the processes of the training; all have to make a learner together."""
        config, network = setup.recipe.train, setup.network
        freeze(network, config.freeze)
        resample(setup.train, config.resample_below)
        suit(network, config)
        self.config, self.plan, self.at, self.ranks = config, Plan(setup), Progress(), ranks or Ranks()
        rarity = token_weights(setup.train, network.vocabulary, config)
        self.objective = Objective(network, config, setup.tokenizer.unk_id, rarity).to(network.device)
        self.objective.others = self.plan.others
        precision = PRECISIONS[config.precision]
        if network.body.mixed:
            network.body.products, precision = precision, torch.float32
        self.at.base = digest(borrowed(network))
        self._spread(precision)
        self.unfreezing = Unfreezing(self.optimizer.parts, config.unfreeze)
        self.at.parts = config.parts or self.engine.parts
        self.unread: list[Taken] = []
        device = network.device
        read = any(part.dataset.from_files for part in setup.train.parts)
        apart = self.ranks.world == 1 and (read or not is_host(device))
        ahead = partial(Ahead, self.plan, self.engine.target_cost, pin=device.type == "cuda")
        self.ahead = ahead(threads=READERS if read else 1) if apart else None

    def _spread(self, precision: torch.dtype) -> None:
        """Make optimizer and engine: of this process, or of its share of the work of several."""
        self.module, ranks = self.objective, self.ranks  # what the engine calls
        self.optimizer: MasterAdamW
        self.engine: StepEngine
        if ranks.world > 1:
            cost = target_cost(self.objective.network)
            made = set_up_ranks(self.objective, ranks, self.config, precision, cost)
            self.module, self.optimizer, self.engine = made
            return
        network = self.objective.network
        lent = borrowed(network).values()
        self.optimizer = MasterAdamW(self.objective, self.config, precision, network.parts(), lent)
        self.engine = engine_for(self.objective, self.optimizer, self.config.batch_tokens)

    def go_on(self, kept: Progress) -> None:
        """Go on from a saved progress, with the parts of batches that its random draws belong to."""
        kept.parts = self.config.parts or kept.parts or self.at.parts
        kept.base = self.at.base
        self.at = kept

    def learn(self, batches: Sequence[np.ndarray]) -> Taken:
        """Take one optimizer step from these batches, weighted by their target tokens.

        Raises NotFinite if the loss or its gradient is not finite: at once if reading them costs nothing, else at the
        next log line; until then no step changes a weight.
        """
        started = time.perf_counter()
        at, plan, engine, optimizer = self.at, self.plan, self.engine, self.optimizer
        self.module.train()
        targets, reference = plan.targets(batches), reference_share(at.step, plan.total, self.config)
        if self.ahead is None:
            parts = plan.parts(batches, at.step, at.parts, engine.target_cost)
        else:
            parts = self.ahead.parts(batches, at)
        nats, source_tokens = engine.gradients(parts, targets, reference)
        logged = plan.logs(at.step + 1)
        gradients = [master.grad for master in optimizer.masters]
        norms = gradient_norms(optimizer.parts, gradients, optimizer.norm) if logged else {}
        rate = learning_rate(at.step, plan.total, self.config)
        norm = optimizer.step(rate, self.unfreezing.factors(at.epochs))
        at.step, at.position = at.step + 1, at.position + len(batches)
        at.targets, at.tokens = at.targets + targets, at.tokens + targets + source_tokens
        taken = Taken(at.step, batches, nats, norm, rate)
        self.unread.append(taken)
        if logged or not optimizer.lazy:
            self.read()
        if logged:
            ratios = update_ratios(optimizer.parts, optimizer.masters, optimizer.adamw)
            taken.statistics = {"gradient_norms": norms, "update_ratios": ratios}
        optimizer.zero_grad()
        at.seconds += time.perf_counter() - started
        return taken

    def read(self) -> None:
        """Read losses and norms of the unread steps from the device. Raises NotFinite."""
        while self.unread:
            taken, at = self.unread.pop(0), self.at
            norm = float(taken.norm)
            for nats in taken.nats:
                at.nats += sum(float(each) for each in nats)
            if not (math.isfinite(at.nats) and math.isfinite(norm)):
                self._refuse(taken, norm)
            at.clipped += bool(self.config.clip) and norm > self.config.clip
            at.largest_norm = max(at.largest_norm, norm)

    def _refuse(self, taken: Taken, norm: float) -> NoReturn:
        """Raises NotFinite on one process, and ends the others."""
        with self.ranks.agreed(), self.optimizer.rounded():
            why = why_not_finite(self.objective, self.optimizer, self.plan.examples, taken.batches)
            loss = self.at.nats / self.at.targets
            said = f"the loss is {loss:.4g}, the norm of its gradient {norm:.4g}"
            raise StepNotFinite(taken.step, said, why, loss=loss, gradient_norm=norm)

    def check(self) -> None:
        """Raises NotFinite if a weight is NaN or infinite; called before anything is saved."""
        self.read()
        with self.ranks.agreed():
            if (found := damage(self.optimizer.exact())) is not None:
                raise StepNotFinite(self.at.step, "its update left weights that are not finite", found)

    def line(self, taken: Taken) -> Step:
        """The log line of the steps since the previous one; resets the counts."""
        at, sampled = self.at, self.config.scheduled_sampling != "none"
        event = Step(
            step=at.step,
            epoch=round(at.epochs, 3),
            loss=at.nats / at.targets,
            learning_rate=taken.rate,
            gradient_norm=float(taken.norm),
            largest_norm=at.largest_norm,
            clipped=at.clipped / (at.step - at.step_logged),
            **taken.statistics,
            tokens_per_s=at.tokens / max(at.seconds - at.logged_at, 1e-9),
            seconds=at.seconds,
            peak_mb=peak_memory(self.objective.network.device),
            reference_share=reference_share(at.step - 1, self.plan.total, self.config) if sampled else None,
        )
        at.logged()
        return event

    def machine(self) -> dict[str, str]:
        """The machine and engine of the steps, for the first line of the log."""
        threads = torch.get_num_threads() // self.engine.workers
        network = self.objective.network
        known = machine(network.device, self.config.precision, threads)
        if self.ranks.world > 1:
            shards = f", {self.config.shard} shards of the weights" if self.config.shard > 1 else ""
            known |= {"processes": f"{self.ranks.world}{shards}"}
        return known | {"native code": "none (transformers' own classes compute)"} if network.body.mixed else known
