"""The data of a trace: an output by token, with alternatives, source bits and attention to the source.

    trace = sourcewise.trace("runs/dates", "de_DE: Dienstag, 3. März 1987")
    trace.steps[0].text, trace.steps[0].p, trace.steps[0].bits
    trace.weights(layer=1, head=2)      # (target tokens, slots), averaged over omitted indices

`tracing.py` makes it. docs/trace.md describes its JSON, which page, report and server share.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from sourcewise.generation.lineage import Beam
from sourcewise.runtime.notebook import shaded

NO_SOURCE = 0.1  # source bits below which a token does not depend on its source: the bound of the verdict
UNIT = 1e-5  # of attention weights in JSON
MOST_SELF = 200_000  # weights of self-attention of a stack in JSON; more are averaged over heads, then over layers
COLUMNS, ROWS = 320, 48  # largest picture of a feature matrix


@dataclass(frozen=True, slots=True)
class Slot:
    """A memory position: one of those that the decoder attends to."""

    kind: Literal["token", "prompt", "frames", "latent", "other"]
    text: str = ""  # of a token, with the space before it
    frames: tuple[int, int] | None = None  # [start, stop) of the position; the encoder mixes in its neighbours


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible next token with its probability."""

    id: int
    text: str
    p: float


@dataclass(frozen=True, slots=True)
class Step:
    """One token of the output, the end of text included."""

    id: int
    text: str
    p: float
    bits: float  # log2 p minus the mean log2 p with other sources; NaN without other sources
    likeliest: list[Candidate]

    @property
    def made_up(self) -> bool:
        """Whether the token does not depend on the source: it is (nearly) as likely with other sources."""
        return self.bits < NO_SOURCE


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a source: [start, stop) of its tokens, or of its frames."""

    start: int
    stop: int
    text: str = ""  # of its tokens

    @property
    def name(self) -> str:
        """Its text, or its frames."""
        return visible(self.text) if self.text else frames_name(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Without:
    """What changes where a part of the source is taken away (`what_if.py`)."""

    part: Part
    output: str  # what the same search finds then
    bits: list[float]  # per token of the output: log2 p with the whole source − log2 p without the part


@dataclass(slots=True, repr=False)
class Trace:
    """One source, its output, and the steps of its generation."""

    model: str
    id: str
    source: str  # the text, or the prompt beside features
    slots: list[Slot]
    unread: int  # truncated tokens or frames
    features: np.ndarray | None  # (frames, dims) as read
    output: str
    finished: bool  # ended by an end token, before the maximum length
    score: float  # of the search: Σ ln p, with beams divided by length^length_penalty
    search: str
    steps: list[Step]
    against: str  # the other sources of `bits`, in words
    attention: np.ndarray | None  # (layers, heads, target tokens, slots) float32; None: the network has none
    beams: list[list[Beam]] | None = None  # one list per step; None: no beam search
    beam_texts: list[list[str]] = field(default_factory=list)  # the text that each of them adds
    length_penalty: float = 1.0
    what_if: list[Without] | None = None  # for each part of the source; None: not asked for
    self_attention: dict[str, np.ndarray] = field(default_factory=dict)  # `encoder`: (layers, heads, slots, slots);
    # `decoder`: (layers, heads, target tokens, tokens read), of which the first is the start token

    def __repr__(self) -> str:
        """The output and its source bits, on one line."""
        bits = bits_text(self.bits)
        return f"<Trace: {self.output!r}{f', {bits} source bits per token' if bits else ''}>"

    def _repr_html_(self) -> str:
        """The output, each token the darker the more it gains from its source, for notebooks."""
        most = max((step.bits for step in self.steps if math.isfinite(step.bits)), default=0.0) or 1.0
        pieces = [
            (step.text, step.bits / most if math.isfinite(step.bits) else 0.0, f"p {step.p:.3f}, {step.bits:.2f} bits")
            for step in self.steps
        ]
        return shaded(self.source or self.id, pieces, "The darker, the more a token gains from its source.")

    @property
    def bits(self) -> float:
        """Source bits per target token; NaN without other sources."""
        return sum(step.bits for step in self.steps) / len(self.steps)

    def weights(self, layer: int | None = None, head: int | None = None) -> np.ndarray | None:
        """Attention weights (target tokens, slots) of a layer and a head, from 0; None averages over all."""
        if self.attention is None:
            return None
        chosen = self.attention if layer is None else self.attention[layer : layer + 1]
        chosen = chosen if head is None else chosen[:, head : head + 1]
        return np.asarray(chosen.mean((0, 1), dtype=np.float64))

    def to_dict(self, most_weights: int | None = None) -> dict[str, Any]:
        """The trace as JSON-compatible values, described in docs/trace.md.

        More attention weights than `most_weights` are averaged over heads, and, if still too many, over layers.
        """
        return {
            "version": 1,
            "model": self.model,
            "source": {
                "id": self.id,
                "text": self.source,
                "unread": self.unread,
                "slots": [asdict(slot) for slot in self.slots],
                "features": None if self.features is None else picture(self.features),
            },
            "output": {
                "text": self.output,
                "finished": self.finished,
                "score": _figure(self.score),
                "search": self.search,
            },
            "source_bits": {"mean": _figure(self.bits), "against": self.against, "none_below": NO_SOURCE},
            "steps": [
                {"id": step.id, "text": step.text, "p": _figure(step.p), "bits": _figure(step.bits)}
                | {"likeliest": [asdict(c) | {"p": _figure(c.p)} for c in step.likeliest]}
                for step in self.steps
            ],
            "attention": None if self.attention is None else _packed(self.attention, most_weights),
            "self_attention": {
                stack: _packed(weights, min(most_weights or MOST_SELF, MOST_SELF))
                for stack, weights in self.self_attention.items()
            },
            "beams": None
            if self.beams is None
            else {"length_penalty": self.length_penalty, "steps": self._beams(self.beams)},
            "what_if": None
            if self.what_if is None
            else [
                asdict(without.part) | {"output": without.output, "bits": [_figure(bits) for bits in without.bits]}
                for without in self.what_if
            ],
        }

    def to_json(self, most_weights: int | None = None) -> str:
        """`to_dict` as compact JSON."""
        return json.dumps(self.to_dict(most_weights), ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def _beams(self, beams: list[list[Beam]]) -> list[list[dict[str, Any]]]:
        return [
            [{"id": b.id, "text": t, **asdict(b), "score": _figure(b.score)} for b, t in zip(step, texts, strict=True)]
            for step, texts in zip(beams, self.beam_texts, strict=True)
        ]


def visible(text: str) -> str:
    """A token's text for display: without spaces around it and without control characters."""
    shown = text.strip().replace("▁", "␣").replace("\n", "⏎")
    return "".join(c if c.isprintable() else "·" for c in shown) or ("⏎" if "\n" in text else "␣")


def bits_text(bits: float) -> str:
    """Source bits with two digits, without negative zero; empty if unknown."""
    return f"{round(bits, 2) + 0.0:.2f}" if math.isfinite(bits) else ""


def frames_name(start: int, stop: int) -> str:
    """Name of frames [start, stop)."""
    return f"frame {start}" if stop - start == 1 else f"frames {start}–{stop - 1}"


def slot_name(slots: list[Slot], number: int) -> str:
    """Name of a memory position; equal texts are numbered: `o (2nd)`."""
    slot = slots[number]
    if slot.frames is not None:
        return frames_name(*slot.frames)
    if slot.kind in ("latent", "other"):
        return f"{'latent' if slot.kind == 'latent' else 'position'} {number + 1}"
    same = [i for i, other in enumerate(slots) if other.kind == slot.kind and visible(other.text) == visible(slot.text)]
    place = same.index(number) + 1
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return visible(slot.text) + (f" ({place}{ending})" if len(same) > 1 else "")


def picture(features: np.ndarray) -> dict[str, Any]:
    """A (frames, dims) matrix as a picture of at most COLUMNS × ROWS grey values 0 to 255, one list per row of dims.

    Neighbours are averaged; the lowest and the highest hundredth of the values are clipped.
    """
    frames, dims = features.shape
    small = _shrunk(_shrunk(features.astype(np.float64), COLUMNS, 0), ROWS, 1)
    low, high = np.percentile(small, (1, 99))
    grey = np.clip((small - low) / (high - low) if high > low else np.zeros_like(small), 0, 1)
    return {"frames": frames, "dims": dims, "rows": np.rint(grey.T * 255).astype(int).tolist()}


def _shrunk(matrix: np.ndarray, most: int, axis: int) -> np.ndarray:
    size = matrix.shape[axis]
    if size <= most:
        return matrix
    edges = np.linspace(0, size, most + 1).round().astype(int)
    sums = np.add.reduceat(matrix, edges[:-1], axis=axis)
    counts = np.diff(edges)
    return np.asarray(sums / (counts[:, None] if axis == 0 else counts))


def _packed(attention: np.ndarray, most: int | None) -> dict[str, Any]:
    """Attention weights as multiples of `unit`: half as many digits, with errors of at most half a unit."""
    layers, heads = attention.shape[:2]
    averaged = most is not None and attention.size > most
    kept = attention.astype(np.float64)
    for axis in (1, 0):
        kept = kept.mean(axis, keepdims=True) if most is not None and kept.size > most else kept
    return {
        "layers": kept.shape[0],
        "heads": kept.shape[1],
        "averaged": {"layers": layers, "heads": heads} if averaged else None,
        "unit": UNIT,
        "weights": np.rint(kept / UNIT).astype(int).tolist(),
    }


def _figure(value: float) -> float | None:
    """A number with six digits; None for NaN and infinity, which JSON lacks."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
