"""What a loop's modules compute in eval mode that they do not in training mode, and whether eval() is called at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.norms import FEWEST, as_made
from sourcewise.diagnosis.measures.wiring import LEAK
from sourcewise.diagnosis.observed import Moves
from sourcewise.diagnosis.rules.wiring.wir040_evaluation_is_otherwise import EvaluationIsOtherwise
from sourcewise.diagnosis.wiring import Modes
from sourcewise.integrations.collated import LABELS
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.evaluating import Reader
from sourcewise.integrations.loop.watching import Call, Hook, is_compiled, noises

NOISE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
TWICE = 2.0  # as many steps, until both modes are held beside each other again


class InBothModes:
    """Keeps what was seen of both modes; the first of the modules is asked for its mode at each call."""

    def __init__(self, modules: Sequence[tuple[str, nn.Module]]) -> None:
        self.modules = modules
        self.passes = 0  # the most batches in succession without gradients in training mode
        self._now: list[int] = []
        self._pairs: list[tuple[float, float]] = []
        self._next = EvaluationIsOtherwise.settled
        self._quiet = (0, 0, 0.0)  # see Modes
        self._states: list[int] = []  # of the generator of random numbers, as steps that drew some began
        self._state = 0
        first = modules[0][1]
        noisy = any(isinstance(m, NOISE) or _drops(m) for _, each in modules for m in each.modules())
        if noisy and not is_compiled(first):
            first.register_forward_pre_hook(Hook(self._called))

    def _called(self, module: nn.Module, given: Any) -> None:
        if torch.is_grad_enabled():
            self._now.clear()
        elif module.training and given and id(given[0]) not in self._now:  # a word after another is one batch
            self._now.append(id(given[0]))
            self.passes = max(self.passes, len(self._now))

    def began(self) -> None:
        """A step begins that is looked at."""
        self._state = _random_state()

    def due(self, step: int, moves: Moves | None) -> bool:
        """Whether both modes are to be compared at this step, where the decoder reads its target in eval mode."""
        return step >= self._next and moves is not None and (moves.past or 0.0) > LEAK

    def trained_on(self, step: int, calls: Sequence[Call]) -> None:
        """Note whether dropout was off in a step, of calls that a gradient came back to."""
        if self._state != _random_state():
            self._states.append(self._state)
        noisy = [call for call in calls if call.dropout and call.out_gradients]
        if noisy and all(call.quiet for call in noisy):
            count, since, _ = self._quiet
            self._quiet = (count + 1, since or step, max(call.dropout for call in noisy))
        elif noisy:
            self._quiet = (0, 0, 0.0)

    @torch.no_grad()
    def compare(self, step: int, reader: Reader, batch: Any, named: Named) -> None:
        """The nats of a token of a batch, in eval mode and then in training mode; within a look."""
        collation = reader.understood.collation(named)
        tokens = max(1, int((collation[LABELS] != IGNORED).sum()))
        found = []
        for training in (False, True):
            for _, module in self.modules:
                module.train(training)
            found.append(float(reader.nats(batch, named, collation).sum()) / tokens)
        for _, module in self.modules:
            module.eval()
        self._pairs.append((found[1], found[0]))
        self._next = int(TWICE * step) if len(self._pairs) > 1 else step + 1

    def modes(self, steps: int) -> Modes:
        """All that was seen; of both modes the last two looks, the one where they are less apart."""
        training, evaluation = math.nan, math.nan
        if len(self._pairs) > 1:
            training, evaluation = min(self._pairs[-2:], key=lambda pair: pair[1] - pair[0])
        paths = [
            (f"{top}.{path}" if path else top, m) for top, each in self.modules for path, m in each.named_modules()
        ]
        norms = as_made(paths) if steps >= FEWEST else []
        noisy = [p for _, each in self.modules for p, on in noises(each) if on]
        last = self._states[-EvaluationIsOtherwise.seeded :]
        seeded = len(last) if noisy and len(set(last)) == 1 else 0
        return Modes(norms, steps, training, evaluation, self.passes, *self._quiet, seeded=seeded)


def _drops(module: nn.Module) -> bool:
    return isinstance(module, nn.RNNBase) and module.dropout > 0


def _random_state() -> int:
    """What the generator of random numbers will draw next, as a number."""
    return hash(torch.get_rng_state().numpy().tobytes())
