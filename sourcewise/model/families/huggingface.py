"""Adapter of Hugging Face seq2seq models to our Network protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.errors import RequestError
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.parts import ParameterInfo, Stacks, belonging, largest_list
from sourcewise.model.protocol import PLAIN, Aims, LossParts, Route, shift_right
from sourcewise.model.weights import interchange
from sourcewise.model.weights.generation_config import CONFIG, Ids, Search, Told, in_memory, read_told
from sourcewise.model.weights.interchange import BIAS, SPARE
from sourcewise.model.weights.weight_files import Weights, read_json, read_weights

REPORTED = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # we refuse the reported misfits
NO_END = -1  # the end of text of a model that has none


@dataclass
class HuggingFaceMemory:
    """Encoder output and mask; keys and values of cross-attention are in the model's cache."""

    states: Tensor  # (batch, width, d_model)
    mask: Tensor  # (batch, width) bool
    kind: type[Any]  # class of the encoder's output: mixtures of experts need fields that others lack

    @property
    def batch(self) -> int:
        """Number of sources."""
        return len(self.states)

    def select(self, rows: Tensor) -> HuggingFaceMemory:
        """The memory of these sources."""
        return HuggingFaceMemory(self.states[rows], self.mask[rows], self.kind)


class HuggingFaceCache:
    """transformers' cache with our `select`."""

    def __init__(self) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses (sources, hypotheses), in this order."""
        self.cache.batch_select_indices(rows.flatten())


class HuggingFaceNetwork(nn.Module):
    """A `PreTrainedModel` with encoder and decoder as a Network."""

    dims = 0  # text only
    route: Route = "encoder"
    attends = True
    joins = False

    def __init__(
        self, model: Any, ids: Ids | None = None, told: Told | None = None, kind: str = "a model of Hugging Face"
    ) -> None:
        """`ids` and `told` are the settings of the model's folder; by default those of the model itself."""
        super().__init__()
        self.model, self.kind = model, kind  # what it is, in words
        said = told or Told(_set(getattr(model, "generation_config", None)), "generation_config")
        ids = ids or in_memory(said.settings, _set(model.config), spoken_ids(model))
        self.start_id, self.pad_id = ids.start, ids.pad
        self.eos_id = ids.ends[0] if ids.ends else NO_END
        # Forced first and last tokens (mBART's language), and suppressed ones (Marian's padding).
        self.defaults = GenerationDefaults.read(said.settings, said.file, ids.ends, spoken_ids(model))
        self.positions = _positions(model.config)
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self.spoken = spoken_ids(model)  # differs from `vocabulary` in a Marian, or with a BERT as encoder of a GPT-2

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device(self.model.device)

    @property
    def stacks(self) -> Stacks:
        """The layers of the encoder and of the decoder."""
        return stacks_of(self.model)

    def parts(self) -> Iterator[ParameterInfo]:
        """Every parameter with its part, from the model's structure."""
        return (replace(info, name=f"model.{info.name}") for info in parts_of(self.model))

    def encode(self, source: Source) -> HuggingFaceMemory:
        """Encode text sources."""
        source = source.to(self.device)
        if source.tokens is None:
            raise RequestError("a Hugging Face model reads text; features need a model trained with a bridge")
        mask = source.token_mask
        out = self.model.get_encoder()(input_ids=source.tokens, attention_mask=mask.long(), return_dict=True)
        return HuggingFaceMemory(out.last_hidden_state, mask, type(out))

    def new_cache(self, memory: HuggingFaceMemory, beams: int, steps: int) -> HuggingFaceCache:
        """An empty cache, which transformers enlarges by itself."""
        return HuggingFaceCache()

    def decode(self, tokens: Tensor, memory: HuggingFaceMemory, cache: HuggingFaceCache | None = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary)."""
        beams = len(tokens) // memory.batch
        states, mask = memory.states, memory.mask.long()
        if beams > 1:
            states, mask = states.repeat_interleave(beams, 0), mask.repeat_interleave(beams, 0)
        out = self.model(
            encoder_outputs=memory.kind(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=tokens,
            past_key_values=None if cache is None else cache.cache,
            use_cache=cache is not None,
            return_dict=True,
        )
        return out.logits  # type: ignore[no-any-return]

    def cross_attention(self, tokens: Tensor, memory: HuggingFaceMemory) -> Tensor | None:
        """Tokens (memory.batch, time) → (layers, batch, heads, time, width) float32; None: the model has none."""
        usual = self.model.config._attn_implementation
        with _quiet():
            self.model.set_attn_implementation("eager")  # the only one that returns weights
            try:
                out = self.model(
                    encoder_outputs=memory.kind(last_hidden_state=memory.states),
                    attention_mask=memory.mask.long(),
                    decoder_input_ids=tokens,
                    output_attentions=True,
                    use_cache=False,
                    return_dict=True,
                )
            finally:
                self.model.set_attn_implementation(usual)
        found = out.cross_attentions
        return None if not found or found[0] is None else torch.stack(found).float()

    def forward(self, batch: Batch, aims: Aims = PLAIN) -> LossParts:
        """The cross-entropy of a batch, with label smoothing if asked for."""
        labels = batch.labels.to(self.device)
        logits = self.decode(shift_right(labels, self.start_id, self.pad_id), self.encode(batch.source))
        sums = partial(F.cross_entropy, logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
        nats = sums(reduction="sum")
        minimised = sums(reduction="sum", label_smoothing=aims.smoothing) if aims.smoothing else nats
        return LossParts(minimised, nats, batch.target_tokens)


def load_huggingface_network(
    folder: Path, weights: Weights | None = None, kind: str = "a model of Hugging Face"
) -> HuggingFaceNetwork:
    """A seq2seq model of any architecture from a folder. Raises RequestError if transformers cannot open it.

    No code from the folder is run, and no tensor is initialised at random. `weights` are those of the folder, if read
    already; `kind` names the model in words.
    """
    import transformers

    read = read_weights(folder, read_json(folder / "config.json")) if weights is None else weights
    try:
        with _quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model, found = _class_of(config).from_pretrained(
                None, config=config, state_dict=dict(read), dtype=torch.float32, **REPORTED
            )
            own = (folder / "generation_config.json").is_file()
            place: dict[str, Any] = {} if own else {"config_file_name": "config.json", "_from_model_config": True}
            read_generation = transformers.GenerationConfig.from_pretrained
            model.generation_config = read_generation(folder, local_files_only=True, **place)
    except Exception as error:
        raise RequestError(f"{folder}: transformers cannot open it as a seq2seq model ({_reason(error)})") from None
    _check(model, found, read)
    raw = read_json(folder / CONFIG)
    told = read_told(folder, raw)
    default, of_decoder = _set(model.config), _set(model.config.get_text_config(decoder=True))
    ids = Search(folder, told.settings, raw, spoken_ids(model), default, of_decoder).ids()
    return HuggingFaceNetwork(model, ids, told, kind).eval()


def _class_of(config: Any) -> Any:
    """The transformers class of a seq2seq model. Raises ValueError if there is none."""
    from transformers import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING as CLASSES

    if type(config) not in CLASSES:
        raise ValueError(f"a {config.model_type} is none that reads a text and writes one")
    return CLASSES[type(config)]


def _check(model: Any, found: dict[str, Any], weights: Weights) -> None:
    """Raises RequestError unless all weights of a model come from its files; warns of other tensors in them."""
    expected = model.state_dict()
    left = sorted(name for name in found["unexpected_keys"] if not SPARE.search(name))
    interchange.refuse_adapted(left, weights)
    for name, theirs, ours in sorted(found["mismatched_keys"]):
        interchange.refuse_shape(name, theirs, ours, weights)
    missing = sorted(name for name in found["missing_keys"] if not is_computed(model, name))
    if missing:
        interchange.refuse_missing(missing, left, weights)
    for name, tensor in weights.items():
        if name.endswith(("weight", "bias")) and name not in left and not SPARE.search(name):
            interchange.check_plain(name, tensor, weights)
    interchange.account_for(left, expected, weights)
    head = model.get_output_embeddings()
    buffers = [name for name, _ in model.named_buffers() if not name.endswith(BIAS)]
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    bias = getattr(head, "bias", None)
    barring = [name for name, tensor in named.items() if tensor is bias]
    interchange.check_finite(named.items(), weights, buffers, barring)


def is_computed(model: Any, name: str) -> bool:
    """Whether a tensor is computed by transformers, such as sinusoids, and not learned."""
    return "Sinusoidal" in type(model.get_submodule(name.rpartition(".")[0])).__name__


def stacks_of(model: Any) -> Stacks:
    """The layers of encoder and decoder of a transformers model."""
    return {"encoder": largest_list(model.get_encoder()), "decoder": largest_list(model.get_decoder())}


def parts_of(model: Any) -> Iterator[ParameterInfo]:
    """Every parameter of a transformers model, also inside a wrapper, with its part."""
    stacks = (model.get_encoder(), model.get_decoder())
    tables = [model.get_output_embeddings()]
    for each in (model, *stacks):
        with contextlib.suppress(AttributeError, NotImplementedError):
            table = each.get_input_embeddings()  # a convolution, where an encoder reads sounds or images
            tables += [table] if any(isinstance(m, nn.Embedding) for m in table.modules()) else []
    owners = [*(("embedding", table) for table in tables), *zip(("encoder", "decoder"), stacks, strict=True)]
    return belonging(model, owners, stacks_of(model))


def spoken_ids(model: Any) -> int:
    """Number of ids that the decoder of a transformers model can output."""
    head = model.get_output_embeddings()
    return len((model.get_input_embeddings() if head is None else head).weight)


def _set(config: Any) -> dict[str, Any]:
    """The settings of a transformers configuration that are not None."""
    return {} if config is None else {key: value for key, value in config.to_dict().items() if value is not None}


def _reason(error: Exception) -> str:
    """The reason of a transformers error in one line, in our words for known ones."""
    text = str(error).strip()
    if "trust_remote_code" in text:
        return "it needs code of its own, which is never run"
    return text.splitlines()[0][:200] if text else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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
    counts = [getattr(place, name, None) for place in places for name in names]
    return min((count for count in counts if isinstance(count, int) and count > 0), default=None)
