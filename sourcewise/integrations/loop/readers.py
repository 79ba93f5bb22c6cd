"""How any batch of a loop is read from now on: by its calls made again, or by the function that was given."""

from __future__ import annotations

from torch import nn

from sourcewise.errors import RequestError
from sourcewise.integrations.collated import LABELS
from sourcewise.integrations.finite import local
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.evaluating import Reader
from sourcewise.integrations.loop.reading import Asked
from sourcewise.integrations.loop.replay import replay_of
from sourcewise.integrations.loop.seen import Seen
from sourcewise.integrations.loop.understood import Understood
from sourcewise.integrations.loop.watching import Watching


def reader_of(
    model: nn.Module, watching: Watching, understood: Understood, asked: Asked, seen: Seen, named: Named
) -> Reader:
    """The reader, by what a step showed. Raises RequestError where the loop's calls cannot be made again."""
    if any(local(p) is not p for p in model.parameters()):
        raise RequestError("each process holds but a part of the model")
    form = seen.given(watching)
    if form == "viewed":
        raise RequestError("the outputs are not the logits of the labels, as they are viewed (WIR027)")
    device, replay = next(p.device for p in model.parameters()), None
    if asked.logits is None:
        size = len(understood.collation(named)[LABELS])
        there = {path: each.to(device) for path, each in named.items()}
        replay = replay_of(watching.calls, watching.saying, there, understood.pad, size)
    return Reader(understood, form, replay, asked.logits, device)
