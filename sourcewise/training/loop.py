"""The training loop: batches in, a run folder out; each step reads from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from sourcewise.baselines.measure import Baselines
from sourcewise.data.mixtures import spread
from sourcewise.errors import NotFinite, RequestError, tell
from sourcewise.evaluation.beside import baselines_for
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.results import without_nan
from sourcewise.evaluation.shared import Found, found_by_all
from sourcewise.evaluation.shown import write_shown
from sourcewise.generation.model import Model
from sourcewise.model.parts import size
from sourcewise.runtime.device import deterministic
from sourcewise.runtime.ranks import Ranks
from sourcewise.runtime.signals import interrupts
from sourcewise.training.checkpoints import Checkpoints
from sourcewise.training.events import Ended, Evaluated, Event, Line, Listener, Started, Stopped, of
from sourcewise.training.learner import Learner
from sourcewise.training.not_finite import StepNotFinite
from sourcewise.training.resuming import resume
from sourcewise.training.run import Run
from sourcewise.training.setup import TrainingSetup
from sourcewise.training.sharding import is_sharded, save_shards
from sourcewise.training.state import is_saved, save_progress
from sourcewise.training.statistics import target_entropy


class Interrupted(KeyboardInterrupt):
    """The training was saved after a Ctrl-C and can be resumed."""


class Training:
    """The training of one network, by one process or by several, of which the first writes the files."""

    def __init__(
        self, setup: TrainingSetup, run: Run, listeners: Sequence[Listener] = (), ranks: Ranks | None = None
    ) -> None:
        """`listeners` are called in the first process. All processes have to make a training together."""
        self.setup, self.run, self.ranks = setup, run, ranks or Ranks()
        self.listeners = listeners if self.ranks.leads else ()
        if setup.recipe.train.patience and setup.valid is None:
            raise RequestError("train.patience: nothing is evaluated without a validation set; name it in data.valid")
        self.learner = Learner(setup, self.ranks)
        self.checkpoints = Checkpoints(setup, run, self.learner)
        self.valid = None if setup.valid is None else spread(setup.valid, setup.recipe.train.evaluate_examples)
        self._beside: list[Baselines | None] | None = None  # the baselines of `valid`, taken at the first evaluation
        self.stopped = False  # by a signal, at the same step in all processes
        self.options = setup.recipe.generation.model_copy(update={"beams": 1, "sample": False})

    def fit(self, opened: Callable[[], object] = lambda: None) -> None:
        """Train to the end, from the run's saved state if there is one; `opened` is called once that is read.

        Raises Interrupted after a Ctrl-C, when all writing is finished and the state is saved. A second Ctrl-C stops at
        once and keeps the previous state. Raises NotFinite if a loss, a gradient or a weight is not finite.
        """
        go_on = f"go on with: sourcewise train {self.run.folder} --resume"
        try:
            with interrupts() as interrupted, deterministic(self.setup.recipe.train.deterministic):
                self._begin()
                opened()
                self._steps(interrupted)
                if self.stopped:
                    raise Interrupted(f"saved at step {self.learner.at.step}; {go_on}")
            self._average()
        except StepNotFinite as broken:
            self._stop(broken)
        except KeyboardInterrupt as stop:
            if isinstance(stop, Interrupted):
                raise
            self._ended(finished=False)
            raise Interrupted(f"stopped at once, what was saved last is kept; {go_on}") from None

    def _steps(self, interrupted: list[bool]) -> None:
        learner, plan = self.learner, self.learner.plan
        for batches in plan.steps(learner.at):
            if self.checkpoints.patience_ended:
                self._end_early()
                break
            taken = learner.learn(batches)
            line = self._log(learner.line(taken)) if plan.logs(taken.step) else None
            for listener in self.listeners:
                listener.stepped(taken.step, line)
            if plan.evaluates(taken.step):
                self._evaluate()
            elif plan.saves(taken.step):
                self._save()
            self.stopped = self.ranks.any(bool(interrupted))
            if self.stopped:
                break
        if self.stopped:
            self._save()
        self._ended(finished=not self.stopped)

    def _log(self, event: Event) -> Line:
        """The line of an event, which the first process appends to the log."""
        return self.run.append(event) if self.ranks.leads else event.line()

    def _end_early(self) -> None:
        """Log and tell that train.patience ended the training."""
        train, step = self.setup.recipe.train, self.learner.at.step
        better = f" by more than {train.min_delta:g}" if train.min_delta else ""
        why = f"no better {train.best}{better} in {train.patience} evaluations (train.patience)"
        if self.ranks.leads and (not of(self.run.metrics(), Ended) or self.run.metrics()[-1].get("step") != step):
            self.run.append(Ended(step=step, why=why))
        tell(f"ended at step {step} of {self.learner.plan.total}: {why}; the best checkpoint is kept")

    def _ended(self, finished: bool) -> None:
        for listener in self.listeners:
            listener.stopped(self.run, finished=finished)

    def _begin(self) -> None:
        """Load the run's saved state, or log that a training begins."""
        learner, run = self.learner, self.run
        saved, where = learner.plan.first_saved, learner.machine()
        kept = resume(run, self.setup, learner.optimizer, saved, where, self.ranks, learner.at.base)
        if kept is not None:
            learner.go_on(kept)
        if kept is None and self.ranks.leads and not run.metrics():
            run.append(self._started())
        dealt = learner.at.parts * self.setup.recipe.train.accumulate
        if dealt < self.ranks.world:
            idle = f"{self.ranks.world - dealt} of {self.ranks.world} processes have nothing to compute"
            tell(f"train.parts: a step of this run has {dealt} part{'s'[: dealt != 1]}, so {idle}")
        for listener in self.listeners:
            listener.started(run, learner.at.step, learner.plan.total)
        if learner.at.step and not self.ranks.first(run.last.is_dir):
            self.checkpoints.write(run.last)  # it was deleted; the state holds its weights

    def _started(self) -> Started:
        """The first line of the log."""
        learner, network = self.learner, self.setup.network
        whole = size(network)
        learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
        return Started(
            steps=learner.plan.total,
            parameters=whole,
            trainable=learns if learns < whole else None,
            target_entropy=target_entropy(self.setup.train),
            machine=learner.machine(),
        )

    def _evaluate(self) -> None:
        """Evaluate on the validation examples, and save the checkpoints last and best, and the state."""
        self.checkpoints.write(self.run.last)
        metrics = self._measure()
        best = self.checkpoints.consider(metrics)
        self.checkpoints.snapshot()
        line = self._log(self._evaluated(metrics, best))
        self._save()
        for listener in self.listeners:
            listener.evaluated(line)

    def _evaluated(self, metrics: dict[str, Any], best: bool | None, averaged: int | None = None) -> Evaluated:
        at = self.learner.at
        epoch = round(at.epochs, 3)
        return Evaluated(step=at.step, epoch=epoch, averaged=averaged, metrics=metrics, best=best)

    def _measure(self) -> dict[str, Any]:
        """Figures of the validation examples by greedy search, without texts; empty if there are no examples."""
        if self.valid is None:
            return {}
        with self.learner.optimizer.rounded():
            network, known = self.setup.network.eval(), None
            if self.ranks.world > 1:
                known = found_by_all(network, self.valid, self.options, self.ranks)
            return self.ranks.first(lambda: self._figures(known))

    def _figures(self, known: Found | None) -> dict[str, Any]:
        assert self.valid is not None
        network, tokenizer, recipe = self.setup.network, self.setup.tokenizer, self.setup.recipe
        if self._beside is None:
            sets, measuring = self.setup.pairs, recipe.measuring
            self._beside = baselines_for(self.valid, run=self.run.folder, training=sets, measuring=measuring)
        evaluation = evaluate_encoded(
            network,
            tokenizer,
            self.valid,
            self.options,
            measuring=recipe.measuring,
            baselines=self._beside,
            known=known,
        )
        evaluation.write_translations(self.run.folder)
        write_shown(Model(network, tokenizer, recipe.name, recipe.data, self.options), self.valid, self.run.folder)
        return dict(without_nan(evaluation.metrics))

    def _average(self) -> None:
        """Evaluate the mean of the last snapshots, which becomes the best checkpoint if it is better."""
        found, optimizer = self.checkpoints.average(), self.learner.optimizer
        if found is None or self.ranks.first(lambda: bool(self.run.metrics()[-1].get("averaged"))):
            return
        kept = {name: weight.clone() for name, weight in optimizer.weights().items()}
        optimizer.set_weights(found[0])
        metrics = self._measure()
        best = self.checkpoints.consider(metrics)
        optimizer.set_weights(kept)
        self._log(self._evaluated(metrics, best, averaged=found[1]))

    def _save(self) -> None:
        self.learner.check()
        at, optimizer = self.learner.at, self.learner.optimizer
        if is_sharded(optimizer):
            save_shards(at, optimizer, self.run.state, self.ranks)
        else:
            self.ranks.first(lambda: save_progress(at, optimizer.state_dict(), self.run.state))

    def _stop(self, broken: StepNotFinite) -> NoReturn:
        """End the training at a value that is not finite; the last saved checkpoint and state are kept."""
        self.run.append(Stopped(step=broken.step, why=f"{broken.said}: {broken.why}", **broken.figures))
        self._ended(finished=False)
        kept = "the last state is kept" if is_saved(self.run.state) else "nothing was saved before it"
        raise NotFinite(
            f"step {broken.step}: {broken.said}; {kept}: {broken.why} (sourcewise explain TRN001)"
        ) from None
