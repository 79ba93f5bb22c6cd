"""Batches as Hugging Face's collators make them, under our own roof: a set laid out, and a network that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset, Example
from sourcewise.errors import RequestError
from sourcewise.model.families.huggingface import VECTORS, HuggingFaceNetwork

Collation = Mapping[str, Any]  # what a collator returns
NOBODY = -1  # no id
TEXT, MASK, LABELS, READ = "input_ids", "attention_mask", "labels", "decoder_input_ids"


class CollatedNetwork(HuggingFaceNetwork):
    """A Hugging Face model that also reads `inputs_embeds`: features of the width of its embeddings.

    Raises RequestError for a module of somebody's own, even around such a model.
    """

    def __init__(self, model: Any, dims: int = 0) -> None:
        if not hasattr(model, "get_output_embeddings"):
            raise RequestError(
                f"its model is a {type(model).__name__}, no model of transformers: of such a module only the data and "
                "the course are looked at here, more in a loop of one's own (sourcewise.doctor)"
            )
        super().__init__(model)
        if dims:
            self.body.dims, self.body.reads = dims, VECTORS
        said = getattr(model.get_output_embeddings(), "weight", None)  # where the decoder has a vocabulary of its own
        self.vocabulary = min(self.vocabulary, self.vocabulary if said is None else len(said))


class Speaker:
    """Ids ↔ text by a Hugging Face tokenizer or processor; without one a text is its ids."""

    def __init__(self, processing: Any, network: HuggingFaceNetwork) -> None:
        self._processing = processing if hasattr(processing, "decode") else None
        self.pad_id, self.eos_id = network.pad_id, network.eos_id

    @property
    def begins(self) -> int | None:
        """The id that it puts before every text, such as BERT's [CLS]; None where there is none, or it cannot say."""
        tokenizer: Any = getattr(self._processing, "tokenizer", self._processing)
        if not hasattr(tokenizer, "convert_ids_to_tokens"):
            return None
        try:
            ids = list(tokenizer("")["input_ids"])
        except Exception:  # somebody's own class, which reads nothing that is empty
            return None
        return int(ids[0]) if len(ids) > 1 else None

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


class Collated(ExampleSet):
    """The examples of some collated batches as one set: sources and labels without their padding.

    A label that does not count (-100) before one that does stays in its place; with `counted` only those that count are
    targets. `target_lengths` are what counts of each. Rows without a source or a label that counts are left out.

    Raises RequestError where the sources are neither token ids nor vectors, or no label counts.
    """

    def __init__(
        self, batches: Sequence[Collation], speaker: Speaker, name: str = "", *, counted: bool = False
    ) -> None:
        rows = [row for batch in batches for row in _rows(batch, speaker.pad_id, counted)]
        if not rows:
            raise RequestError(
                f"the data has no example with a label that counts: all are {IGNORED}, or sources are empty"
            )
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
        self.target_lengths = np.array([sum(i != IGNORED for i in ids) for ids in self.targets], dtype=np.int64)


def _rows(batch: Collation, pad_id: int, counted: bool) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Each example's source (ids, or vectors × dims) and the labels up to the last that counts."""
    source, real, counts = parts(batch, pad_id)
    for one, kept, of, which in zip(source, real, batch[LABELS].detach().cpu(), counts, strict=True):
        if which.any() and kept.any():
            target = (of[which] if counted else of[: int(which.nonzero()[-1]) + 1]).tolist()
            yield (one[kept].float() if one.ndim == 2 else one[kept]).numpy(), target


def parts(batch: Collation, pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of a batch, on the CPU: its sources, (batch, slots) where they are real, (batch, time) which labels count.

    Raises RequestError where the sources are neither token ids nor vectors, or both ids and matrices, such as a prompt
    and an image; or the labels no ids.
    """
    source = batch.get(TEXT) if batch.get(TEXT) is not None else batch.get(VECTORS)
    labels = batch.get(LABELS)
    keys = ", ".join(map(str, batch))
    if not isinstance(source, Tensor) or source.ndim != (3 if source.is_floating_point() else 2):
        raise RequestError(f"its sources are no token ids and no {VECTORS}; the batch has {keys}")
    if beside := [name for name, value in batch.items() if _is_of_matrices(str(name), value) and value is not source]:
        raise RequestError(f"its sources are {TEXT} and {', '.join(map(str, beside))} together")
    if not isinstance(labels, Tensor) or labels.ndim != 2 or labels.is_floating_point():
        raise RequestError(f"it has no {LABELS} (batch, time) of ids; the batch has {keys}")
    source, mask = source.detach().cpu(), batch.get(MASK)
    real = torch.ones(source.shape[:2], dtype=torch.bool)
    if isinstance(mask, Tensor) and mask.shape == real.shape:
        real = mask.bool().cpu()
    held = source != pad_id
    if source.ndim == 2 and 2 * int((held & real).sum()) < int(held.sum()):
        real = held  # a mask that hides most of what there is, is no mask of the padding
    return source, real, labels.detach().cpu() != IGNORED


def _is_of_matrices(name: str, value: Any) -> bool:
    """Whether a tensor of a batch holds features, an image or the like, which a source may consist of."""
    is_matrices = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 2
    return is_matrices and not name.startswith("decoder_") and "mask" not in name and "bias" not in name


def with_prompts(batch: Collation, pad_id: int) -> Collation | None:
    """The batch with labels also where only the decoder's input tells the token: a prompt that the loss leaves out.

    None where there is nothing of the kind: no `decoder_input_ids`, or they are the labels shifted, holes padded.
    """
    labels, read = batch.get(LABELS), batch.get(READ)
    if not isinstance(labels, Tensor) or not isinstance(read, Tensor) or read.shape != labels.shape:
        return None
    counts = labels != IGNORED
    holes = ~counts & (counts.flip(1).cumsum(1).flip(1) > 0)
    behind = torch.cat((read[:, 1:], read[:, :1]), dim=1)  # what is read after each label
    same = ((behind == labels) | ~counts)[:, :-1]
    shown = holes & (behind != pad_id) & (behind != IGNORED)
    if not same.all() or not shown.any():
        return None
    return {**batch, LABELS: torch.where(shown, behind, labels)}
