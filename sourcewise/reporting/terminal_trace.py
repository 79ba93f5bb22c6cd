"""Prints a trace: one line per target token with the memory positions it read; tab-separated without a terminal."""

from __future__ import annotations

import math

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sourcewise.generation.trace import Slot, Trace, bits_text, slot_name, visible

LONGEST = 16  # characters of the name of a memory position (slot)
TOP = 3  # positions shown per target token
TOP_TIMED = 2  # positions shown beside a strip over time
LEAST = 0.005  # attention weight below which a position is not shown
LEGEND = "yellow: as likely without this source; made up, or said by the tokens before"
BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 32  # characters of the strip over the frames
# Upper bounds of weights, with colours that are readable on dark and on light terminals.
SHADES = (
    (0.08, "#1d1d1b on #dcebf8"),
    (0.25, "#1d1d1b on #a9d0f0"),
    (0.5, "#ffffff on #3a86c8"),
    (math.inf, "#ffffff on #0b4f8a"),
)


def print_trace(trace: Trace, *, named: bool = False) -> None:
    """Print source, output and search; then per target token p, source bits and its largest attention weights.

    If it was asked what if, a line for each part of the source follows. `named` says of which model it is.
    """
    console = Console(highlight=False, soft_wrap=False)
    facts = [("model", trace.model), *_facts(trace)] if named else _facts(trace)
    if not console.is_terminal:
        for name, value in facts:
            print(f"{name}\t{value}")
        print("token\tp\tsource bits\tread from")
        for t, step in enumerate(trace.steps):
            read = ", ".join(f"{name} {weight:.3f}" for name, weight in read_from(trace, t))
            print(f"{visible(step.text)}\t{step.p:.4g}\t{bits_text(step.bits)}\t{read}")
        if trace.what_if is not None:
            print("without\tbits lost\toutput then")
            for name, bits, output in what_if_rows(trace):
                print(f"{name}\t{bits_text(bits)}\t{visible(output)}")
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in facts:
        grid.add_row(Text(name, style="dim"), Text(value))
    console.print(grid)
    console.print(_table(trace))
    if any(step.made_up for step in trace.steps):
        console.print(Text(LEGEND, style="yellow"))
    if trace.what_if is not None:
        console.print(_what_if_table(trace))


def read_from(trace: Trace, step: int, most: int = TOP) -> list[tuple[str, float]]:
    """(name, weight) of a target token's largest attention weights, averaged over heads; empty without attention."""
    weights = trace.weights()
    if weights is None:
        return []
    best = np.argsort(-weights[step], kind="stable")[:most].tolist()
    return [(slot_name(trace.slots, s), float(weights[step, s])) for s in best if weights[step, s] >= LEAST]


def what_if_rows(trace: Trace) -> list[tuple[str, float, str]]:
    """For each part of the source: its name, the bits that the whole output loses without it, and the output then."""
    return [(each.part.name, sum(each.bits), each.output) for each in trace.what_if or []]


def strip(slots: list[Slot], weights: np.ndarray, width: int = WIDTH) -> str:
    """Attention weights (memory positions,) over time as at most `width` bars; a bar sums the weights of its frames."""
    spans = [(slot.frames, weight) for slot, weight in zip(slots, weights.tolist(), strict=True) if slot.frames]
    frames = spans[-1][0][1]
    width = min(width, len(spans))
    sums = [0.0] * width
    for (start, _), weight in spans:
        sums[start * width // frames] += weight
    return "".join(BARS[min(len(BARS) - 1, math.ceil(total * (len(BARS) - 1) - LEAST))] for total in sums)


def _facts(trace: Trace) -> list[tuple[str, str]]:
    source = trace.source
    if trace.features is not None:
        source = f"{trace.id}: {len(trace.features)} frames × {trace.features.shape[1]}  {source}".rstrip()
    facts = [("source", visible(source)), ("output", visible(trace.output)), ("search", trace.search)]
    if not trace.finished:
        facts.append(("cut", "at the maximum length; --max-new-tokens sets it"))
    if trace.unread:
        facts.append(("not read", f"{trace.unread} {'tokens' if trace.features is None else 'frames'}, cut to fit"))
    bits = bits_text(trace.bits)
    facts.append(("source bits", f"{bits} per token, against {trace.against}" if bits else trace.against))
    if trace.attention is None:
        facts.append(("read from", "the network has no cross-attention"))
    if trace.beams is not None:
        count = sum(map(len, trace.beams))
        lived = sum(beam.lived for step in trace.beams for beam in step)
        facts.append(("beams", f"{count} hypotheses, {count - lived} of them dropped"))
    return facts


def _table(trace: Trace) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("token", no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column("p", justify="right")
    table.add_column("bits", justify="right")
    weights = trace.weights()
    timed = weights is not None and any(slot.frames for slot in trace.slots)
    if timed:
        table.add_column("over time", no_wrap=True)
    if trace.attention is not None:
        layers, heads = trace.attention.shape[:2]
        table.add_column(f"read from (average of {layers} × {heads} heads)", no_wrap=True, overflow="ellipsis")
    for t, step in enumerate(trace.steps):
        style = "yellow" if step.made_up else ""
        cells = [
            Text(visible(step.text), style=f"bold {style}"),
            Text(f"{step.p:.3f}"),
            Text(bits_text(step.bits), style=style),
        ]
        if timed:
            assert weights is not None
            cells.append(Text(strip(trace.slots, weights[t]), style="blue"))
        if trace.attention is not None:
            cells.append(_shaded(read_from(trace, t, TOP_TIMED if timed else TOP)))
        table.add_row(*cells)
    return table


def _what_if_table(trace: Trace) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("without", no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column("bits lost", justify="right")
    table.add_column("output then", overflow="ellipsis")
    for name, bits, output in what_if_rows(trace):
        same = output == trace.output
        table.add_row(
            Text(name, style="bold"),
            bits_text(bits),
            Text("the same" if same else visible(output), style="dim" if same else ""),
        )
    return table


def _shaded(read: list[tuple[str, float]]) -> Text:
    parts = Text()
    for name, weight in read:
        parts.append(
            f" {name if len(name) <= LONGEST else name[: LONGEST - 1] + '…'} ",
            style=next(style for bound, style in SHADES if weight < bound),
        )
        parts.append(f" {100 * weight:.0f} %  ", style="dim")
    return parts
