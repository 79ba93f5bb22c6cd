"""The doctor in a loop of one's own: `sourcewise.doctor(model, optimizer)`, in plain PyTorch or accelerate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sourcewise.errors import RequestError
from sourcewise.integrations.doctor import refuse_few
from sourcewise.integrations.loop.training import EVERY, LoopDoctor
from sourcewise.integrations.loop.understood import Asked, Role
from sourcewise.tracking import Trackers
from sourcewise.tracking.kinds import tracker_of

__all__ = ["LoopDoctor", "doctor"]


def doctor(
    model: Any,
    optimizer: Any = None,
    *,
    source: Role = None,
    target: Role = None,
    pad: int | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    generate: Callable[[Any], Any] | None = None,
    steps: int = 0,
    every: int = EVERY,
    examples: int = 96,
    trained: bool = False,
    track: Any = (),
) -> LoopDoctor:
    """A doctor for a training loop in plain PyTorch: `doctor.step(loss, batch)`, once for each batch, is all it needs.

    `model` is a torch module, or several, as in (encoder, decoder); `optimizer` one, or several. Findings are printed
    when they are new, and are in `doctor.diagnosis`; `doctor.evaluate(loader)` measures source bits on others.
    The training is the same to the last digit, and never ends by it: what cannot be looked at is a line "not checked".

    How batches are read is found out, and said in one line. What is not found out, or wrongly, is said in words:
    `source` and `target` are names in the batch, or functions from a batch to (batch, time) ids or (batch, frames,
    dims) features; `pad` is the id of padding; `logits` a function from a batch to (batch, time, vocabulary) outputs,
    with the true tokens before each; `generate` one from a batch to a text, or ids, for each example. `steps` is how
    many there are to be, `every` how many lie between two that are watched, `examples` how many an evaluation reads.
    `trained` says that the model is a finished one: what it has not learned by now is a fault, and no note. `track` is
    where findings and figures go, too: a SummaryWriter, a run of W&B or trackio, or "wandb", "mlflow" or
    "trackio" for the run that is open; or several of these.

    Raises RequestError where `model` is no module, `optimizer` no optimizer, or `track` no tracker.
    """
    refuse_few(examples, "doctor")
    if every < 1:
        raise RequestError(f"doctor: every is {every}; it is a number of steps, 1 or more")
    asked = Asked(source, target, pad, logits, generate)
    trackers = Trackers(map(tracker_of, track if isinstance(track, (list, tuple)) else [track]))
    options: dict[str, Any] = {"steps": steps, "every": every, "examples": examples, "trackers": trackers}
    return LoopDoctor(model, optimizer, asked, trained=trained, **options)
