"""How a loop's modules read and say held-out examples: source bits, and outputs where there is a way to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.config import EvaluationConfig
from sourcewise.data.batches import IGNORED, turned_rows
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.likelihood import Likelihood
from sourcewise.diagnosis.measures.objective import Form
from sourcewise.diagnosis.measures.turned import likelier
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.rules.outputs.out020_outputs_made_with_the_references import OutputsMadeWithTheReferences
from sourcewise.diagnosis.rules.outputs.out022_outputs_are_drawn_by_chance import DrawnByChance
from sourcewise.errors import RequestError
from sourcewise.evaluation.one_batch import measured
from sourcewise.evaluation.results import Row
from sourcewise.evaluation.source_bits import SourceBits
from sourcewise.integrations.collated import LABELS, MASK, TEXT, VECTORS, Collated, Speaker
from sourcewise.integrations.evaluated import judged_outputs, source_use
from sourcewise.integrations.loop.batches import Named, exchanged, tensors_of
from sourcewise.integrations.loop.data import speaker_of
from sourcewise.integrations.loop.replay import Replay
from sourcewise.integrations.loop.saying import said_beside
from sourcewise.integrations.loop.understood import Understood, of_target

FEW = 8  # examples, below which batches are looked at together with none


@dataclass(frozen=True)
class Reader:
    """Labels and their nats of any batch: by the calls of the loop made again, or by the function that was given."""

    understood: Understood
    form: Form | str
    replay: Replay | None
    logits: Callable[[Any], Tensor] | None
    device: torch.device

    def nats(self, batch: Any, named: Named, collation: dict[str, Tensor]) -> Tensor:
        """−ln p (batch, time) of the labels, 0 where they do not count."""
        labels = collation[LABELS].to(self.device)
        logs = self.logs(batch, named, labels)
        if logs.shape[:2] != labels.shape:
            raise RequestError(
                f"outputs {tuple(logs.shape)} for labels {tuple(labels.shape)}; say target= (batch, time)"
            )
        return F.nll_loss(logs.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none").view(
            labels.shape
        )

    def logs(self, batch: Any, named: Named, labels: Tensor) -> Tensor:
        """Log-probabilities (batch, time, vocabulary)."""
        table = self.table(batch, named, labels)
        return table.clamp(min=1e-12).log() if self.is_normal(table) else torch.log_softmax(table, -1)

    def said(self, batch: Any, named: Named) -> tuple[Tensor, Tensor]:
        """The same, and the labels (batch, time)."""
        labels = self.understood.collation(named)[LABELS].to(self.device)
        return self.logs(batch, named, labels), labels

    def is_normal(self, table: Tensor) -> bool:
        """Whether outputs are probabilities."""
        if self.logits is None:
            return self.form in ("logarithm", "probabilities", "twice")
        return bool((table >= 0).all()) and bool(((table.sum(-1) - 1).abs() < 1e-2).all())

    def table(self, batch: Any, named: Named, labels: Tensor) -> Tensor:
        """Outputs (batch, time, vocabulary) float32."""
        if self.logits is not None:
            found = self.logits(batch)
            return found.float()
        assert self.replay is not None
        size, width = labels.shape
        parts = self.replay.outputs({path: each.to(self.device) for path, each in named.items()}, width)
        if len(parts) > 1:
            return torch.stack([each.reshape(size, -1) for each in parts], 1).float()
        out = parts[0].float()
        if out.ndim == 2:
            shape = (width, size) if self.understood.labels_turned else (size, width)
            out = out.view(*shape, -1)
        if out.ndim == 3 and out.shape[-1] != self.understood.vocabulary:
            out = out.transpose(1, 2)
        return out.transpose(0, 1) if self.understood.labels_turned else out


def others(batch: Any, rows: Tensor, understood: Understood, size: int) -> tuple[Any, Named]:
    """The same batch with the sources of these rows, and all that goes with them: lengths, masks."""
    named = tensors_of(batch)
    target = understood.labels.path if understood.labels is not None else ""
    goal = named.get(target)
    source = understood.source.path if understood.source is not None else ""

    def change(path: str, tensor: Tensor) -> Tensor:
        turned = understood.source_turned and tensor.ndim > 1
        axis = 1 if turned else 0
        own = path == source
        if not own and (path == target or of_target(path, tensor, goal, understood.labels_turned)):
            return tensor
        if tensor.ndim <= axis or tensor.shape[axis] != size:
            return tensor
        return tensor.index_select(axis, rows.to(tensor.device))

    return exchanged(batch, change), {path: change(path, each) for path, each in named.items()}


@torch.no_grad()
def source_effect(reader: Reader, batch: Any, named: Named) -> float | None:
    """How far the outputs of a batch move with other sources, over the largest; None where no two sources differ."""
    collation = reader.understood.collation(named)
    labels, content = collation[LABELS].to(reader.device), collation[TEXT if TEXT in collation else VECTORS]
    rows = torch.arange(len(labels)).roll(1)
    if torch.equal(content[rows], content):
        return None
    usual = reader.table(batch, named, labels)
    other, tensors = others(batch, rows, reader.understood, len(labels))
    moved = reader.table(other, tensors or named, labels) - usual
    real = labels != IGNORED
    size = float((usual - usual.mean(-1, keepdim=True))[real].abs().max())
    return float(moved[real].abs().max()) / size if size > 0 else None


@torch.no_grad()
def bits_of(
    reader: Reader, batch: Any, named: Named, neighbour: tuple[Any, Named]
) -> tuple[SourceBits, dict[str, Tensor]]:
    """The source bits of a batch, and how it is read; of an example alone with the source of its neighbour.

    Raises RequestError where no two of its sources differ.
    """
    collation = reader.understood.collation(named)
    labels = collation[LABELS]
    if len(labels) == 1 and neighbour[0] is not batch:
        return _of_one(reader, batch, named, collation, neighbour[1]), collation
    content = collation[TEXT] if TEXT in collation else collation[VECTORS]

    def nats(rows: Tensor | None) -> Tensor:
        if rows is None:
            return reader.nats(batch, named, collation)
        other, tensors = others(batch, rows, reader.understood, len(labels))
        return reader.nats(other, tensors or named, collation)

    return measured(nats, labels.to(reader.device), [content], collation[MASK].cpu()), collation


def _of_one(reader: Reader, batch: Any, named: Named, collation: dict[str, Tensor], neighbour: Named) -> SourceBits:
    """The source bits of a batch of one example."""
    other = exchanged(batch, lambda path, tensor: _sided(reader.understood, path, tensor, named, neighbour))
    tensors = {path: _sided(reader.understood, path, each, named, neighbour) for path, each in named.items()}
    mine = reader.nats(batch, named, collation).double().sum(1).cpu().numpy()
    theirs = reader.nats(other, tensors, collation).double().sum(1).cpu().numpy()
    return SourceBits(mine, theirs, (collation[LABELS] != IGNORED).sum(1).double().cpu().numpy())


def _sided(understood: Understood, path: str, tensor: Tensor, named: Named, neighbour: Named) -> Tensor:
    goal = named.get(understood.labels.path) if understood.labels is not None else None
    own = understood.source is not None and path == understood.source.path
    kept = tensor is goal or of_target(path, tensor, goal, understood.labels_turned)
    return neighbour.get(path, tensor) if own or not kept else tensor


def turned_sources(
    understood: Understood, batch: Any, named: Named, collation: dict[str, Tensor], kept: int
) -> tuple[Any, Named] | None:
    """A batch with its sources turned from end to beginning, but for so many last places; None where it is the same."""
    path, lengths = understood.source.path if understood.source is not None else "", collation[MASK].sum(1)

    def change(name: str, tensor: Tensor) -> Tensor:
        if name != path or tensor.ndim < 2:
            return tensor
        rows = tensor.transpose(0, 1) if understood.source_turned else tensor
        out = turned_rows(rows, lengths, kept)
        return out.transpose(0, 1) if understood.source_turned else out

    tensors = {name: change(name, each) for name, each in named.items()}
    if path not in tensors or torch.equal(tensors[path], named[path]):
        return None
    return exchanged(batch, change), tensors


@torch.no_grad()
def turned_nats(reader: Reader, batch: Any, named: Named, collation: dict[str, Tensor]) -> np.ndarray | None:
    """Nats of each target of a batch with its source turned from end to beginning; None where that changes none."""

    def nats(kept: int) -> np.ndarray | None:
        other = turned_sources(reader.understood, batch, named, collation, kept)
        if other is None:
            return None
        return np.asarray(reader.nats(*other, collation).double().sum(1).cpu())

    return likelier(nats)


def evaluated(
    reader: Reader, batches: Sequence[tuple[Any, Named]], generate: Callable[[Any], Any] | None, *, trained: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    """Findings and figures of some batches; `trained` says whether the weights were trained before.

    Raises RequestError where none of them can be read.
    """
    found, collations, outputs, readable, problem = [], [], [], [], RequestError("the loader gives no batch")
    turned: list[np.ndarray | None] = []
    for place, (batch, named) in enumerate(batches):
        try:
            bits, collation = bits_of(reader, batch, named, batches[place - 1])
        except RequestError as cannot:
            problem = cannot
            continue
        found.append(bits)
        collations.append(collation)
        turned.append(turned_nats(reader, batch, named, collation))
        if generate is not None:
            outputs.append([*generate(batch)])
            readable.append((batch, named))
    if not found:
        raise problem
    columns = ("nats", "shuffled", "tokens")
    nats, shuffled, tokens = (np.concatenate([getattr(part, name) for part in found]) for name in columns)
    bits = SourceBits(nats, shuffled, tokens)
    own = [each.nats if other is None else other for each, other in zip(found, turned, strict=True)]
    other = None if all(each is None for each in turned) else np.concatenate(own)
    known = look(Likelihood(nats, tokens, other, reader.understood.vocabulary, trained))
    right = _right(reader, batches)
    speaker = speaker_of(collations, reader.understood.pad)
    encoded = Collated(collations, speaker, counted=True)
    references = [example.target for example in encoded.dataset]
    given = [each for some in outputs for each in some]
    if generate is None or len(given) != len(references):
        piece, figures = source_use(bits, references)
        return {"outputs": piece, "likelihood": known}, figures | right
    rows = [
        Row(example.id, example.source, example.target, said_by(output, speaker), True, *of)
        for example, output, of in zip(
            encoded.dataset, given, zip(nats.tolist(), shuffled.tolist(), map(int, tokens), strict=True), strict=True
        )
    ]
    pieces, figures = judged_outputs(encoded, rows, bits, EvaluationConfig())
    said = said_beside(lambda: (reader.said(*each) for each in readable), outputs)
    led = led_by_references(reader, readable, outputs, generate)
    drawn = "" if led or not readable else drawn_again(outputs[0], generate(readable[0][0]))
    asking = Asking(encoded, said=said, led=led, drawn=drawn)
    return pieces | {"likelihood": known, "saying": look(asking)}, figures | right


@torch.no_grad()
def _right(reader: Reader, batches: Sequence[tuple[Any, Named]]) -> dict[str, float]:
    """The share of tokens that are the likeliest behind the true ones, in percent; {} where that cannot be asked."""
    right = tokens = 0
    for batch, named in batches:
        try:
            logs, labels = reader.said(batch, named)
        except RequestError:
            continue
        counts = labels != IGNORED
        right, tokens = right + int(((logs.argmax(-1) == labels) & counts).sum()), tokens + int(counts.sum())
    return {"tokens_right_pct": 100 * right / tokens} if tokens else {}


def led_by_references(
    reader: Reader,
    batches: Sequence[tuple[Any, Named]],
    outputs: Sequence[Sequence[Any]],
    generate: Callable[[Any], Any],
) -> str:
    """In words, how many outputs of a batch are others with other references; "" where few are, or they vary anyhow."""
    known = reader.understood
    for (batch, named), usual in zip(batches, outputs, strict=True):
        goal = named.get(known.labels.path) if known.labels is not None else None
        if goal is None or goal.ndim != 2:
            return ""
        axis = int(known.labels_turned)
        if goal.shape[axis] < 2 or len(usual) != goal.shape[axis]:
            continue

        def change(path: str, tensor: Tensor, goal: Tensor = goal, axis: int = axis) -> Tensor:
            own = tensor is goal or of_target(path, tensor, goal, known.labels_turned)
            return tensor.roll(1, axis) if own and tensor.ndim == 2 else tensor

        texts = [[_plain(each) for each in generate(other)] for other in (batch, exchanged(batch, change))]
        before = [_plain(each) for each in usual]
        if texts[0] != before or len(texts[1]) != len(before):
            return ""
        others = sum(one != two for one, two in zip(before, texts[1], strict=True))
        if others < OutputsMadeWithTheReferences.share * len(before):
            return ""
        return f"with other references for the same sources {others} of {len(before)} outputs of a batch are others"
    return ""


def drawn_again(before: Sequence[Any], again: Sequence[Any]) -> str:
    """In words, how many outputs of a batch are others when they are made again; "" where few are."""
    one, two = ([_plain(each) for each in outputs] for outputs in (before, again))
    others = sum(a != b for a, b in zip(one, two, strict=False))
    if others < DrawnByChance.share * len(one) or not others:
        return ""
    return f"made again, {others} of {len(one)} outputs of a batch are others"


def _plain(output: Any) -> Any:
    return output if isinstance(output, str) else tuple(int(i) for i in output)


def said_by(output: Any, speaker: Speaker) -> str:
    """An output as text: one already, or ids up to the end of text."""
    if isinstance(output, str):
        return output
    ids = [int(i) for i in (output.tolist() if isinstance(output, Tensor) else output)]
    if speaker.eos_id in ids:
        ids = ids[: ids.index(speaker.eos_id)]
    return speaker.decode(ids)


def some_batches(loader: Iterable[Any], wanted: int, size_of: Callable[[Any], int]) -> list[Any]:
    """The first batches of a loader, as many as hold enough examples."""
    found, examples = [], 0
    for batch in loader:
        found.append(batch)
        examples += size_of(batch)
        if examples >= wanted:
            break
    return found
