"""From what was seen in a step of a loop to how its batches are read, and to what the rules over wiring are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.diagnosis.measures.first_step import FirstStep, Weight
from sourcewise.diagnosis.measures.signals import FEWEST, LONG, Fading
from sourcewise.diagnosis.observed import Given, State, Uncounted, Zeros
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import MASK, TEXT
from sourcewise.integrations.finite import local
from sourcewise.integrations.loop.batches import Named, raw_tensors
from sourcewise.integrations.loop.explained import Made, begin_of
from sourcewise.integrations.loop.modules import Named as Modules
from sourcewise.integrations.loop.replay import changes
from sourcewise.integrations.loop.understood import (
    Asked,
    Role,
    Understood,
    cut_along,
    labels_of,
    pad_of,
    source_of,
    target_of,
    time_first,
)
from sourcewise.integrations.loop.watching import Call, Watching, side_of

WORDS: dict[Given, str] = {
    "logits": "logits, of which the loss is a cross-entropy",
    "log-probabilities": "log-probabilities, given to NLLLoss",
    "logarithm": "probabilities, whose logarithm is given to NLLLoss",
    "probabilities": "probabilities, given to NLLLoss as they are",
    "softmax": "outputs that are given to NLLLoss through a softmax",
    "again": "outputs that are given to a cross-entropy through a softmax",
    "scores": "outputs that are given to NLLLoss, although they are no log-probabilities",
    "twice": "probabilities, given to a cross-entropy as if they were logits",
    "squares": "outputs, of which the loss is squares",
    "away": "outputs, which the loss makes less likely where they are right",
    "binary": "outputs, of which the loss is a binary cross-entropy",
    "viewed": "outputs that are viewed, not turned, as (batch, vocabulary, time)",
    "axis": "outputs that are given to the loss through a softmax along another axis than the vocabulary's",
}


def given_tensors(calls: Sequence[Call]) -> Named:
    """What the modules were given that none of them gave: a batch, where nobody handed one over."""
    made = {id(tensor) for call in calls for tensor in call.outputs.values()}
    found: Named = {}
    for call in calls:
        for name, value in call.arguments.items():
            for path, tensor in raw_tensors(value, name):
                if id(tensor) not in made and not tensor.requires_grad and tensor.ndim > 1:
                    found.setdefault(path, tensor)
    return found


def understand(seen: Watching, named: Named, asked: Asked, modules: Modules, given: Given) -> Understood:
    """How batches are to be read. Raises RequestError where the outputs say no labels."""
    known = None if seen.partly else labels_of(seen.saying)
    if known is None and asked.logits is not None and asked.source is not None and asked.target is not None:
        return _as_asked(named, asked)
    if known is None:
        raise RequestError(why_unsaid(seen))
    said, labels, counts, by_token = known
    models = [module for _, module in modules]
    target = _asked(asked.target, named)
    if target is not None:  # it may begin with a start token that no label is
        target = target_of({target.path: named[target.path]}, labels, counts) or target
    target = target or target_of(named, labels, counts)
    source = _asked(asked.source, named) or source_of(named, target, seen.calls)
    pad, hides = pad_of(named, target, counts, models)
    if asked.pad is not None:
        pad, hides = asked.pad, True
    if asked.target is not None:
        turned: bool | None = False
    elif by_token or labels.ndim == 1:
        turned = by_token
    else:
        turned = time_first(None if source is None else source.of(named), labels, models, counts)
        turned = cut_along(target) if turned is None else turned
    if turned is None:
        raise RequestError("which axis of the batch is that of its examples; say source= and target= (batch, time)")
    understood = Understood(
        source,
        target,
        False if asked.source is not None else _source_turned(source, named, labels, turned),
        turned,
        pad,
        hides,
        labels.shape[0 if turned else -1],
        said.vocabulary,
        "",
    )
    object.__setattr__(understood, "words", _words(understood, named, seen.saying[-1], given))
    return understood


def padding_of(seen: Watching, named: Named, known: Understood, modules: Modules) -> int | None:
    """The id of labels that do not count in a step; None where all count, or that does not show."""
    said = labels_of(seen.saying)
    if said is None or known.labels is None or known.labels.path not in named or bool(said[2].all()):
        return None
    try:
        same = known.labels.of(named).shape == said[1].shape
    except (IndexError, RuntimeError):  # a batch of another shape
        return None
    pad, hides = pad_of(named, known.labels, said[2], [module for _, module in modules]) if same else (None, False)
    return pad if hides else None


def uncounted_in(seen: Watching, named: Named, known: Understood) -> tuple[int, int] | None:
    """Labels that are no padding and have no gradient, and of how many, the first of each row left out; None: unknown.

    The first may be a start token, which is never said.
    """
    said = labels_of(seen.saying)
    if said is None or known.labels is None or known.labels.path not in named or seen.partly:
        return None
    _, labels, counts, _ = said
    table = known.labels.of(named).to(labels.device)
    if table.shape != labels.shape or labels.ndim != 2:
        return None
    if known.labels_turned:
        table, counts = table.T, counts.T
    whole = named[known.labels.path].to(labels.device)
    whole = whole.T if known.labels_turned != (".T" in known.labels.words) else whole
    behind = whole[:, begin_of(known.labels.words) + table.shape[1] :]  # what the outputs are too short for
    pad = known.pad if known.pad is not None else int(whole[:, -1].mode().values)
    table, counts = table[:, 1:], counts[:, 1:]
    real, cut = (table >= 0) & (table != pad), int(((behind >= 0) & (behind != pad)).sum())
    return int((real & ~counts).sum()) + cut, int(real.sum()) + cut


def least_left(found: Sequence[tuple[int, int]]) -> Uncounted | None:
    """What is left out in every step that was looked at, of some; None where there is none."""
    known = [(left, of) for left, of in found if of]
    if not known:
        return None
    return Uncounted(min(left / of for left, of in known), len(known), *known[-1])


def _as_asked(named: Named, asked: Asked) -> Understood:
    """As whoever trains has said, alone."""
    source, target = _asked(asked.source, named), _asked(asked.target, named)
    assert source is not None and target is not None
    words = f"source is {source.path}, labels are {target.path}, (batch, time), as was said"
    return Understood(source, target, False, False, asked.pad, True, 0, 0, words)


def _asked(role: Role, named: Named) -> Made | None:
    """The tensor that whoever trains has named. Raises RequestError where the batch has none of that name."""
    if role is None:
        return None
    if role not in named:
        raise RequestError(f"the batch has no {role}; it has {', '.join(named) or 'no tensors'}")
    return Made(str(role), "", lambda t: t)


def _source_turned(source: Made | None, named: Named, labels: Tensor, turned: bool) -> bool:
    if source is None or labels.ndim < 2:
        return turned
    table, size = source.of(named), labels.shape[1 if turned else 0]
    fits = [table.shape[0] == size, table.shape[1] == size]
    return fits[1] if fits[0] != fits[1] else turned


def why_unsaid(seen: Watching) -> str:
    """Why nothing tells which labels the outputs are to say."""
    if not seen.calls:
        return "none of the modules was called in a training step; give doctor() the ones that the loop calls"
    return (
        "the gradient at no module's outputs is that of a loss of one label a token; "
        "say logits=lambda batch: ... (batch, time, vocabulary), and target="
    )


def _words(understood: Understood, named: Named, call: Call, given: Given) -> str:
    """In a line, how a loop's batches and outputs are understood."""
    sides = []
    for name, made, turned in (
        ("source is", understood.source, understood.source_turned),
        ("labels are", understood.labels, understood.labels_turned),
    ):
        if made is None:
            sides.append(f"{name.split()[0]} not found")
            continue
        table = named[made.path]
        rest = ", dims" if table.ndim > 2 else ""
        order = f"({'time, batch' if turned else 'batch, time'}{rest})" if table.ndim > 1 else ""
        sides.append(f"{name} {made.path}{made.words} {tuple(table.shape)} {order}".rstrip())
    pad = "no padding"
    if understood.pad is not None:
        pad = f"padding is {understood.pad}, {'not counted' if understood.hides_pad else 'counted'}"
    return f"{'; '.join(sides)}; {pad}; {call.name} gives {WORDS[given]}, over {understood.vocabulary} tokens"


# ── what the rules over wiring are given ──────────────────────────────────────────────────────────────────────────────


def first_step(weights: Sequence[Weight], nats: float) -> FirstStep:
    """A step as it was taken."""
    squares = [weight.size * weight.gradient**2 for weight in weights if weight.gradient is not None]
    return FirstStep(tuple(weights), nats, math.sqrt(sum(squares)))


def zeros_at_start(parts: Sequence[Any], modules: Modules) -> dict[str, tuple[Any, bool]]:
    """Matrices that learn and are all zeros: name → parameter, and whether it is an embedding of tokens."""
    tables = {id(m.weight) for _, module in modules for m in module.modules() if isinstance(m, torch.nn.Embedding)}
    return {
        info.name: (info.parameter, id(info.parameter) in tables)
        for info in parts
        if info.parameter.ndim > 1
        and info.parameter.requires_grad
        and info.parameter.numel()
        and not isinstance(info.parameter, torch.nn.parameter.UninitializedParameter)
        and not bool(local(info.parameter.detach()).any())
    }


def zeros_now(began: Mapping[str, tuple[Any, bool]], first: Sequence[Weight], steps: int) -> Zeros | None:
    """What became of them; `first` are all weights at the first step that was looked at."""
    if not began:
        return None
    others = [w for w in first if w.matrix and not w.frozen and w.gradient is not None and w.name not in began]
    starved = sum(w.gradient == 0 for w in others) / max(1, len(others))
    stuck = tuple(name for name, (parameter, _) in began.items() if not bool(local(parameter.detach()).any()))
    return Zeros(tuple(began), stuck, sum(table for _, table in began.values()), starved, steps)


def detached_from(seen: Watching, weights: Sequence[Weight]) -> str:
    """What a decoder reads of its encoder without the gradient, in words; "" where nothing shows that it does."""
    learning = [w for w in weights if w.part == "encoder" and not w.frozen]
    if not learning or any(weight.gradient for weight in learning):
        return ""
    calls = [*seen.calls, *seen.inner]
    encoders = [call for call in calls if _is_outermost(call, "encoder")]
    for call in calls:
        for name, value in call.arguments.items() if encoders and call is not encoders[0] else ():
            for path, tensor in raw_tensors(value, name):
                if tensor.is_floating_point() and not tensor.requires_grad and (of := _made_by(encoders[0], tensor)):
                    return f"{call.name} is given {of} of {encoders[0].name} detached, as {path}"
    outside = [name for name in seen.ungraded if side_of(name.rpartition(".")[2]) == "encoder"]
    if outside and not encoders and any(call.said for call in calls):
        return f"{min(outside, key=len)} is called without gradients, as within torch.no_grad()"
    return ""


def _made_by(call: Call, tensor: Tensor) -> str:
    """Which output of a call a tensor without a gradient is, whole, cut or turned; "" where it is none."""
    for path, out in call.outputs.items():
        if out.is_floating_point() and bool(tensor.any()) and changes(out, tensor):
            return f"output {path}" if len(call.outputs) > 1 else "the output"
    return ""


def state_left(seen: Watching, weights: Sequence[Weight]) -> State | None:
    """An output of the encoder that the loss does not depend on, where it should; None where nothing shows that."""
    if detached_from(seen, weights):
        return None  # it is handed over, without its gradient
    calls = [*seen.calls, *seen.inner]
    encoders = [call for call in calls if _is_outermost(call, "encoder")]
    decoders = [call for call in calls if _is_outermost(call, "decoder")]
    if not encoders or not decoders or not any(call.said for call in calls):
        return None
    call = encoders[0]
    outputs = {path: each for path, each in call.outputs.items() if each.is_floating_point() and each.requires_grad}
    learning = [w for w in weights if w.part == "encoder" and not w.frozen]
    if not outputs or not learning:
        return None
    left = {path: each for path, each in outputs.items() if path not in call.out_gradients}
    read = any(weight.gradient for weight in learning)
    stands = _standing_in(decoders[0], {tuple(each.shape) for each in left.values()})
    if not left or (read and stands is None) or (len(left) < len(outputs) and stands is None):
        return None
    chosen = next((p for p, t in left.items() if stands is not None and t.shape == stands.shape), next(iter(left)))
    begun = ""
    if stands is not None:
        what = "another tensor" if bool(stands.any()) else "zeros"
        begun = f"the decoder begins with {what} of that shape"
    name = f"output {chosen} of {call.name}" if len(call.outputs) > 1 else f"the output of {call.name}"
    return State(name, tuple(left[chosen].shape), begun, read)


def fading_of(seen: Watching, collation: Mapping[str, Tensor]) -> Fading | None:
    """Gradients along the longest sources of a batch of ids; None where these are short, or no embedding reads them."""
    source = collation.get(TEXT)
    if source is None or source.shape[1] < FEWEST:
        return None
    for call in (*seen.calls, *seen.inner):
        ids = call.given[0] if call.given and isinstance(call.given[0], Tensor) else None
        if call.sizes is None or ids is None or ids.ndim != 2:
            continue
        for turned in (False, True):
            table, sizes = (ids.T, call.sizes.T) if turned else (ids, call.sizes)
            if table.shape == source.shape and torch.equal(table.to(source.device), source):
                return _eighths(sizes.cpu(), collation[MASK].cpu())
    return None


def _eighths(sizes: Tensor, real: Tensor) -> Fading:
    """Of the longest sources (batch, time), from their beginnings to their ends."""
    sums, counts = np.zeros(8), np.zeros(8)
    for row in real.sum(1).argsort(descending=True)[:LONG].tolist():
        for eighth, part in enumerate(np.array_split(real[row].nonzero()[:, 0].numpy(), 8)):
            sums[eighth] += float(sizes[row][torch.from_numpy(part)].sum())
            counts[eighth] += len(part)
    return Fading(tuple(np.sqrt(sums / np.maximum(counts, 1)).tolist()), int(real.sum(1).max()))


def _is_outermost(call: Call, side: str) -> bool:
    words = call.name.split(".")
    sides = [side_of(word) for word in words]
    return side in sides and sides[-1] == side and sides.index(side) == len(sides) - 1 and not any(sides[:-1])


def _standing_in(call: Call, shapes: set[tuple[int, ...]]) -> Tensor | None:
    """What a decoder is given of such a shape that no module made."""
    for value in call.arguments.values():
        for _, tensor in raw_tensors(value):
            if tensor.is_floating_point() and tuple(tensor.shape) in shapes and not tensor.requires_grad:
                return tensor
    return None


def with_functions(named: Named, batch: Any, asked: Asked) -> tuple[Named, Asked]:
    """A batch whose source and target are given by functions, with their tensors under the names of these."""
    found = dict(named)
    roles: dict[str, Role] = {"source": asked.source, "target": asked.target}
    for name, role in roles.items():
        if role is not None and not isinstance(role, str):
            found[f"{name}="] = role(batch)
            roles[name] = f"{name}="
    return found, replace(asked, source=roles["source"], target=roles["target"])
