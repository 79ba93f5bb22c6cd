"""How likely a set's targets are with sources that are changed, all in one way, as files and programs change them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from sourcewise.data.batches import IGNORED, Budget, sorted_batches
from sourcewise.data.encoding import Augment, ExampleSet
from sourcewise.diagnosis.likelihood import Change
from sourcewise.model.protocol import Network, token_nats

FIRST = 16  # examples of a set, in which a change is tried before it is in all
HOPEFUL = 0.7  # of the loss as it is, that a change brings it to in these, where it is tried in all
LEAST = 1e-6  # of a logarithm
DECIBELS = 10 / np.log(10)  # a natural logarithm in them


def _reordered(key: Callable[[int], object], back: bool) -> Augment:
    """Frames in another order; `back`, out of it."""

    def change(frames: np.ndarray) -> np.ndarray:
        order = np.array(sorted(range(len(frames)), key=key), dtype=np.int64)  # type: ignore[arg-type]
        return frames[np.argsort(order) if back else order]

    return change


def _standardised(frames: np.ndarray) -> np.ndarray:
    return (frames - frames.mean(0)) / (frames.std(0) + LEAST)  # type: ignore[no-any-return]


CHANGES: dict[str, Augment] = {
    "frames put into the order of their numbers as text (1, 10, 11, 2)": _reordered(lambda i: str(i + 1), False),
    "frames put into the order of their numbers as text (0, 1, 10, 11, 2)": _reordered(str, False),
    "frames put back from the order of their numbers as text (1, 10, 11, 2)": _reordered(lambda i: str(i + 1), True),
    "frames put back from the order of their numbers as text (0, 1, 10, 11, 2)": _reordered(str, True),
    "every second frame left out": lambda frames: frames[::2],
    "every frame twice": lambda frames: frames.repeat(2, 0),
    "numbers divided by 255": lambda frames: frames / 255,
    "numbers multiplied by 255": lambda frames: frames * 255,
    "numbers that are doubled, less 1": lambda frames: 2 * frames - 1,
    "numbers plus 1, halved": lambda frames: (frames + 1) / 2,
    "numbers of the other sign": lambda frames: -frames,
    "the logarithm of the numbers": lambda frames: np.log(np.maximum(frames, LEAST)),
    "the exponential of the numbers": lambda frames: np.exp(np.minimum(frames, 20)),
    "a logarithm turned into decibels": lambda frames: frames * DECIBELS,
    "decibels turned into a natural logarithm": lambda frames: frames / DECIBELS,
    "each dimension less its mean in the recording, over its deviation there": _standardised,
    "dimensions from the last to the first": lambda frames: np.ascontiguousarray(frames[:, ::-1]),
}
EXCHANGED = "sources and targets exchanged"


def changes_of(network: Network, encoded: ExampleSet, own: np.ndarray) -> Iterator[Change]:
    """What each change brings, in a set whose targets cost `own` nats a token, (examples,); those of no use are left
    out after a few examples.
    """
    few = np.linspace(0, len(encoded) - 1, min(FIRST, len(encoded))).astype(int)
    bound = HOPEFUL * float(own[few].mean())
    for what, given, change in _tried(encoded):
        first = _nats(network, given.select(few.tolist()), change)
        if first is not None and float(first.mean()) <= bound:
            found = _nats(network, given, change)
            if found is not None:
                yield Change(what, found)


def _tried(encoded: ExampleSet) -> Iterator[tuple[str, ExampleSet, Augment | None]]:
    if encoded.dataset.dims:
        yield from ((what, encoded, change) for what, change in CHANGES.items())
    elif encoded.sources is not None:
        yield EXCHANGED, _exchanged(encoded, encoded.sources), None


def _exchanged(encoded: ExampleSet, sources: Sequence[Sequence[int] | np.ndarray]) -> ExampleSet:
    """The ids of the targets as sources, and those of the sources as targets."""
    other = copy.copy(encoded)
    other.sources, other.targets = [[i for i in ids if i != IGNORED] for ids in encoded.targets], sources
    other.source_lengths, other.target_lengths = encoded.target_lengths, encoded.source_lengths
    return other


def begun(network: Network, encoded: ExampleSet) -> list[int]:
    """The token that outputs are forced to begin with, where targets do not hold it, such as a language's code."""
    forced = list(network.defaults.forced_bos)
    if len(forced) != 1 or any(len(ids) and int(ids[0]) == forced[0] for ids in encoded.targets):
        return []
    return forced


@torch.inference_mode()
def _nats(network: Network, encoded: ExampleSet, change: Augment | None, batch_tokens: int = 8192) -> np.ndarray | None:
    """(examples,) nats per token; None where the network cannot read them so."""
    found, begins = np.zeros(len(encoded)), begun(network, encoded)
    try:
        for rows in sorted_batches(encoded.source_lengths, encoded.target_lengths, Budget(batch_tokens)):
            batch = encoded.batch(rows, change)
            labels = batch.labels.to(network.device)
            real = labels != IGNORED
            led = torch.cat((labels.new_tensor(begins).expand(len(labels), -1), labels), 1)
            nats = token_nats(network, network.encode(batch.source), led)[:, len(begins) :] * real
            found[rows] = np.asarray((nats.double().sum(1) / real.sum(1).clamp(min=1)).cpu())
    except (IndexError, RuntimeError, ValueError):  # ids beyond a vocabulary, more positions than there are
        return None
    return found if bool(np.isfinite(found).all()) else None
