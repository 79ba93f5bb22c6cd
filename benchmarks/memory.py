"""Memory of a training step on a GPU, computed without one.

    python benchmarks/memory.py [--only NAME] [--json FILE]

A whole step (forward, backward, clipping, AdamW; bf16 with fp32 masters) runs on a device that is not there: tensors
have shapes and types, but no values, so that all that is allocated and freed can be counted. Where torch has one kernel
for a GPU that keeps less than the operators it is written in (attention, RMSNorm, dropout), that kernel's own
bookkeeping is counted. Not counted: the context of the driver (about 0.5 GB), and what the allocator cannot join.
"""

from __future__ import annotations

import argparse
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from on_gpu.absent import NAME, OnAbsent, register
from on_gpu.shapes import SHAPES, TINY, Load, Shape, batches
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sourcewise.config import TrainConfig
from sourcewise.data.layout import Layout
from sourcewise.model import attention
from sourcewise.model.attention import Attention
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import Seq2Seq
from sourcewise.training.checkpointing import checkpoint_blocks
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part
from sourcewise.training.step import DeviceEngine

GB = 1e9
LOAD = Load(128, 512, 114)  # of nanoT5: 128 × (512 → 114)
UNEVEN = Load(128, 512, 114, fixed=False)
Row = tuple[Shape, Load, str]
LARGE = Shape(32128, 1024, 2816, 16, 24)
HOW = ("none", "light", "blocks")
KINDS = {"small": SHAPES["small"], "base": SHAPES["base"], "large": LARGE, "tiny": TINY}
ROWS: dict[str, Row] = {  # name → shape, batch, train.checkpointing
    **{f"{name}, {how}": (shape, LOAD, how) for name, shape in KINDS.items() if name != "tiny" for how in HOW},
    **{f"base, uneven, {how}": (SHAPES["base"], UNEVEN, how) for how in HOW},
    **{f"tiny, {how}": (TINY, Load(16, 128, 64), how) for how in HOW},
}


class Counted(OnAbsent):
    """Counts the bytes that are allocated on the device: now, and at most."""

    now = most = 0

    def __torch_dispatch__(self, function: Any, kinds: Any, given: Any = (), named: Any = None) -> Any:
        out = super().__torch_dispatch__(function, kinds, given, named)
        for each in tree_leaves(out):
            if isinstance(each, Tensor) and each.device.type == NAME:
                self._count(each.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        known = self.__dict__.setdefault("known", {})
        place, size = storage._cdata, storage.nbytes()
        if place in known:
            return

        def freed(_: Any) -> None:
            del known[place]
            self.now -= size

        known[place] = weakref.ref(storage, freed)
        self.now += size
        self.most = max(self.most, self.now)


def attend(
    q: Tensor, k: Tensor, v: Tensor, own: Layout, other: Layout, bias: Tensor | None, dropout: nn.Dropout
) -> Tensor:
    """What `scaled_dot_product_attention` takes on a GPU where a bias learns."""
    mask = None if bias is None else bias.to(k.dtype).expand(*q.shape[:3], k.shape[2])
    p = dropout.p if dropout.training else 0.0
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(q, k, v, mask, q.requires_grad, p, False, scale=1.0)[0]  # type: ignore[no-any-return]


class _Norm(torch.autograd.Function):
    """What torch's fused RMSNorm allocates: its inputs are kept, and a factor a row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, x.new_empty(x.shape[:-1], dtype=torch.float32))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, _ = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight)


def as_on_a_gpu(network: nn.Module) -> None:
    """The kernels of a GPU, where torch chooses them by the name of the device."""
    attention.CASTING.append(attend)
    for module in network.modules():
        if isinstance(module, Attention):
            module.backend = attend
        elif isinstance(module, nn.RMSNorm):
            module.forward = lambda x, m=module: _Norm.apply(x, m.weight)
        elif isinstance(module, nn.Dropout):
            module.forward = lambda x, m=module: torch.native_dropout(x, m.p, True)[0] if m.p and m.training else x


def computed(shape: Shape, load: Load, how: str, device: torch.device) -> dict[str, Any]:
    """The peak of a second step, and what is held between steps."""
    c = shape
    sizes = {"d_model": c.d_model, "d_kv": c.d_kv, "d_ff": c.d_ff, "heads": c.heads}
    layers = {"encoder_layers": c.layers, "decoder_layers": c.layers}
    config = TransformerConfig(c.vocabulary, **sizes, **layers, activation="gated-gelu", tied=False, scaled=False)
    made, mode = batches(shape, load), Counted(device)
    with torch.device("meta"):
        network = Seq2Seq(Transformer(config)).train()
    with mode:
        network.to(device)
        as_on_a_gpu(network)
        if how != "none":
            checkpoint_blocks(network, how)
        train = TrainConfig(precision="bf16")
        objective = Objective(network, train)
        optimizer = MasterAdamW(objective, train, torch.bfloat16, network.parts())
        engine = DeviceEngine(objective, optimizer)
        for _ in range(2):
            batch = next(made)
            mode.most = mode.now
            engine.gradients([[Part(lambda batch=batch: batch, 1)]], batch.target_tokens, 1.0)
            optimizer.step(1e-3)
            optimizer.zero_grad()
    parameters = sum(p.numel() for p in network.parameters())
    return {"parameters": parameters, "held_gb": mode.now / GB, "peak_gb": mode.most / GB}


def rows(wanted: list[str]) -> Iterator[dict[str, Any]]:
    """A row of the table each."""
    device = register()
    for name in wanted:
        shape, load, how = ROWS[name]
        batch = f"{load.examples} × ({load.source} → {load.target})"
        yield {
            "shape": name.rpartition(", ")[0],
            "checkpointing": how,
            "batch": batch,
            **computed(shape, load, how, device),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=ROWS, help="may be repeated; default: all but tiny")
    parser.add_argument("--json", type=Path, help="write the rows there, too")
    arguments = parser.parse_args()
    print("| T5 v1.1 | batch | checkpointing | parameters | held between steps | peak of a step, computed |")
    print("|---|---|---|---|---|---|")
    found = []
    for row in rows(arguments.only or [name for name in ROWS if not name.startswith("tiny")]):
        found.append(row)
        figures = f"{row['parameters'] / 1e6:,.0f} M | {row['held_gb']:.1f} GB | {row['peak_gb']:.1f} GB"
        print(f"| {row['shape']} | {row['batch']} | {row['checkpointing']} | {figures} |", flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
