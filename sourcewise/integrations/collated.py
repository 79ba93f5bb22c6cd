"""Batches as Hugging Face's collators make them, under our own roof: a set laid out, and a network that reads it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED, Source
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset, Example
from sourcewise.errors import RequestError
from sourcewise.model.huggingface import HuggingFaceMemory, HuggingFaceNetwork
from sourcewise.training.state import random_states, restore_random_states

Collation = Mapping[str, Any]  # what a collator returns
TEXT, VECTORS, MASK, LABELS = "input_ids", "inputs_embeds", "attention_mask", "labels"


class CollatedNetwork(HuggingFaceNetwork):
    """A Hugging Face model that also reads `inputs_embeds`: features of the width of its embeddings."""

    def __init__(self, model: Any, dims: int = 0) -> None:
        super().__init__(model)
        self.dims = dims

    def encode(self, source: Source) -> HuggingFaceMemory:
        """Read texts or vectors."""
        if source.features is None:
            return super().encode(source)
        source = source.to(self.device)
        assert source.features is not None
        mask, vectors = source.frame_mask, source.features.to(next(self.model.parameters()).dtype)
        out = self.model.get_encoder()(inputs_embeds=vectors, attention_mask=mask.long(), return_dict=True)
        return HuggingFaceMemory(out.last_hidden_state, mask)


class Speaker:
    """Ids ↔ text by a Hugging Face tokenizer or processor; without one a text is its ids."""

    def __init__(self, processing: Any, network: HuggingFaceNetwork) -> None:
        self._processing = processing if hasattr(processing, "decode") else None
        self.pad_id, self.eos_id = network.pad_id, network.eos_id

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """A text without special tokens."""
        shown = [int(i) for i in ids if i >= 0 and i not in (self.pad_id, self.eos_id)]
        if self._processing is None:
            return " ".join(map(str, shown))
        return str(self._processing.decode(shown, skip_special_tokens=True)).strip()

    def text(self, token: int) -> str:
        """What a token says as text; nothing for special ones, those that were added, and without a tokenizer."""
        added = getattr(self._processing, "added_tokens_decoder", {})
        return "" if self._processing is None or token in added else self.decode([token])

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """Several texts."""
        return [self.decode(ids) for ids in batch]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        return [self.decode([i]) for i in ids]


class Collated(Encoded):
    """The examples of some collated batches as one set: sources and labels without their padding.

    Raises RequestError where the sources are neither token ids nor vectors, or no label counts.
    """

    def __init__(self, batches: Sequence[Collation], speaker: Speaker, name: str = "") -> None:
        rows = [row for batch in batches for row in _rows(batch, speaker.pad_id)]
        if not rows:
            raise RequestError("SourcewiseCallback: the data has no example with a label that counts")
        sources, self.targets = [source for source, _ in rows], [target for _, target in rows]
        dims = sources[0].shape[1] if sources[0].ndim == 2 else 0
        texts = [speaker.decode(target) for target in self.targets]
        said = ["" if dims else speaker.decode(source) for source in sources]
        examples = [
            Example(str(i), target, text, len(source) if dims else 0, f"example {i} of {len(rows)}")
            for i, (target, text, source) in enumerate(zip(texts, said, sources, strict=True))
        ]
        self.dataset = Dataset(examples, name, dims, (lambda i: sources[i]) if dims else None)
        self.tokenizer = speaker  # type: ignore[assignment]  # lays out with its pad_id and decodes: all a set needs
        self.sources = None if dims else sources
        self.max_frames = max(len(source) for source in sources)
        self.source_lengths = np.array([len(source) for source in sources], dtype=np.int64)
        self.target_lengths = np.array([len(target) for target in self.targets], dtype=np.int64)


def _rows(batch: Collation, pad_id: int) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Each example's source (ids, or vectors × dims) and the labels up to the last that counts."""
    source = batch.get(TEXT) if batch.get(TEXT) is not None else batch.get(VECTORS)
    labels = batch.get(LABELS)
    if not isinstance(source, Tensor) or not isinstance(labels, Tensor):
        keys = ", ".join(map(str, batch))
        raise RequestError(
            f"SourcewiseCallback: its rules read {TEXT} or {VECTORS}, and {LABELS}; the batch has {keys}"
        )
    mask = batch.get(MASK)
    real = torch.ones(source.shape[:2], dtype=torch.bool) if mask is None else mask.bool().cpu()
    held = source.cpu() != pad_id
    if source.ndim == 2 and 2 * int((held & real).sum()) < int(held.sum()):
        real = held  # a mask that hides most of what there is, is no mask of the padding
    for one, kept, of in zip(source.detach().cpu(), real, labels.detach().cpu(), strict=True):
        counted = (of != IGNORED).nonzero()
        if len(counted) and kept.any():
            target = of[: int(counted[-1]) + 1].tolist()
            yield (one[kept].float() if one.ndim == 2 else one[kept]).numpy(), target


def collate_some(loader: Any, examples: int, size: int, *, by_length: bool = True) -> list[Collation]:
    """So many examples of a DataLoader's data, spread over it, in batches of `size` at most, by its collator.

    Sources of similar length come together, with `by_length`. What the collator draws at random is drawn as if it had
    not been. Data that can only be read in order is read from its beginning.
    """
    dataset, collate = loader.dataset, loader.collate_fn
    with _draws_kept():
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            return _first(loader, examples)
        places = np.unique(np.linspace(0, len(dataset) - 1, min(examples, len(dataset))).astype(int))
        rows = [dataset[int(i)] for i in places]
        if by_length:
            rows.sort(key=_length)
        return [collate(list(rows[i : i + size])) for i in range(0, len(rows), size)]


def _first(loader: Any, examples: int) -> list[Collation]:
    found, count = [], 0
    for batch in loader:
        found.append(batch)
        count += len(batch[LABELS])
        if count >= examples:
            break
    return found


def _length(row: Any) -> int:
    source = row.get(TEXT, row.get(VECTORS)) if isinstance(row, Mapping) else None
    return 0 if source is None else len(source)


@contextmanager
def _draws_kept() -> Iterator[None]:
    """Within: whatever is drawn; afterwards all random states are as before."""
    kept = random_states(), np.random.get_state(), random.getstate()  # noqa: NPY002 - collators of others draw from it
    try:
        yield
    finally:
        restore_random_states(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])
