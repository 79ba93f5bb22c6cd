"""Faults in Lightning: a schedule that steps by epochs, layers that nobody knows of, adapters without a gradient."""

from __future__ import annotations

import copy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from others import tasks, tutorial
from others.case import Cases
from others.hosts import Fitted
from others.tutorial import Lang, Seq2SeqTransformer
from torch import nn
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from third_parts import lit, nets, senses
from third_parts.kept import MADE

CASES = Cases()


@CASES.fault(
    "warm-up-by-epochs",
    "lightning",
    origin="ace-step/ACE-Step#198 (“the warmup will take 4000 epochs”), CUNY-CL/yoyodyne#243",
    what="a warm-up of 200 steps is returned without interval='step': Lightning steps it once an epoch",
    expected="the learning rate is still warming up at the end: it is stepped by epochs",
    accepts="new:warm-up-longer",
    gap=0.4,
)
def warm_up_by_epochs(broken: bool, seed: int, folder: Path) -> Fitted:
    """nn.Transformer in a LightningModule, AdamW and LambdaLR."""
    pairs = tasks.numbers(1500, seed)
    train, valid = tasks.split(pairs)
    langs = (Lang(pairs, 0), Lang(pairs, 1))

    def configure(module: Any) -> Any:
        optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 200))
        if broken:
            return [optimizer], [scheduler]
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    torch.manual_seed(seed)
    net = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    return lit.fitted(folder, lit.Translator(net, configure), (train, valid), langs, 10)


class ListTransformer(nn.Module):
    """A Transformer of PyTorch's layers. `known`: whether its layers are in ModuleLists."""

    def __init__(self, source: int, target: int, known: bool, width: int = 64) -> None:
        super().__init__()
        shape = {"d_model": width, "nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
        self.src_emb, self.tgt_emb = nn.Embedding(source, width), nn.Embedding(target, width)
        self.pos = tutorial.PositionalEncoding(width)
        encoder_layers = [nn.TransformerEncoderLayer(**shape) for _ in range(2)]
        decoder_layers = [nn.TransformerDecoderLayer(**shape) for _ in range(2)]
        self.encoder_layers = nn.ModuleList(encoder_layers) if known else encoder_layers
        self.decoder_layers = nn.ModuleList(decoder_layers) if known else decoder_layers
        self.head = nn.Linear(width, target)

    def forward(self, src: Any, tgt: Any) -> Any:
        """Logits (batch, time, size)."""
        pad = src == tasks.PAD
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1])
        memory, hidden = self.pos(self.src_emb(src)), self.pos(self.tgt_emb(tgt))
        for layer in self.encoder_layers:
            memory = layer(memory, src_key_padding_mask=pad)
        for layer in self.decoder_layers:
            hidden = layer(hidden, memory, tgt_mask=mask, memory_key_padding_mask=pad)
        return self.head(hidden)


@CASES.fault(
    "layers-in-a-python-list",
    "lightning",
    origin="pytorch/pytorch#666, #715 and #38639: modules in a Python list are not parameters",
    what="the layers of both sides stand in Python lists and not in ModuleLists: parameters() does not give them",
    expected="the layers are not trained: the module does not know of them",
    accepts="new:not-in-optimizer",
)
def layers_in_a_python_list(broken: bool, seed: int, folder: Path) -> Fitted:
    """A LightningModule around a network of PyTorch's layers; it says numbers backwards."""
    pairs = [(a, " ".join(reversed(b.split()))) for a, b in tasks.numbers(1800, seed, 3, 5)]
    train, valid = tasks.split(pairs)
    langs = (Lang(pairs, 0), Lang(pairs, 1))
    torch.manual_seed(seed)
    net = ListTransformer(len(langs[0]), len(langs[1]), known=not broken)
    module = lit.Translator(net, lambda module: torch.optim.Adam(module.parameters(), 1e-3))
    return lit.fitted(folder, module, (train, valid), langs, 10, gradient_clip_val=1.0)


@CASES.fault(
    "checkpointed-adapters-without-gradient",
    "lightning",
    origin="microsoft/LoRA#120, TinyLLaVA/TinyLLaVA_Factory#144, huggingface/peft#137: “None of the inputs have"
    " requires_grad=True. Gradients will be None”",
    what="LoRA on a frozen base whose layers are checkpointed re-entrantly: their inputs need no gradient, so the"
    " adapters inside get none, and only the output layer learns",
    expected="the adapters get no gradient: checkpointed layers have inputs without one",
    accepts="new:no-gradient-checkpointed",
    gap=0.3,
)
def checkpointed_adapters(broken: bool, seed: int, folder: Path) -> Fitted:
    """A Transformer from scratch that says numbers, with peft's LoRA, is to say them backwards."""
    from peft import LoraConfig, get_peft_model

    pairs = tasks.numbers(4000, seed, 2, 4)
    langs = (Lang(pairs, 0), Lang(pairs, 1))
    base = copy.deepcopy(_forwards(seed, pairs, langs))
    turned = [(a, " ".join(reversed(b.split()))) for a, b in tasks.numbers(1600, seed + 1, 2, 4)]
    train, valid = tasks.split(turned)
    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"]
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=targets, modules_to_save=["generator"])
    net = get_peft_model(base, lora)
    net.get_base_model().call = partial(checkpoint, use_reentrant=broken)
    module = lit.Translator(net, lambda module: torch.optim.AdamW(module.parameters(), 5e-3))
    return lit.fitted(folder, module, (train, valid), langs, 8)


def _forwards(seed: int, pairs: Any, langs: Any) -> nn.Module:
    """Somebody's pretrained model; trained once a process."""
    if (seed, "forwards") not in MADE:
        torch.manual_seed(seed)
        net = nets.ScratchTransformer(len(langs[0]), len(langs[1]))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for src, tgt in tutorial.forever(pairs, langs, 400, seed):
            loss = senses.masked_loss(net(src, tgt[:, :-1]), tgt[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        MADE[seed, "forwards"] = net
    return MADE[seed, "forwards"]
