"""Our network: a body of any architecture and, for features, a bridge in front of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sourcewise.config import ModelConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.data.layout import Layout
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.blocks.watching import self_attention_of
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.inputs.bridges import Bridge
from sourcewise.model.loss import LinearCrossEntropy
from sourcewise.model.parts import PARTS, ParameterInfo, Stacks, belonging
from sourcewise.model.protocol import PLAIN, Aims, LossParts, Pass, Route, shift_right

if TYPE_CHECKING:
    from sourcewise.model.lora import Adapters


class Body(nn.Module):
    """The architecture of a network: vectors → memory, tokens and memory → states.

    The names of its children begin with their part, `embedding` (or `head`), `encoder` or `decoder`; `encoder` and
    `decoder` themselves are lists of blocks. Its `config` is a frozen dataclass with `vocabulary`, `d_model`,
    `dropout`, `tied` (one matrix for embedding and head) and the ids `pad_id`, `eos_id` and `start_id`.
    """

    config: Any
    embedding: nn.Embedding
    head: nn.Linear  # unless it is tied
    positions: int | None = None  # maximum length of source and target; None: any length
    joins = True  # whether memories and caches have `join`
    records = False  # whether it has `new_window`
    parallel = True  # whether several threads may compute it at once
    mixed = False  # whether its weights stay in fp32 in training, while its products are computed in `products`
    products = torch.float32
    notes: tuple[str, ...] = ()  # what a training should tell of it
    edges = False  # whether its encoder reads some of the padding behind a source
    dims = 0  # width of the features that it reads itself, without a bridge; 0: it reads tokens
    attends = True  # whether the decoder attends to the memory

    @property
    def stacks(self) -> Stacks:
        """The blocks of the encoder, if there is one, and of the decoder."""
        children: dict[str, Any] = dict(self.named_children())
        return {part: list(children[part]) for part in ("encoder", "decoder") if part in children}

    def owners(self) -> Iterable[tuple[str, nn.Module | None]]:
        """Part and module of the modules that make up each part; a shared one belongs to its first part."""
        children = [(name.replace("head", PARTS[0]), module) for name, module in self.named_children()]
        return [(part, module) for name, module in children for part in PARTS if name.startswith(part)]

    def embed(self, tokens: Tensor) -> Tensor:
        """Source tokens (batch, time) → vectors (batch, time, d_model)."""
        return self.embedding(tokens)

    def spans(self, frames: int, count: int) -> list[tuple[int, int]]:
        """The frames [start, stop) of each of `count` memory positions, of a body that reads features itself."""
        raise NotImplementedError

    def read(self, tokens: Tensor, layout: Layout) -> Any:
        """Source tokens (batch, time) and their layout → Memory, through the encoder."""
        return self.encode(self.embed(tokens), layout)

    def encode(self, vectors: Tensor, layout: Layout) -> Any:
        """Vectors (batch, width, d_model) and their layout → Memory, through the encoder."""
        raise NotImplementedError

    def bypass(self, vectors: Tensor, layout: Layout) -> Any:
        """The same without the encoder: the decoder attends to the vectors. Raises RequestError if that cannot be."""
        raise NotImplementedError

    def keep(self, memory: Any) -> Any:
        """The memory with all values for later decoding steps, computed once."""
        return memory

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        raise NotImplementedError

    def new_window(self, cache: Any, hypotheses: int, tokens: int) -> Any:
        """The next tokens of a cache as steps that are all the same work, if it `records`."""
        raise NotImplementedError

    def run_decoder(self, tokens: Tensor, memory: Any, cache: Any = None, layout: Layout | None = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → states (rows, time, width), ready for the head.

        If the memory is packed, a packed layout of the tokens gives only the states of its positions, (rows, width).
        """
        raise NotImplementedError

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor | None:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, width) float32; None: no attention."""
        raise NotImplementedError

    def watched(self) -> contextlib.AbstractContextManager[dict[str, list[Tensor]]]:
        """Within: the weights of self-attention of each layer are kept, by stack; empty where there is none."""
        return self_attention_of(self.stacks)

    @property
    def output_matrix(self) -> Tensor | None:
        """(vocabulary, width) weights of the projection to the vocabulary; None: states are the logits themselves."""
        return self.embedding.weight if self.config.tied else self.head.weight

    @property
    def output_bias(self) -> Tensor | None:
        """Bias (vocabulary,) of the logits; None if the family has none."""
        return None

    def enlarge(self, rows: int) -> Body:
        """A body with `rows` entries in its vocabulary, of which the new ones are initialised at random."""
        larger = type(self)(replace(self.config, vocabulary=rows))
        known = self.state_dict()
        for name, tensor in larger.state_dict().items():
            tensor[: len(known[name])].copy_(known[name])
        return larger.train(self.training)


def options_of(shape: type, model: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a recipe and its tokenizer say of a shape: the options of the same names, the vocabulary, and the ids."""
    same = {each.name: getattr(model, each.name) for each in fields(shape) if each.name in ModelConfig.model_fields}
    ids = {"pad_id": tokenizer.pad_id, "eos_id": tokenizer.eos_id, "start_id": tokenizer.pad_id}
    return {**same, **ids, "vocabulary": -(-tokenizer.size // 8) * 8}


class Seq2Seq(nn.Module):
    """A Network with a body; route `encoder`: bridge → encoder → decoder, `bypass`: bridge → decoder."""

    kind = "a network of ours"
    adapters: Adapters | None = None  # what is trained and saved in place of the body; see `lora.py`

    def __init__(self, body: Body, bridge: Bridge | None = None, route: Route = "encoder") -> None:
        super().__init__()
        self.body, self.bridge, self.cross_entropy = body, bridge, LinearCrossEntropy()
        self.route: Route = route
        self.start_id, self.eos_id, self.pad_id = body.config.start_id, body.config.eos_id, body.config.pad_id
        self.defaults = GenerationDefaults((self.eos_id,))
        self.vocabulary: int = body.config.vocabulary
        self.spoken, self.positions, self.joins = self.vocabulary, body.positions, body.joins

    def begin_with(self, start_id: int) -> None:
        """Let the decoder start with another token, such as a language."""
        self.start_id = start_id
        self.body.config = replace(self.body.config, start_id=start_id)

    @property
    def dims(self) -> int:
        """Width of the features; 0: sources are text."""
        return self.body.dims if self.bridge is None else self.bridge.dims

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.body.parameters()).device

    @property
    def attends(self) -> bool:
        """Whether the decoder attends to the memory, rather than reading a single vector."""
        return self.body.attends

    @property
    def stacks(self) -> Stacks:
        """The blocks of the encoder, if there is one, and of the decoder."""
        return self.body.stacks

    def parts(self) -> Iterator[ParameterInfo]:
        """Every parameter with its part."""
        owners = [*self.body.owners()]
        if self.bridge is not None:
            owners += [("features", self.bridge.encoder), ("bridge", self.bridge)]
        return belonging(self, owners, self.stacks)

    def encode(self, source: Source) -> Any:
        """Encode sources → Memory, for any number of later calls."""
        return self.body.keep(self.read(source))

    def read(self, source: Source) -> Any:
        """Encode sources → Memory for one pass of the decoder, whose layers compute keys and values themselves."""
        source = source.to(self.device)
        if source.features is None and source.tokens is not None:
            return self.body.read(source.tokens, source.token_layout)
        vectors, layout = self.embed(source)
        return self.body.bypass(vectors, layout) if self.bypassed(source) else self.body.encode(vectors, layout)

    def bypassed(self, source: Source) -> bool:
        """Whether a source bypasses the encoder."""
        return self.route == "bypass" and source.features is not None

    def spans(self, features: Tensor, count: int | None) -> list[tuple[int, int]] | None:
        """The frames [start, stop) of each of `count` memory positions of features (frames, dims).

        None if positions have no place in time.
        """
        if self.bridge is not None:
            return self.bridge.spans(features)
        return self.body.spans(len(features), count) if count else None

    def embed(self, source: Source) -> tuple[Tensor, Layout]:
        """Source → vectors (batch, width, d_model) and their layout: embeddings, or a prompt's and the bridge's."""
        if source.features is None:
            assert source.tokens is not None
            return self.body.embed(source.tokens), source.token_layout
        if self.bridge is None and self.body.dims:
            return source.features, source.frame_layout
        if self.bridge is None:
            raise ValueError("this network reads text: it has no bridge for features")
        slots, layout = self.bridge(source.features, source.frame_layout)
        if source.tokens is None:
            return slots, layout
        of_prompt, width = source.token_layout, source.tokens.shape[1]
        shift = of_prompt.width - of_prompt.lengths[:, None]  # its padding goes to the left, its end before the slots
        index = torch.from_numpy((np.arange(of_prompt.width) - shift) % of_prompt.width)
        vectors = self.body.embed(source.tokens.gather(1, index.to(source.tokens.device, non_blocking=True)))
        layout = Layout(of_prompt.lengths + layout.lengths, width + layout.width, width - of_prompt.lengths)
        return torch.cat((vectors, slots), dim=1), layout

    def new_cache(self, memory: Any, beams: int, steps: int) -> Any:
        """An empty cache for `memory.batch * beams` hypotheses of at most `steps` tokens."""
        return self.body.new_cache(memory, beams, steps)

    def decode(self, tokens: Tensor, memory: Any, cache: Any = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary)."""
        return self.logits(self.body.run_decoder(tokens, memory, cache))

    def logits(self, states: Tensor) -> Tensor:
        """Decoder states (..., width) → logits (..., vocabulary)."""
        matrix, bias = self.body.output_matrix, self.body.output_bias
        if matrix is None:
            return states
        logits = states @ matrix.T
        return logits if bias is None else logits + bias

    def cross_attention(self, tokens: Tensor, memory: Any) -> Tensor | None:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, width) float32; None: no attention."""
        return self.body.cross_attention(tokens, memory)

    def self_attention(self, source: Source, tokens: Tensor) -> dict[str, Tensor]:
        """Weights of the encoder and of the decoder, by stack: (layers, batch, heads, queries, keys) float32.

        Keys of the decoder are the `tokens` (batch, time), from the start token on.
        """
        with self.body.watched() as seen:
            self.body.run_decoder(tokens, self.read(source))
        return {stack: torch.stack(layers) for stack, layers in seen.items() if layers}

    def forward(self, batch: Batch, aims: Aims = PLAIN) -> LossParts:
        """The loss of a batch, with the complete computation of a training step."""
        memory, labels = self.read(batch.source), batch.labels.to(self.device, non_blocking=True)
        if aims.inputs is None:
            tokens = shift_right(labels, self.start_id, self.pad_id)
        else:
            tokens = aims.inputs(self, memory, batch.labels).to(self.device, non_blocking=True)
        states, matrix, flat = self.projection(tokens, memory, batch.labels, padded=bool(aims.terms))
        minimised, nats = self.cross_entropy(states, matrix, flat, aims.smoothing, aims.emphasis)
        given = Pass(batch, memory, tokens, labels, states, matrix)
        terms = {name: term(self, given) for name, term in aims.terms.items()}
        return LossParts(minimised, nats, batch.target_tokens, terms)

    def projection(
        self, tokens: Tensor, memory: Any, labels: Tensor, *, padded: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Tokens and labels (memory.batch, time) → states (rows, width), matrix (vocabulary, width) and labels (rows,).

        states @ matrix.T are the logits, for a loss that computes them in chunks; without a matrix the states are.
        Rows are the tokens one after another; without `padded`, padding may be left out, as in the memory.
        """
        layout = _of_labels(labels) if memory.layout.packed else None
        states = self.body.run_decoder(tokens, memory, layout=layout)
        if layout is not None and padded:
            states, layout = layout.pad(states), None
        if layout is None:
            states, labels = states.flatten(0, 1), labels.flatten()
        else:
            labels = layout.pack(labels)
        matrix, bias = self.body.output_matrix, self.body.output_bias
        if matrix is not None and bias is not None:  # as one more column of the matrix, so that the loss needs no bias
            matrix = torch.cat((matrix, bias[:, None]), dim=1)
            states = torch.cat((states, torch.ones_like(states[:, :1])), dim=-1)
        return states, matrix, labels


def _of_labels(labels: Tensor) -> Layout:
    """The packed layout of target positions up to the last counted label of each row; labels are (batch, time)."""
    counts = labels.numpy(force=True) != IGNORED
    last = (counts * np.arange(1, labels.shape[1] + 1)).max(1, initial=1)
    return Layout(last, labels.shape[1], packed=True)
