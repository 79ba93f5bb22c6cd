"""Any encoder–decoder of transformers as a Body: its own encoder, decoder and head, trained by our loop.

Slower than our own families: nothing is packed, all logits of a batch are in memory, and no native code computes.
What differs between its classes is in `differences.py`; folders are read and written in `weights/huggingface_folders`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.blocks.watching import self_attention_of_theirs
from sourcewise.model.families.differences import TOKENS, fixed_frames, input_of, of_type, shaped, shortened, width_of
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.network import Body, Seq2Seq
from sourcewise.model.parts import ParameterInfo, Stacks, belonging, largest_list
from sourcewise.model.weights.generation_config import Ids, Told, in_memory
from sourcewise.runtime.device import products_in

NO_END = -1  # the end of text of a model that has none
VECTORS = "inputs_embeds"


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rest of sourcewise asks of a body's configuration."""

    vocabulary: int  # ids that the encoder and the decoder embed
    d_model: int  # width of the encoder
    dropout: float
    tied: bool
    pad_id: int
    eos_id: int
    start_id: int


@dataclass
class HuggingFaceMemory:
    """The encoder's output; keys and values of cross-attention are in the model's cache."""

    kind: type[Any]  # class of the encoder's output, whose fields some decoders need
    fields: dict[str, Tensor]  # its tensors, (batch, …) each
    real: Tensor  # (batch, width) bool, false at padding, on the host
    heard: Tensor  # (batch, positions) the same of what the encoder read; some outputs have fewer positions

    @cached_property
    def mask(self) -> Tensor:
        """(batch, width) bool, false at padding, on the device."""
        return self.real.to(self.states.device, non_blocking=True)

    @cached_property
    def read(self) -> Tensor:
        """(batch, positions) int64 mask of what the encoder read, on the device."""
        return self.heard.to(self.states.device, non_blocking=True).long()

    @property
    def states(self) -> Tensor:
        """(batch, width, d_model)."""
        return self.fields["last_hidden_state"]

    @property
    def batch(self) -> int:
        """Number of sources."""
        return len(self.real)

    @property
    def layout(self) -> Layout:
        """Lengths of the sources in the output; a prompt's padding is on the left."""
        mask = self.real.numpy()
        return Layout(mask.sum(1), mask.shape[1], mask.argmax(1))

    def select(self, rows: Tensor) -> HuggingFaceMemory:
        """The memory of these sources."""
        there, here = rows.to(self.states.device, non_blocking=True), rows.cpu()
        fields = {name: tensor[there] for name, tensor in self.fields.items()}
        return HuggingFaceMemory(self.kind, fields, self.real[here], self.heard[here])

    def inputs(self, beams: int = 1) -> dict[str, Any]:
        """The arguments of the model for `beams` hypotheses per source."""
        whole = self if beams == 1 else self.select(torch.arange(self.batch).repeat_interleave(beams))
        return {"encoder_outputs": self.kind(**whole.fields), "attention_mask": whole.read}


class HuggingFaceCache:
    """transformers' cache with our `select`."""

    def __init__(self) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses (sources, hypotheses), in this order."""
        self.cache.batch_select_indices(rows.flatten())


class HuggingFaceBody(Body):
    """A `PreTrainedModel` with encoder and decoder; its decoder's states are the logits themselves."""

    joins = False
    parallel = False  # its dropout draws from torch's one stream
    mixed = True  # some tables of its classes are in fp32 whatever the weights are in

    def __init__(self, model: Any, ids: Ids) -> None:
        super().__init__()
        self.model, self.reads, self.dims = model, input_of(model), width_of(model)
        ends = ids.ends[0] if ids.ends else NO_END
        embedded, width = int(model.get_input_embeddings().num_embeddings), _width(model)
        self.config = Shape(embedded, width, _dropout(model.config), False, ids.pad, ends, ids.start)
        self.edges = bool(self.dims) and of_type(model.config).edges
        self.processor: dict[str, str] = {}  # files of its processor, name → text, of a model that reads sounds
        self.positions, self.spoken = _positions(model.config), spoken_ids(model)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What a training should tell of it."""
        kind, untrained = self.model.config.model_type, of_type(self.model.config).untrained
        reads = f"model type {kind}: its encoder reads some of the padding behind a source: what is in its batch counts"
        slower = f"model type {kind}: computed by transformers' own classes, slower than the families t5 and bart"
        return (
            slower,
            *([reads] if self.edges else []),
            *([f"model type {kind}: {untrained} are not trained"] if untrained else []),
        )

    @property
    def stacks(self) -> Stacks:
        """The layers of the encoder and of the decoder."""
        return stacks_of(self.model)

    def owners(self) -> Iterable[tuple[str, nn.Module | None]]:
        """See Body."""
        return owners_of(self.model)

    def embed(self, tokens: Tensor) -> Tensor:
        """See Body."""
        table = self.model.get_encoder().get_input_embeddings()
        return table(tokens)  # type: ignore[no-any-return]

    def read(self, tokens: Tensor, layout: Layout) -> HuggingFaceMemory:
        """See Body."""
        if self.dims:
            raise RequestError(f"a {self.model.config.model_type} reads {self.reads}, not text")
        return self._encoded({TOKENS: tokens}, torch.from_numpy(layout.mask))

    def encode(self, vectors: Tensor, layout: Layout) -> HuggingFaceMemory:
        """Vectors of the embedding's width, or the features that the encoder itself reads → memory."""
        vectors, mask = vectors.to(self.model.dtype), torch.from_numpy(layout.mask)
        if self.reads in (TOKENS, VECTORS):
            return self._encoded({VECTORS: vectors}, mask)
        features, mask = shaped(self.model, vectors, mask)
        return self._encoded({self.reads: features}, mask)

    def _encoded(self, given: dict[str, Tensor], read: Tensor) -> HuggingFaceMemory:
        """Inputs by name and the mask of what is read (batch, positions), on the host → memory."""
        maskless = of_type(self.model.config).maskless
        masked = {} if maskless else {"attention_mask": read.to(self.model.device, non_blocking=True).long()}
        with self._arithmetic():
            out = self.model.get_encoder()(**given, **masked, return_dict=True)
        fields = {name: each for name, each in out.items() if isinstance(each, Tensor) and len(each) == len(read)}
        width = out.last_hidden_state.shape[1]
        mask = torch.ones_like(read[:, :1]).expand(-1, width) if maskless else shortened(read, width)
        return HuggingFaceMemory(type(out), fields, read if width == read.shape[1] else mask, read)

    def spans(self, frames: int, count: int) -> list[tuple[int, int]]:
        """See Body; positions of padding are left out."""
        each = (fixed_frames(self.model) or frames) / count
        return [(int(i * each), min(frames, math.ceil((i + 1) * each))) for i in range(count) if i * each < frames]

    def bypass(self, vectors: Tensor, layout: Layout) -> HuggingFaceMemory:
        """See Body."""
        from transformers.modeling_outputs import BaseModelOutput

        mask = torch.from_numpy(layout.mask)
        return HuggingFaceMemory(BaseModelOutput, {"last_hidden_state": vectors.to(self.model.dtype)}, mask, mask)

    def new_cache(self, memory: HuggingFaceMemory, beams: int, steps: int) -> HuggingFaceCache:
        """An empty cache, which transformers enlarges by itself."""
        return HuggingFaceCache()

    def run_decoder(
        self,
        tokens: Tensor,
        memory: HuggingFaceMemory,
        cache: HuggingFaceCache | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary)."""
        with self._arithmetic():
            out = self.model(
                **self._inputs(tokens, memory, cache is not None),
                past_key_values=None if cache is None else cache.cache,
                return_dict=True,
            )
        return out.logits  # type: ignore[no-any-return]

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        """Within: products are computed in the precision of the training."""
        if self.products == torch.float32 or self.model.dtype != torch.float32:
            return contextlib.nullcontext()
        return products_in(self.model.device, self.products)

    def _inputs(self, tokens: Tensor, memory: HuggingFaceMemory, cached: bool) -> dict[str, Any]:
        """The arguments of a call of the model."""
        difference = of_type(self.model.config)
        if difference.changes:
            memory = memory.select(torch.arange(memory.batch))  # a copy
        given = memory.inputs(len(tokens) // memory.batch)
        if difference.asks_tokens and not cached:
            given[TOKENS] = given["attention_mask"]  # any ids: its encoder is not called
        return {**given, "decoder_input_ids": tokens, "use_cache": cached}

    def cross_attention(self, tokens: Tensor, memory: HuggingFaceMemory) -> Tensor | None:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, width) float32; None: the model has none."""
        usual = self.model.config._attn_implementation
        with quiet(), self._arithmetic():
            self.model.set_attn_implementation("eager")  # the only one that returns weights
            try:
                out = self.model(
                    **self._inputs(tokens, memory, False),
                    output_attentions=True,
                    return_dict=True,
                )
            finally:
                self.model.set_attn_implementation(usual)
        found = [weights.float() for weights in out.cross_attentions or () if weights is not None]
        if of_type(self.model.config).streams:
            time = tokens.shape[1]
            found = [scores[:, :, time : 2 * time].softmax(-1) for scores in found]
        return torch.stack(found) if found else None

    def watched(self) -> contextlib.AbstractContextManager[dict[str, list[Tensor]]]:
        """See Body."""
        return self_attention_of_theirs(self.model)

    @property
    def output_matrix(self) -> None:  # type: ignore[override]
        """None: the head is the model's own, and need not be one product."""
        return None

    def enlarge(self, rows: int) -> HuggingFaceBody:
        """See Body."""
        if self.spoken != self.config.vocabulary:
            raise RequestError("data.add_tokens: this model embeds sources and targets apart; it takes no new tokens")
        self.model.resize_token_embeddings(rows, mean_resizing=False)
        config = self.config
        ids = Ids(config.start_id, (config.eos_id,), config.pad_id)
        return HuggingFaceBody(self.model, ids).train(self.training)


class HuggingFaceNetwork(Seq2Seq):
    """A `PreTrainedModel` with encoder and decoder as a Network."""

    body: HuggingFaceBody

    def __init__(
        self, model: Any, ids: Ids | None = None, told: Told | None = None, kind: str = "a model of Hugging Face"
    ) -> None:
        """`ids` and `told` are the settings of the model's folder; by default those of the model itself."""
        said = told or Told(settings_of(getattr(model, "generation_config", None)), "generation_config")
        ids = ids or in_memory(said.settings, settings_of(model.config), spoken_ids(model))
        super().__init__(HuggingFaceBody(model, ids))
        self.kind, self.spoken = kind, self.body.spoken  # what it is, in words
        # Forced first and last tokens (mBART's language), and suppressed ones (Marian's padding).
        self.defaults = GenerationDefaults.read(said.settings, said.file, ids.ends, self.spoken)

    @property
    def model(self) -> Any:
        """The model of transformers."""
        return self.body.model

    def speak(self, language: str) -> None:
        """Let its generation settings name a language's token and transcription, as Whisper's `generate` takes them."""
        for name, value in {"language": language, "task": "transcribe", "forced_decoder_ids": None}.items():
            setattr(self.model.generation_config, name, value)


def stacks_of(model: Any) -> Stacks:
    """The layers of encoder and decoder of a transformers model."""
    return {"encoder": largest_list(model.get_encoder()), "decoder": largest_list(model.get_decoder())}


def owners_of(model: Any) -> list[tuple[str, nn.Module | None]]:
    """The modules that make up each part of a transformers model; a shared one belongs to its first part."""
    stacks = (model.get_encoder(), model.get_decoder())
    tables = [model.get_output_embeddings()]
    for each in (model, *stacks):
        with contextlib.suppress(AttributeError, NotImplementedError):
            table = each.get_input_embeddings()  # a convolution, where an encoder reads sounds or images
            tables += [table] if any(isinstance(m, nn.Embedding) for m in table.modules()) else []
    return [*(("embedding", table) for table in tables), *zip(("encoder", "decoder"), stacks, strict=True)]


def parts_of(model: Any) -> Iterator[ParameterInfo]:
    """Every parameter of a transformers model, also inside a wrapper, with its part."""
    return belonging(model, owners_of(model), stacks_of(model))


def is_computed(model: Any, name: str) -> bool:
    """Whether a tensor is computed by transformers, such as sinusoids, and not learned."""
    return "Sinusoidal" in type(model.get_submodule(name.rpartition(".")[0])).__name__


def spoken_ids(model: Any) -> int:
    """Number of ids that the decoder of a transformers model can output."""
    head = model.get_output_embeddings()
    return len((model.get_input_embeddings() if head is None else head).weight)


def settings_of(config: Any) -> dict[str, Any]:
    """The settings of a transformers configuration that are not None."""
    return {} if config is None else {key: value for key, value in config.to_dict().items() if value is not None}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within: no progress bars and no warnings of transformers."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _positions(config: Any) -> int | None:
    """The maximum length of source and target by a model's positions; None: any length."""
    names = ("max_position_embeddings", "max_encoder_position_embeddings", "max_decoder_position_embeddings")
    places = (config, getattr(config, "encoder", None), getattr(config, "decoder", None))
    counts = [getattr(place, name, None) for place in places for name in (*names, "max_target_positions")]
    return min((count for count in counts if isinstance(count, int) and count > 0), default=None)


def _width(model: Any) -> int:
    """Width of a model's encoder."""
    own = getattr(model.config, "encoder", None) or model.config  # of a pair, that of its encoder
    return _width_in(own) or _width_in(model.get_encoder().config) or _unknown_width(model)


def _width_in(config: Any) -> int:
    """The width that a configuration names; 0: none."""
    sections = (config, getattr(config, "text_config", None))
    found = (getattr(each, name, None) for each in sections for name in ("hidden_size", "d_model"))
    return int(next((width for width in found if width), 0))


def _unknown_width(model: Any) -> int:
    raise RequestError(f"a {model.config.model_type}: the width of its encoder is not known")


def _dropout(config: Any) -> float:
    """Dropout of a model's layers; 0 if it has none, or another name for it."""
    sections = (config, getattr(config, "encoder", None))
    names = ("dropout_rate", "dropout", "hidden_dropout_prob")
    found = (getattr(each, name, None) for each in sections for name in names)
    return float(next((rate for rate in found if isinstance(rate, float)), 0.0))
