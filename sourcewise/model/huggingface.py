"""Any Hugging Face seq2seq model under the one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.errors import RequestError
from sourcewise.model.protocol import shift_right


@dataclass
class HuggingFaceMemory:
    """Encoder output and mask; the cross-attention keys and values live in the cache of the model."""

    states: Tensor  # (batch, slots, d_model)
    mask: Tensor  # (batch, slots) bool

    @property
    def batch(self) -> int:
        """How many sources."""
        return len(self.states)

    def select(self, rows: Tensor) -> HuggingFaceMemory:
        """The memory of these sources."""
        return HuggingFaceMemory(self.states[rows], self.mask[rows])


class HuggingFaceCache:
    """transformers' own cache behind `select`."""

    def __init__(self) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses, in this order."""
        self.cache.batch_select_indices(rows)


class HuggingFaceNetwork(nn.Module):
    """Wraps a `PreTrainedModel` with an encoder and a decoder."""

    dims = 0  # text only

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        config = model.config
        generation = getattr(model, "generation_config", None)

        def first(name: str, default: int) -> int:
            for place in (config, generation):
                value = getattr(place, name, None)
                if value is not None:
                    return int(value[0] if isinstance(value, list) else value)
            return default

        self.pad_id, self.eos_id = first("pad_token_id", 0), first("eos_token_id", 1)
        self.start_id = first("decoder_start_token_id", first("bos_token_id", self.pad_id))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)

    def encode(self, source: Source) -> HuggingFaceMemory:
        """Read text sources."""
        source = source.to(self.device)
        if source.tokens is None:
            raise RequestError("a Hugging Face model reads text; features need a model trained with a bridge")
        mask = source.token_mask
        out = self.model.get_encoder()(input_ids=source.tokens, attention_mask=mask.long(), return_dict=True)
        return HuggingFaceMemory(out.last_hidden_state, mask)

    def new_cache(self, memory: HuggingFaceMemory, beams: int, steps: int) -> HuggingFaceCache:
        """An empty cache; transformers grows it by itself."""
        return HuggingFaceCache()

    def decode(self, tokens: Tensor, memory: HuggingFaceMemory, cache: HuggingFaceCache | None = None) -> Tensor:
        """Tokens (memory.batch × beams, time) → logits (rows, time, vocabulary)."""
        from transformers.modeling_outputs import BaseModelOutput

        beams = len(tokens) // memory.batch
        states, mask = memory.states, memory.mask.long()
        if beams > 1:
            states, mask = states.repeat_interleave(beams, 0), mask.repeat_interleave(beams, 0)
        out = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=tokens,
            past_key_values=None if cache is None else cache.cache,
            use_cache=cache is not None,
            return_dict=True,
        )
        return out.logits

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, int]:
        """Summed nats of the batch's target tokens, and how many."""
        labels = batch.labels.to(self.device)
        logits = self.decode(shift_right(labels, self.start_id, self.pad_id), self.encode(batch.source))
        nats = F.cross_entropy(
            logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        return nats, int((labels != IGNORED).sum())


def load_huggingface_network(folder: Path) -> HuggingFaceNetwork:
    """A seq2seq model of any architecture from a folder. Raises RequestError when transformers cannot."""
    from transformers import AutoModelForSeq2SeqLM

    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise RequestError(f"{folder}: transformers cannot open it as a seq2seq model ({reason})") from None
    return HuggingFaceNetwork(model).eval()
