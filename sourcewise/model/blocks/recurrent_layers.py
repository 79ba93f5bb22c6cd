"""Layers and memory of recurrent encoder–decoders.

Time is the first axis here, as in torch's cells. All that does not depend on the state is computed for all steps at
once: products of the inputs, keys of the attention, readout. Without attention torch's cells run over the complete
sequence; with attention a loop over time attends to the source before each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.model import attention

CELLS: dict[str, type[nn.GRU | nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
CARRIES = {"gru": 1, "lstm": 2}  # tensors of a layer's state: the output, and the LSTM's cell state
GATES = {"gru": 3, "lstm": 4}


@dataclass
class RecurrentMemory:
    """The encoder's states with their attention keys, one vector for all of them, and the decoder's initial state."""

    layout: Layout
    states: Tensor  # (batch, width, d_model)
    keys: Tensor | None  # (batch, width, d_model); None: without attention
    vector: Tensor  # (batch, d_model)
    start: Tensor  # (layers × carries, batch, d_model)

    @property
    def batch(self) -> int:
        """Number of sources."""
        return len(self.states)

    @property
    def mask(self) -> Tensor:
        """(batch, width) bool, false at padding."""
        return self.layout.on(self.states.device).mask

    def select(self, rows: Tensor) -> RecurrentMemory:
        """The memory of these sources, cut to the longest of them."""
        layout, columns = self.layout.select(rows.cpu().numpy())
        keys = None if self.keys is None else self.keys[rows, columns]
        return RecurrentMemory(layout, self.states[rows, columns], keys, self.vector[rows], self.start[:, rows])

    def join(self, other: RecurrentMemory) -> RecurrentMemory:
        """The memory of these sources and those of another memory."""
        width = max(self.layout.width, other.layout.width)

        def both(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.cat([F.pad(t, (0, 0) * (t.ndim - 2) + (0, width - t.shape[1])) for t in (mine, theirs)])

        return RecurrentMemory(
            self.layout.join(other.layout),
            both(self.states, other.states),
            None if self.keys is None or other.keys is None else both(self.keys, other.keys),
            torch.cat((self.vector, other.vector)),
            torch.cat((self.start, other.start), dim=1),
        )


class Order:
    """The order in which one direction reads the positions of a batch: real ones first, padding last.

    So padding on either side never influences a real state, without torch's packed sequences, which take its cells 1.8
    times as long on a CPU (GRU; LSTM 3.6 times).
    """

    def __init__(self, layout: Layout, device: torch.device, *, backwards: bool = False) -> None:
        batch, width = len(layout), layout.width
        place = np.broadcast_to(np.arange(width), (batch, width))
        rank = np.where(layout.mask, width - 1 - place if backwards else place, width)
        order = rank.argsort(axis=1, kind="stable")
        row = np.arange(batch)
        last = np.take_along_axis(order, layout.lengths[:, None] - 1, 1)[:, 0] * batch + row
        self.unchanged = bool((order == place).all())
        self.there, self.back, self.last = (
            torch.from_numpy(np.ascontiguousarray(index)).to(device, non_blocking=True)
            for index in (
                (order * batch + row[:, None]).T.flatten(),
                (order.argsort(axis=1) * batch + row[:, None]).T.flatten(),
                last,
            )
        )

    def enter(self, x: Tensor) -> Tensor:
        """(positions, batch, width) in the layout's order → in reading order."""
        return x if self.unchanged else _Permute.apply(x, self.there, self.back)

    def leave(self, x: Tensor) -> Tensor:
        """(positions, batch, width) in reading order → in the layout's order."""
        return x if self.unchanged else _Permute.apply(x, self.back, self.there)

    def end(self, x: Tensor) -> Tensor:
        """(positions, batch, width) in the layout's order → (batch, width), the states that are read last."""
        return x.flatten(0, 1).index_select(0, self.last)


class _Permute(torch.autograd.Function):
    """(positions, batch, width) in another order; the backward uses the inverse order, not torch's scatter-add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return x.flatten(0, 1).index_select(0, order).view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].flatten(0, 1).index_select(0, ctx.inverse).view(grads[0].shape), None, None


class EncoderLayer(nn.Module):
    """A bidirectional layer: one cell per direction with half the width, outputs concatenated."""

    def __init__(self, cell: str, d_model: int) -> None:
        super().__init__()
        self.forwards = CELLS[cell](d_model, d_model // 2)
        self.backwards = CELLS[cell](d_model, d_model // 2)

    def forward(self, x: Tensor, orders: tuple[Order, Order]) -> Tensor:
        """(positions, batch, d_model) → the same shape; outputs at padding are arbitrary."""
        directions = zip((self.forwards, self.backwards), orders, strict=True)
        return torch.cat([order.leave(cell(order.enter(x))[0]) for cell, order in directions], dim=2)


@dataclass
class Read:
    """The outputs of a decoder layer: states and, with attention, context vectors and weights."""

    shown: Tensor  # (time, rows, d_model)
    state: Tensor  # the last state (carries, rows, d_model)
    context: Tensor | None = None  # (time, rows, d_model)
    weights: Tensor | None = None  # of the attention: (time, sources, hypotheses per source, positions) float32


class DecoderLayer(nn.Module):
    """A cell over the target; the first layer without attention reads the source's vector at every step."""

    def __init__(self, cell: str, d_model: int, *, reads: bool) -> None:
        super().__init__()
        self.cell = CELLS[cell](2 * d_model if reads else d_model, d_model)
        self.reads = reads

    def forward(self, x: Tensor, state: Tensor, memory: RecurrentMemory) -> Read:
        """Inputs (time, rows, d_model) and the state before them (carries, rows, d_model) → outputs."""
        vector = None
        if self.reads:
            vector = memory.vector.repeat_interleave(x.shape[1] // memory.batch, dim=0).expand_as(x)
            x = torch.cat((x, vector), dim=2)
        if isinstance(self.cell, nn.GRU):
            shown, last = self.cell(x, state)
            return Read(shown, last, vector)
        shown, carried = self.cell(x, (state[:1], state[1:]))
        return Read(shown, torch.cat(carried), vector)


class AttentiveLayer(nn.Module):
    """A cell with additive attention: before every step its state is the query, and the context is an input.

    Additive (Bahdanau et al. 2015, A.1.2): weights = softmax(score · tanh(query(state) + key(encoder state))).
    """

    def __init__(self, cell: str, d_model: int) -> None:
        super().__init__()
        self.cell = CELLS[cell](2 * d_model, d_model)  # for its weights: the steps are computed here
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model, bias=False)
        self.score = nn.Parameter(torch.empty(d_model))

    def forward(self, x: Tensor, state: Tensor, memory: RecurrentMemory) -> Read:
        """Inputs (time, rows, d_model) and the state before them (carries, rows, d_model) → outputs."""
        assert memory.keys is not None
        width = x.shape[2]
        of_inputs, of_state, inputs_bias, state_bias = self.cell.all_weights[0]
        of_token, of_context = of_inputs.split(width, dim=1)
        given = F.linear(x, of_token, inputs_bias)
        read_context = Product(of_context)
        ask = Product(torch.cat((of_state, self.query.weight)), torch.cat((state_bias, self.query.bias)))
        bars = attention.padding_bias(memory.layout, x.device)
        carried = state.unbind(0)
        shown, contexts, weights = [], [], []
        for token in given.unbind(0):
            read, question = ask(carried[0]).split((token.shape[1], width), dim=1)
            scores = (memory.keys[:, None] + question.view(memory.batch, -1, 1, width)).tanh() @ self.score
            found = torch.softmax(scores.float() if bars is None else scores.float() + bars[:, 0], dim=-1)
            context = (found.to(x.dtype) @ memory.states).flatten(0, 1)
            carried = step(token + read_context(context), read, carried)
            shown.append(carried[0])
            contexts.append(context)
            weights.append(found)
        return Read(torch.stack(shown), torch.stack(carried), torch.stack(contexts), torch.stack(weights))


def step(given: Tensor, read: Tensor, carried: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """One step of a GRU or LSTM as in torch, from the products of input and state, each (rows, gates × width)."""
    if len(carried) == CARRIES["lstm"]:
        i, f, g, o = (given + read).chunk(4, dim=1)
        c = torch.addcmul(f.sigmoid() * carried[1], i.sigmoid(), g.tanh())
        return o.sigmoid() * c.tanh(), c
    width = carried[0].shape[1]
    r, z = (given[:, : 2 * width] + read[:, : 2 * width]).sigmoid().chunk(2, dim=1)
    n = torch.addcmul(given[:, 2 * width :], r, read[:, 2 * width :]).tanh()
    return (torch.lerp(n, carried[0], z),)


class Product:
    """x @ weight.T + bias at every step, with the gradients of weight and bias computed once for all steps.

    torch would compute one product per step and add them up: in a loop of 16 steps of 48 rows, width 512, that is 13 %
    of the time of a training step.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.used: list[tuple[Tensor, Tensor]] = []  # in the backward: gradients of outputs, and inputs
        self.weight, self.bias = _Late.apply(weight, bias, self.used)

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, in) → (rows, out)."""
        return _Once.apply(x, self.weight, self.bias, self.used)


class _Late(torch.autograd.Function):
    """Identity of weight and bias, whose backward runs after those of all products with them."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, used: list[tuple[Tensor, Tensor]]) -> Any:
        ctx.used, ctx.biased = used, bias is not None
        return weight.view_as(weight), None if bias is None else bias.view_as(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        out, x = (torch.cat(every) for every in zip(*ctx.used, strict=True))
        ctx.used.clear()
        return out.T @ x, out.sum(0) if ctx.biased else None, None


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, used: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.used = used
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight = ctx.saved_tensors
        ctx.used.append((grads[0], x))
        return grads[0] @ weight, None, None, None


def reset_cell(cell: nn.GRU | nn.LSTM) -> None:
    """Initialise a cell gate by gate: orthogonal for states (Saxe et al. 2014), Glorot for inputs, biases 0.

    Biases of forget gates are 1 (Jozefowicz et al. 2015).
    """
    of_inputs, of_state, *biases = cell.all_weights[0]
    gates = GATES["lstm" if isinstance(cell, nn.LSTM) else "gru"]
    for gate in of_inputs.chunk(gates):
        nn.init.xavier_uniform_(gate)
    for gate in of_state.chunk(gates):
        nn.init.orthogonal_(gate)
    for bias in biases:
        nn.init.zeros_(bias)
    if isinstance(cell, nn.LSTM):
        nn.init.ones_(biases[0].chunk(gates)[1])
