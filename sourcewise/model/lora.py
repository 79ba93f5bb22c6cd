"""LoRA (Hu et al. 2021): low-rank adapters, let into a network from outside; its layers know nothing of them.

In a network of ours an adapted matrix is W + scale · B A for everybody who reads it: native code, traces, folders. In a
model of transformers peft's own layers take the place of the linear ones. Both are saved as peft saves them, under the
names of transformers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sourcewise.config import LoraConfig
from sourcewise.errors import RequestError, tell
from sourcewise.model.families import registry
from sourcewise.model.inputs.source_encoder import SourceEncoder, encoder_of
from sourcewise.model.network import Seq2Seq
from sourcewise.model.parts import size
from sourcewise.model.weights.adapters import PREFIX, peft, targeted, write_adapter
from sourcewise.model.weights.weight_files import some
from sourcewise.native.training.draws import uniform

ALL = "all-linear"  # peft's word for every linear module but the head
PATTERN = re.compile(r"[\\^$*+?()\[\]{}|]")  # a target with one of these is a regular expression


class LowRank(nn.Module):
    """W → W + scale · B A, for some of the rows of W: those of one projection of transformers each."""

    def __init__(self, weight: Tensor, rows: dict[str, slice], rank: int, scale: float, dropout: float) -> None:
        """`rows` has the rows of each projection by its name; B is zero at first."""
        super().__init__()
        self.names, self.rows = list(rows), list(rows.values())
        self.scale, self.dropout = scale, dropout
        inputs, device = weight.shape[1], weight.device
        self.down = nn.ParameterList(torch.empty(rank, inputs, device=device) for _ in rows)  # A
        self.up = nn.ParameterList(torch.zeros(s.stop - s.start, rank, device=device) for s in rows.values())  # B
        for down in self.down:
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, inputs) → the same shape.

        Dropout leaves out inputs of the adapters, the same for all positions of a batch.
        """
        weight = weight.to(self.down[0].dtype)  # while a checkpoint is written, adapters are in fp32, their base is not
        pieces, at = [], 0
        for down, up, rows in zip(self.down, self.up, self.rows, strict=True):
            if self.training and self.dropout:
                kept = (uniform(down.shape[1:]) >= self.dropout).to(down.dtype) / (1 - self.dropout)
                down = down * kept.to(down.device, non_blocking=True)
            pieces += [weight[at : rows.start], torch.addmm(weight[rows], up, down, alpha=self.scale)]
            at = rows.stop
        return pieces[1] if len(weight) == len(pieces[1]) else torch.cat((*pieces, weight[at:]))

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors under the names of peft."""
        for name, down, up in zip(self.names, self.down, self.up, strict=True):
            yield f"{name}.lora_A.weight", down
            yield f"{name}.lora_B.weight", up


class Adapters(Protocol):
    """The adapters of a network in training."""

    note: str  # what is adapted, in words
    base: str  # digest of the base's weights
    bits: str  # how the base is quantised: 8bit, 4bit, or "" if it is not

    def save(self, folder: Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors as peft does."""

    def own(self) -> Iterable[nn.Parameter]:
        """The parameters that the base does not have."""


@dataclass
class OfOurs:
    """Adapters in a network of ours; `config` is peft's."""

    config: Any
    adapted: list[LowRank]
    note: str
    base: str = ""  # digest of the base's weights
    bits: str = ""  # a network of ours is never quantised

    def save(self, folder: Path) -> None:
        """See Adapters."""
        state = {PREFIX + name: tensor for each in self.adapted for name, tensor in each.state()}
        write_adapter(folder, self.config, state, self.base)

    def own(self) -> Iterable[nn.Parameter]:
        """See Adapters."""
        return (parameter for each in self.adapted for parameter in (*each.down, *each.up))


@dataclass
class OfPeft:
    """Adapters of peft in a model of transformers."""

    wrapper: Any  # of peft, around the model; outside of the network, whose names stay
    note: str
    base: str = ""  # digest of the base's weights
    bits: str = ""  # 8bit or 4bit: of a quantised base

    def save(self, folder: Path) -> None:
        """See Adapters."""
        config = self.wrapper.peft_config["default"]
        write_adapter(folder, config, peft().get_peft_model_state_dict(self.wrapper), self.base, self.bits)

    def own(self) -> Iterable[nn.Parameter]:
        """See Adapters."""
        named, mark = self.wrapper.named_parameters(), self.wrapper.base_model.prefix
        return (parameter for name, parameter in named if mark in name)


def adapt(network: Seq2Seq, options: LoraConfig, base: str, new: Collection[str] = ()) -> None:
    """Freeze a network but for new adapters and the parts of `options.save`; `base` is where its weights are from.

    `new` are the parts that the base does not have. Raises RequestError if no module is a target, or if a new part
    would not be saved.
    """
    lost = sorted({part for part in new if part not in options.save})
    if lost:
        problem = f"{lost[0]} is new, so it has to learn and to be saved with the adapters"
        raise RequestError(f"train.lora.save: {problem}; add {lost[0]} to it")
    network.requires_grad_(False)
    family = registry.of_body(network.body)
    if family is None:
        network.adapters = _of_peft(network.body, options, base)
    else:
        network.adapters = _of_ours(network.body, family, options, base)
    encoder = encoder_of(network)
    foreign = {id(p) for p in encoder.parameters()} if encoder is not None else set()
    for info in network.parts():
        if info.part in options.save and id(info.parameter) not in foreign:
            info.parameter.requires_grad_(True)
    learns = sum(p.numel() for p in network.parameters() if p.requires_grad)
    whole = size(network)
    tell(f"{network.adapters.note}; {learns:,} of {whole:,} parameters learn ({learns / whole:.1%})")


def adapt_encoder(encoder: SourceEncoder, how: str, options: LoraConfig) -> None:
    """Let an encoder learn `whole`, by `adapters`, or not (`frozen`). Raises RequestError if no module is a target."""
    if how != "adapters":
        encoder.settle(how)
        return
    if not options.rank:
        raise RequestError("model.source_encoder.train: adapters have the rank of train.lora.rank; set it")
    config = _config(options, encoder.name)
    config.task_type = None
    names = [name for name, m in encoder.model.named_modules() if isinstance(m, nn.Linear)]
    if options.targets == [ALL]:
        config.target_modules = sorted({name.split(".")[-1] for name in names})
    if not any(targeted(config, name) for name in names):
        raise _no_target(options, names)
    encoder.settle(how, peft().PeftModel(encoder.model, config))


def _of_ours(body: Any, family: registry.Family, options: LoraConfig, base: str) -> OfOurs:
    rows = _projections(body, family)
    every = {name: linear for linear, names in rows.items() for name in names}
    config = _config(options, base, None if options.targets != [ALL] else sorted({n.split(".")[-1] for n in every}))
    chosen = [name for name in every if targeted(config, name)]
    if not chosen:
        raise _no_target(options, every)
    adapted, scale = [], config.lora_alpha / config.r
    for linear, names in rows.items():
        own = {name: place for name, place in names.items() if name in chosen}
        if own:
            low = LowRank(linear.weight, own, options.rank, scale, options.dropout)
            parametrize.register_parametrization(linear, "weight", low)
            adapted.append(low)
    return OfOurs(config, adapted, _note(options, chosen))


def _projections(body: nn.Module, family: registry.Family) -> dict[nn.Linear, dict[str, slice]]:
    """The linear modules of a body but for its head, each with the rows of the projections of transformers in it."""
    linear = {m.weight.untyped_storage().data_ptr(): m for m in body.modules() if isinstance(m, nn.Linear)}
    head = getattr(body, "head", None)
    found: dict[nn.Linear, dict[str, slice]] = {}
    for name, tensor in family.named(body):
        module = linear.get(tensor.untyped_storage().data_ptr())
        if module is not None and module is not head and name.endswith(".weight"):
            start = tensor.storage_offset() // module.in_features
            found.setdefault(module, {})[name.removesuffix(".weight")] = slice(start, start + len(tensor))
    return found


def _of_peft(body: Any, options: LoraConfig, base: str) -> OfPeft:
    config = _config(options, base)
    if body.dims:
        config.task_type = None  # the wrapper of that type passes tokens only
    try:
        wrapper = peft().PeftModel(body.model, config)
    except ValueError as error:
        if "not found" not in str(error) and "No modules" not in str(error):
            raise
        linear = [name for name, m in body.model.named_modules() if isinstance(m, nn.Linear)]
        raise _no_target(options, linear) from None
    return OfPeft(wrapper, _note(options, wrapper.base_model.targeted_module_names))


def _config(options: LoraConfig, base: str, targets: list[str] | None = None) -> Any:
    """peft's configuration of these options."""
    given = options.targets
    plain = given[0] if len(given) == 1 and (given == [ALL] or PATTERN.search(given[0])) else given
    return peft().LoraConfig(
        r=options.rank,
        lora_alpha=options.strength,
        lora_dropout=options.dropout,
        target_modules=targets or plain,
        base_model_name_or_path=base,
        task_type="SEQ_2_SEQ_LM",
    )


def _no_target(options: LoraConfig, every: Collection[str]) -> RequestError:
    names = sorted({re.sub(r".*\.(?=[^\d.])", "", name) for name in every})
    asked = ", ".join(options.targets)
    return RequestError(f"train.lora.targets: {asked}: no module of this model is named so; it has {', '.join(names)}")


def _note(options: LoraConfig, chosen: Collection[str]) -> str:
    """What is adapted, and a warning if it is one side alone."""
    kinds = sorted({name.split(".")[-1] for name in chosen})
    return f"LoRA of rank {options.rank} on {len(chosen)} modules ({some(kinds)})"
