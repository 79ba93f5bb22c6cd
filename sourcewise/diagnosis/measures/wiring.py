"""The wiring of a network, measured on one batch: what moves its logits, and what its loss is the loss of.

Nothing here knows more of a network than the protocol. All is measured as exactly as the network can be (`borrowing`);
weights, modes and random states are afterwards as before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.diagnosis.borrowing import Rounding, borrowed, draws, rounding
from sourcewise.diagnosis.measures.company import FEWEST, kept, twins, where_rows_mix
from sourcewise.model.protocol import Network

WIDER = 8  # padded positions added to a source
LOGITS = 40_000_000  # logits held at once, 160 MB
SEED = 20  # of the noise and of the garbage in padding
SAME_LOSS = 1e-4  # relative; two ways to sum a batch's nats in fp32 differ by 1e-6
LEAST_NATS = 1e-5  # a token: of logits near 30, fp32 tells 2e-6 apart, which is all the loss of a model that is certain
ROUNDED = 0.5  # relative, in epsilons of what a network rounds to: two ways differ by up to 0.1 in bf16, 0.07 in fp16
ROUNDED_NATS = 4.0  # a token, in epsilons
PASSES = 8  # over a batch, of a network that draws random numbers
STILL = 1e-6  # logits that move no further do not move
LEAK = 1e-4  # logits that may not move and do
SLIGHT = 1e-6  # of a weight's size, as rounding changes it: healthy logits move by some 1e-5
CHAOTIC = 3.0  # times what that moves: by less, changes that may not count cannot be told from rounding
STEPS = 4.0  # the same, in epsilons of what the network rounds to: padding moves them by up to 0.9
MEASURED = (
    "Measured on 26 fresh networks (T5 tied, untied, gated and 12 blocks deep, BART, GRU and LSTM with and without "
    "attention, decoder-only; digits through each bridge and by each route)"
)
STEADY = 1e-4  # logits that move by more from one pass to the next are not the same


@dataclass(frozen=True, slots=True)
class Paths:
    """How far the logits move when something is changed: the largest change over their largest distance from the mean.

    0: not at all. None: this batch or network has nothing of the kind to change.
    """

    spread: float  # standard deviation of the logits over the vocabulary, averaged over target positions
    rounding: Rounding = field(default_factory=Rounding)  # of the network
    finite: bool = True  # whether all logits are
    source: float | None = None  # other source content, the lengths kept
    order: float | None = None  # the source's own content in another order
    source_nats: float | None = None  # what that is in nats: KL divergence of the next token, median
    encoder: float | None = None  # noise of their own size in the encoder's weights
    padding: float | None = None  # garbage in the source's padding, and more of it
    unpadded: float | None = None  # other source content beside that garbage
    future: float | None = None  # other target tokens, before them
    past: float | None = None  # other target tokens, after them
    company: float | None = None  # other rows in the batch
    mixed: str = ""  # where rows begin to read each other, in words
    place: float | None = None  # the same rows in other places of the batch
    slight: float = 0.0  # a change of the encoder's weights as small as rounding

    @property
    def reached(self) -> bool:
        """Whether the source reaches the logits."""
        return self.source is not None and self.source > STILL

    @property
    def leak(self) -> float:
        """From where on logits move that may not."""
        return max(LEAK, STEPS * self.rounding.epsilon if self.rounding.coarse else 0.0, CHAOTIC * self.slight)


@dataclass(frozen=True, slots=True)
class Labels:
    """What stands in the labels of a batch, in rows of it."""

    rows: int
    ended: int  # with an end of text
    padded: int  # whose first end of text is followed by a label that is padding, or the end again
    holes: int  # with a position that does not count before one that does
    begun: int  # whose first label is the start token
    beyond: int  # whose first end of text is followed by another label that counts, such as a language
    first: Mapping[int, int]  # the first label that counts → rows
    closing: tuple[int, int] | None = None  # the commonest last label, where it stands nowhere else, and its rows


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss of a batch as training sums it, and as `decode` gives it for labels shifted once; in nats."""

    summed: float
    expected: float
    like: str | None = None  # where the two differ: how else the labels must be fed to get it; "" where nothing fits

    @property
    def fault(self) -> Literal["shift", "padding", "end", "start"]:
        """What is wrong, where something is."""
        like = self.like or ""
        if "padding" in like:
            return "padding"
        return "end" if "end of text" in like else "start" if "start token" in like else "shift"

    @property
    def evidence(self) -> str:
        """Both figures, and what explains their difference."""
        said = f"training sums {self.summed:.2f} nats, the targets have {self.expected:.2f}"
        return f"{said}; it is what {self.like} would give" if self.like else f"{said}; no usual fault explains it"


def fed(labels: Tensor, start_id: int, pad_id: int, times: int = 1) -> Tensor:
    """What the decoder reads for labels (batch, time) that are shifted `times`, written out once more.

    Not `shift_right`, so that a fault in there shows.
    """
    tokens = torch.where(labels == IGNORED, pad_id, labels)
    for _ in range(times):
        tokens = torch.cat((torch.full_like(tokens[:, :1], start_id), tokens[:, :-1]), dim=1)
    return tokens


# ── what moves the logits ─────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def measure_paths(network: Network, batch: Batch) -> Paths:
    """Change one thing at a time and see whether the logits of the batch's target positions move."""
    with borrowed(network), rounding(network) as rounded:
        batch = batch.to(network.device)
        tokens, real = _read(network, batch)
        source = batch.source

        def logits(of: Source, read: Tensor = tokens) -> Tensor:
            return _logits(network, of, read)

        usual = logits(source)
        spread = float(usual[real].std(-1).mean())
        size = float(usual[real].abs().max())
        if not math.isfinite(size) or size == 0:
            return Paths(spread, finite=math.isfinite(size))

        def moved(other: Tensor, where: Tensor = real, beside: Tensor = usual) -> float:
            return float((other - beside)[where].abs().max()) / size

        found: dict[str, Any] = {}
        changed = source.exchanged()
        if changed is not None:
            other = logits(changed)
            found["source"] = moved(other)
            own, others = (torch.log_softmax(each[real], -1) for each in (usual, other))
            apart = F.kl_div(others, own, reduction="none", log_target=True).sum(-1)  # (positions,)
            found["source_nats"] = float(apart.clamp(min=0).median())
        turned = source.turned()
        if turned is not None:
            found["order"] = moved(logits(turned))
        room = None if network.positions is None else network.positions - network.encode(source).mask.shape[1]
        wider = WIDER if room is None else max(0, min(WIDER, room // 2))
        padded = source.with_garbage(network.vocabulary, wider, torch.Generator().manual_seed(SEED))
        if padded is not None:
            beside = logits(padded)
            found["padding"] = moved(beside)
            changed = padded.exchanged()
            if changed is not None:
                found["unpadded"] = moved(logits(changed), beside=beside)
        if len(tokens) >= FEWEST:
            found |= _company(network, source, tokens, usual, real, size)
        if tokens.shape[1] > 1:
            found |= _target_paths(
                network, tokens, real, lambda read: (logits(source, read) - usual).abs().amax(-1) / size
            )
        found |= _encoder_path(network, lambda: moved(logits(source)))
        return Paths(spread, rounded, **found)


@torch.no_grad()
def between_passes(network: Network, batch: Batch) -> float:
    """How far the logits of a batch's target positions are from those of another pass over it; beside the largest.

    A network that draws random numbers is passed through `PASSES` times, until it gives something else: it may do so
    seldom. 0 where the logits are not finite.
    """
    with borrowed(network):
        batch = batch.to(network.device)
        tokens, real = _read(network, batch)
        first = _logits(network, batch.source, tokens)[real]
        size, furthest = float(first.abs().max()), 0.0
        if not math.isfinite(size) or size == 0:
            return 0.0
        for _ in range(PASSES - 1):
            before = draws()
            furthest = max(furthest, float((_logits(network, batch.source, tokens)[real] - first).abs().max()) / size)
            if furthest > STEADY or draws() == before:
                break
        return furthest


def _read(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the decoder reads for a batch, and where its labels count: (batch, time), as long as `LOGITS` allows."""
    longest = max(2, LOGITS // (len(batch) * network.vocabulary))
    labels = batch.labels[:, :longest]
    return fed(labels, network.start_id, network.pad_id), labels != IGNORED


def _logits(network: Network, source: Source, tokens: Tensor) -> Tensor:
    """(batch, time, vocabulary), as distances from their mean over the vocabulary."""
    found = network.decode(tokens, network.encode(source)).float()
    return found - found.mean(-1, keepdim=True)


def _target_paths(
    network: Network, tokens: Tensor, real: Tensor, moved: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Other tokens in the later half of what the decoder reads: what moves before them, what from there on."""
    middle = tokens.shape[1] // 2
    later = torch.arange(tokens.shape[1], device=tokens.device) >= middle
    other = torch.where(later, (tokens + network.vocabulary // 2) % network.vocabulary, tokens)
    by_position = moved(other) * real
    return {"future": float(by_position[:, :middle].max()), "past": float(by_position[:, middle:].max())}


def _company(
    network: Network, source: Source, tokens: Tensor, usual: Tensor, real: Tensor, size: float
) -> dict[str, Any]:
    """How far rows move with others beside them, and where in the network they begin to."""
    rows = twins(len(tokens))
    beside, read = source.select(rows), tokens[rows.to(tokens.device)]
    apart = kept((_logits(network, beside, read) - usual) * real[..., None])
    moved = float(apart.abs().max()) / size
    if moved <= LEAK or not isinstance(network, nn.Module):
        turned = torch.arange(len(tokens)).roll(1)
        there = _logits(network, source.select(turned), tokens[turned.to(tokens.device)]).roll(-1, 0)
        return {"company": moved, "place": float(((there - usual) * real[..., None]).abs().max()) / size}
    passes = [lambda: _logits(network, source, tokens), lambda: _logits(network, beside, read)]
    return {"company": moved, "mixed": where_rows_mix(network.named_modules(), passes, len(tokens))}


def _encoder_path(network: Network, moved: Callable[[], float]) -> dict[str, float]:
    """Noise in all weights of the encoder, next to none and of each tensor's own size; the last one, for it stays."""
    weights = [i.parameter for i in network.parts() if i.part == "encoder" and i.parameter.is_floating_point()]
    if not weights:
        return {}
    torch.manual_seed(SEED)
    for weight in weights:
        weight.add_(SLIGHT * weight * torch.randn_like(weight))
    slight = moved()
    for weight in weights:
        weight.add_(torch.randn_like(weight) * max(float(weight.square().mean().sqrt()), 0.1))
    return {"encoder": moved(), "slight": slight}


# ── labels and loss ───────────────────────────────────────────────────────────────────────────────────────────────────


def measure_labels(network: Network, batch: Batch) -> Labels:
    """Count where the labels begin, end and count."""
    labels = batch.labels.cpu()
    real = labels != IGNORED
    places = torch.arange(labels.shape[1])
    last = torch.where(real, places, -1).amax(1)
    ends = labels == network.eos_id
    first_end = torch.where(ends, places, labels.shape[1]).amin(1)
    following = F.pad(labels, (0, 2), value=IGNORED).gather(1, first_end[:, None] + 1)[:, 0]
    return Labels(
        rows=len(labels),
        ended=int(ends.any(1).sum()),
        padded=int(((following == network.pad_id) | (following == network.eos_id)).sum()),
        holes=int((real.sum(1) != last + 1).sum()),
        begun=int((labels[:, 0] == network.start_id).sum()),
        beyond=int(((following != IGNORED) & (following != network.pad_id) & (following != network.eos_id)).sum()),
        first=Counter(labels.gather(1, torch.where(real, places, labels.shape[1] - 1).amin(1)[:, None])[:, 0].tolist()),
        closing=_closing(labels, last),
    )


def _closing(labels: Tensor, last: Tensor) -> tuple[int, int] | None:
    """The commonest last label and its rows, where it stands at no other place, as an end of text does."""
    whole = labels[last > 0]  # a label alone says nothing
    if len(whole) < 2:
        return None
    token, rows = Counter(whole.gather(1, last[last > 0][:, None])[:, 0].tolist()).most_common(1)[0]
    return (token, rows) if int((whole == token).sum()) == rows else None


@torch.no_grad()
def measure_loss(network: Network, batch: Batch, summed: Callable[[Batch], Any] | None = None) -> Loss:
    """Compare the nats that training sums (the network's own unless given) with those of labels shifted once.

    Where they differ, the ways in which labels are commonly fed wrongly are tried until one gives the same.
    """
    with borrowed(network), rounding(network) as rounded:
        batch = _padded_further(network, batch.to(network.device))
        given = float(network(batch).nats if summed is None else summed(batch))
        labels, pad, start = batch.labels, network.pad_id, network.start_id
        memory = network.encode(batch.source)

        def nats(tokens: Tensor, counted: Tensor = labels) -> float:
            return _nats(network, memory, tokens, counted)

        once = fed(labels, start, pad)
        expected = nats(once)
        tokens = int((labels != IGNORED).sum())

        def same(found: float) -> bool:
            return _same(given, found, tokens, rounded)

        if same(expected) or not math.isfinite(given + expected):
            return Loss(given, expected)
        ways: dict[str, Callable[[], float]] = {
            "labels that are not shifted": lambda: nats(fed(labels, start, pad, 0)),
            "labels shifted twice": lambda: nats(fed(labels, start, pad, 2)),
            "padding counted as targets": lambda: nats(once, labels.masked_fill(labels == IGNORED, pad)),
            "the end of text not counted": lambda: nats(once, _without_last(labels)),
            "the first token not counted": lambda: nats(once[:, 1:], labels[:, 1:]),
            **{
                f"{other} as the start token": lambda other=other: nats(fed(labels, other, pad))  # type: ignore[misc]
                for other in sorted({pad, network.eos_id, 0, 1, 2, 3} - {start})
                if other < network.vocabulary
            },
        }
        return Loss(given, expected, next((name for name, way in ways.items() if same(way())), ""))


def _padded_further(network: Network, batch: Batch) -> Batch:
    """With two more positions of padding in the labels, where there is room: targets may all be of one length."""
    if network.positions is not None and batch.labels.shape[1] + 2 > network.positions:
        return batch
    return Batch(batch.source, F.pad(batch.labels, (0, 2), value=IGNORED), batch.indices)


def _same(a: float, b: float, tokens: int, rounded: Rounding) -> bool:
    """Whether two sums over so many target tokens differ by no more than rounding."""
    relative, least = SAME_LOSS, LEAST_NATS
    if rounded.coarse:
        relative, least = max(relative, ROUNDED * rounded.epsilon), max(least, ROUNDED_NATS * rounded.epsilon)
    return abs(a - b) <= max(least * tokens, relative * max(abs(a), abs(b)))


def _without_last(labels: Tensor) -> Tensor:
    """Labels (batch, time) whose last one of each row does not count."""
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return labels.masked_fill(following == IGNORED, IGNORED)


def _nats(network: Network, memory: Any, tokens: Tensor, labels: Tensor) -> float:
    """Summed −ln p(label) after these tokens, some rows at a time."""
    total, rows = 0.0, max(1, LOGITS // (tokens.shape[1] * network.vocabulary))
    for part in torch.arange(len(labels), device=labels.device).split(rows):
        logits = network.decode(tokens[part], memory if len(part) == len(labels) else memory.select(part))
        flat = logits.flatten(0, 1).float()
        total += float(F.cross_entropy(flat, labels[part].flatten(), ignore_index=IGNORED, reduction="sum"))
    return total
