"""Shared code of the families for reading and writing Hugging Face folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from sourcewise.errors import NotFinite, RequestError, tell
from sourcewise.model.weights.peft_folders import refuse_adapted
from sourcewise.model.weights.weight_files import Weights, counted, some

WRAPPED = ("_orig_mod.", "module.", "model.", "_orig_mod.module.", "module._orig_mod.", "_forward_module.")
Pairs = Iterable[tuple[str, Tensor]]  # Hugging Face's name of a tensor, and our tensor or a part of it
# Names of the matrices of embeddings and head; often one is stored for all of them.
SHARED = "shared.weight"
EMBEDDED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
HEAD = "lm_head.weight"
BIAS = "final_logits_bias"  # bias of the logits; -inf suppresses a token
# Tensors that old versions stored beside the weights, unused.
SPARE = re.compile(r"(^|\.)(position_ids|version|masked_bias|attn\.bias|inv_freq|num_batches_tracked)$")


def tied(weights: Weights, order: Sequence[str], *, tie: bool = True) -> Weights:
    """The weights with every embedding under its own name, as in transformers after opening the folder.

    Stored matrices are kept, whether equal or not. Missing ones become `shared.weight`, or else the first stored one in
    `order`; without `tie` a missing head stays missing. `shared.weight` itself is unused, so it becomes the embedding
    of sources.
    """
    full = weights.without("")
    base = next((name for name in (SHARED, *order) if name in weights), None)
    if base is not None:
        for name in (*EMBEDDED, *((HEAD,) if tie else ())):
            if name not in weights:
                full[name], full.files[name] = weights[base], weights.file(base)
        full[SHARED], full.files[SHARED] = full[EMBEDDED[0]], full.file(EMBEDDED[0])
    return full


def tell_untied(weights: Weights) -> None:
    """Warn of a stored head that differs from the embedding although the configuration ties them."""
    if HEAD in weights and not is_tied(weights):
        tell(f"{weights.file(HEAD)}: {HEAD} is not the embedding, though config.json ties them; it is used as stored")


def embeds_apart(weights: Weights) -> bool:
    """Whether sources and targets have different embeddings; `weights` are those of `tied`."""
    first, second = (weights.get(name) for name in EMBEDDED)
    return first is not None and second is not None and not _same(first, second)


def is_tied(weights: Weights) -> bool:
    """Whether the head equals the embedding; `weights` are those of `tied`."""
    head, embedding = weights.get(HEAD), weights.get(EMBEDDED[0])
    return head is not None and embedding is not None and _same(head, embedding)


def _same(first: Tensor, second: Tensor) -> bool:
    """Whether two matrices are equal up to the precision of their files."""
    return first is second or torch.equal(first.float(), second.float())


def check_embedding(weights: Weights, vocabulary: int | None, d_model: int | None, where: str) -> None:
    """Raises RequestError unless the embedding has the stated size; called before memory is allocated."""
    shared, stated = weights.get(EMBEDDED[0]), (vocabulary, d_model)
    if shared is not None and None not in stated and tuple(shared.shape) != stated:
        shapes = f"{tuple(shared.shape)}, the configuration says {stated}"
        raise RequestError(f"{where}: {SHARED} has the shape {shapes}")


def check(pairs: Pairs, weights: Weights, spare: Collection[str] = ()) -> None:
    """Raises RequestError unless these are a network's weights, tensor by tensor; `spare` ones may be unused.

    Warns of other parts (another task's head). An unknown tensor within a known part means another network.
    """
    expected = dict(pairs)
    left = [name for name in weights if name not in expected and name not in spare and not SPARE.search(name)]
    refuse_adapted(left, weights)
    missing = [name for name in expected if name not in weights]
    if missing:
        refuse_missing(missing, left, weights)
    for name, ours in expected.items():
        theirs = weights[name]
        if theirs.shape != ours.shape:
            refuse_shape(name, theirs.shape, ours.shape, weights)
        check_plain(name, theirs, weights)
    account_for(left, [*expected, *spare], weights)


def refuse_missing(missing: Sequence[str], left: Sequence[str], weights: Weights) -> None:
    """Raises RequestError with the names of missing tensors, and of those found instead."""
    more = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
    instead = f"; it holds others: {some(left)}" if left else ""
    held = set(left)
    prefix = next((p for p in WRAPPED if any({p + name, f"{p}model.{name}"} & held for name in missing)), "")
    if prefix:
        instead = f"; its names begin with {prefix!r}, a wrapper's: save the weights of the model within it"
    raise RequestError(f"{weights.file(missing[0])}: the tensor {missing[0]} is missing{more}{instead}")


def refuse_shape(name: str, theirs: Iterable[int], ours: Iterable[int], weights: Weights) -> None:
    """Raises RequestError for a tensor whose shape is not that of config.json, with a hint for empty ones."""
    found, wanted = tuple(theirs), tuple(ours)
    empty = "; DeepSpeed ZeRO-3 leaves such ones: convert its own files with zero_to_fp32.py" if 0 in found else ""
    problem = f"{name} has the shape {found}, the configuration says {wanted}"
    raise RequestError(f"{weights.file(name)}: {problem}{empty}")


def check_plain(name: str, tensor: Tensor, weights: Weights) -> None:
    """Raises RequestError for a weight in integers or 8 bits, which has no meaning without its scale."""
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        kind = str(tensor.dtype).removeprefix("torch.")
        problem = f"{name} is of {kind}: quantised weights are not opened yet"
        raise RequestError(f"{weights.file(name)}: {problem}; dequantise the model and save it again")


def account_for(left: Sequence[str], expected: Iterable[str], weights: Weights) -> None:
    """Warn of unused tensors; raises RequestError for those within a part that the network has."""
    known = [place for name in expected for place in _places(name)]
    within = [name for name in left if not set(_places(name)).isdisjoint(known)]
    if within:
        problem = f"{counted(within)} of no part of such a network; config.json is of another"
        raise RequestError(f"{weights.file(within[0])}: {problem}")
    if left:
        tell(f"{weights.file(left[0])}: {counted(left)} of other parts, which are not used")


def _places(name: str) -> list[str]:
    """The module of a tensor and its stack of layers, without the layer's number."""
    module, stack = re.sub(r"\d+", "#", name.rpartition(".")[0]), re.match(r"(.*?)\.\d+\.", name)
    return [place for place in (module, stack and f"{stack[1]}.#") if place]


def fill(pairs: Pairs, weights: Weights, spare: Collection[str] = ()) -> None:
    """Copy weights into our tensors. Raises RequestError as `check` and `take`."""
    every = list(pairs)
    check(every, weights, spare)
    take(every, weights)


@torch.no_grad()
def take(pairs: Pairs, weights: Weights) -> None:
    """Copy checked weights into our tensors. Raises RequestError for values that are not finite."""
    every = list(pairs)
    for name, ours in every:
        ours.copy_(weights[name])
    check_finite(every, weights)


def check_finite(named: Pairs, weights: Weights, buffers: Collection[str] = (), barring: Collection[str] = ()) -> None:
    """Raises NotFinite with the names of weights that are NaN or infinite.

    A bias of the logits (`barring`) may suppress tokens with -inf, and `buffers`, such as masks and bounds, may be
    infinite.
    """
    found = []
    for name, tensor in named:
        if tensor.is_floating_point() and not bool(tensor.sum(dtype=torch.float32).isfinite()):  # one quick pass
            bad = tensor.isnan()
            if name not in buffers:
                bars = name in barring or name.endswith(BIAS)
                bad |= tensor.isposinf() if bars else tensor.isinf()
            found += [(name, int(bad.sum()), tensor.numel())] if bad.any() else []
    if found:
        name, count, size = found[0]
        more = f", nor are {len(found) - 1:,} other tensors" if len(found) > 1 else ""
        cure = "take an earlier checkpoint, or save the model in fp32 or bf16 if it overflowed in fp16"
        raise NotFinite(f"{weights.file(name)}: {name} is not finite ({count:,} of {size:,} values){more}; {cure}")


def copies(pairs: Pairs) -> dict[str, Tensor]:
    """Our tensors under Hugging Face's names: contiguous fp32 copies on the CPU."""
    return {name: ours.detach().cpu().contiguous().clone().float() for name, ours in pairs}
