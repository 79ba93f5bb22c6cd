"""Faults in code: what one wrong line of a model or of a batch does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from planted.fault import Fault, Patch, around, fault, instead
from sourcewise.data.batches import IGNORED
from sourcewise.data.layout import Layout
from sourcewise.model.attention import MASKED

ANY = ("digits t5", "dates rnn", "dates t5", "fsdd t5")
ATTENDING = ("digits t5", "dates t5", "dates bart")  # Transformers with an encoder
CAUSAL = ("digits t5", "dates bart", "fsdd t5")
LABELLED = ("digits rnn", "dates t5")
PADDED = ("digits t5", "dates rnn", "dates t5", "dates bart")

# ── weights ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def times(factor: float) -> Callable[[Any], None]:
    """All weights, as they begin, times a factor."""

    def change(network: Any) -> None:
        for parameter in network.parameters():
            parameter.data *= factor

    return change


def frozen(part: str) -> Callable[[Any], None]:
    """A part, or "" for everything, was told not to learn."""

    def change(network: Any) -> None:
        for name, parameter in network.named_parameters():
            if name.removeprefix("body.").startswith(part):
                parameter.requires_grad_(False)

    return change


def no_answer(network: Any) -> None:
    """The cross-attention's output projection was initialised with zeros, and frozen so."""
    for block in network.body.decoder:
        block.cross.out.weight.data.zero_()
        block.cross.out.weight.requires_grad_(False)


def silent_bridge(network: Any) -> None:
    """The bridge's last norm multiplies by zero, as one that was made for fine-tuning and never opened."""
    for parameter in network.bridge.norm.parameters():
        parameter.data.zero_()
        parameter.requires_grad_(False)


def broken(network: Any) -> None:
    """One weight was saved as NaN."""
    next(iter(network.body.decoder.parameters())).data.view(-1)[0] = float("nan")


def forgetful(usual: Any, self: Any, module: Any, *args: Any, **kwargs: Any) -> None:
    """The optimizer was given the decoder's parameters and forgot the encoder's."""
    forgotten = [p for name, p in module.named_parameters() if ".encoder." in name]
    for parameter in forgotten:
        parameter.requires_grad_(False)
    usual(self, module, *args, **kwargs)
    for parameter in forgotten:
        parameter.requires_grad_(True)


# ── paths ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

MODEL = "sourcewise.model"


def detached(usual: Any, *args: Any, **kwargs: Any) -> Any:
    layout, states = usual(*args, **kwargs)
    return layout, states.detach()


def detached_states(usual: Any, self: Any, states: Tensor, layout: Layout, vector: Tensor) -> Any:
    return usual(self, states.detach(), layout, vector.detach())


def past_the_encoder(usual: Any, self: Any, vectors: Tensor, layout: Layout) -> Any:
    return self.bypass(vectors, layout)


def sigmoid(usual: Any, *args: Any) -> Tensor:
    found: Tensor = torch.sigmoid(usual(*args))
    return found


DETACHED = (
    around(f"{MODEL}.families.transformer.Transformer.run_encoder", detached),
    around(f"{MODEL}.families.recurrent.Recurrent._memory", detached_states),
)
BYPASSED = tuple(
    around(f"{MODEL}.families.{name}.encode", past_the_encoder)
    for name in ("transformer.Transformer", "recurrent.Recurrent")
)


def masks(bias: Callable[[Layout, Any], Tensor | None]) -> tuple[Patch, ...]:
    """Another way to make the bias of a padded layout, wherever it is used."""
    return (instead(f"{MODEL}.attention.padding_bias", bias),)


def unmasked(layout: Layout, device: Any) -> None:
    return None


def inverted(layout: Layout, device: Any) -> Tensor:
    mask = layout.on(device).mask
    return torch.zeros(mask.shape).masked_fill_(mask, MASKED)[:, None, None]


def blind(layout: Layout, device: Any) -> Tensor:
    return torch.full((len(layout), layout.width), MASKED)[:, None, None]


def seen_future(usual: Any, self: Any, time: int) -> Tensor:
    return torch.zeros(time, time, dtype=torch.bool)


def seen_next(usual: Any, self: Any, time: int) -> Tensor:
    return torch.ones(time, time, dtype=torch.bool).triu(2)


# ── labels ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def fed(shift: Callable[[Tensor, int, int], Tensor]) -> tuple[Patch, ...]:
    """Another way to make the decoder's input of labels, in training."""
    return tuple(
        instead(f"sourcewise.{home}.shift_right", shift) for home in ("model.network", "training.decoder_inputs")
    )


def unshifted(labels: Tensor, start_id: int, pad_id: int) -> Tensor:
    return labels.masked_fill(labels == IGNORED, pad_id)


def shifted_twice(labels: Tensor, start_id: int, pad_id: int) -> Tensor:
    tokens = labels.roll(2, dims=1)
    tokens[:, :2] = start_id
    return tokens.masked_fill(tokens == IGNORED, pad_id)


def started_wrongly(labels: Tensor, start_id: int, pad_id: int) -> Tensor:
    tokens = labels.roll(1, dims=1)
    tokens[:, 0] = 3
    return tokens.masked_fill(tokens == IGNORED, pad_id)


def labelled(change: Callable[[Tensor, Any], Tensor]) -> tuple[Patch, ...]:
    """Other labels in every batch; `change` is given them and the tokenizer."""

    def batch(usual: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        made = usual(self, *args, **kwargs)
        made.labels = change(made.labels, self.tokenizer)
        return made

    return (around("sourcewise.data.encoding.ExampleSet.batch", batch),)


def without_end(labels: Tensor, tokenizer: Any) -> Tensor:
    return labels.masked_fill(labels == tokenizer.eos_id, IGNORED)


def counted_padding(labels: Tensor, tokenizer: Any) -> Tensor:
    return labels.masked_fill(labels == IGNORED, tokenizer.pad_id)


def begun(labels: Tensor, tokenizer: Any) -> Tensor:
    return torch.cat((torch.full_like(labels[:, :1], tokenizer.pad_id), labels), dim=1)


def of_the_neighbour(labels: Tensor, tokenizer: Any) -> Tensor:
    """The collator sorted the targets and left the sources as they were."""
    return labels.roll(1, dims=0)


PATCHED_OPTIMIZER = around("sourcewise.training.optimizer.MasterAdamW.__init__", forgetful)

FAULTS: tuple[Fault, ...] = (
    fault("zero initialisation", "all weights begin at zero", "WIR002 WIR016", ANY, change=times(0.0)),
    fault(
        "tiny initialisation",
        "all weights begin 10,000 times too small",
        "WIR002 WIR013 WIR016",
        ("digits rnn", "dates bart"),
        change=times(1e-4),
    ),
    fault(
        "huge initialisation",
        "all weights begin 100 times too large",
        "WIR002",
        ("digits t5", "dates t5"),
        change=times(100.0),
    ),
    fault("NaN weight", "a weight is NaN from the start", "WIR001", ("dates decoder", "dates t5"), change=broken),
    fault(
        "frozen decoder",
        "requires_grad_(False) was left in for the decoder",
        "WIR003",
        ("digits t5", "dates t5"),
        change=frozen("decoder"),
    ),
    fault(
        "frozen everything",
        "requires_grad_(False) was left in for all",
        "WIR003",
        ("dates rnn", "fsdd t5"),
        change=frozen(""),
    ),
    fault(
        "frozen bridge",
        "the bridge stays random",
        "WIR003",
        ("digits t5", "fsdd t5"),
        options={"train.freeze": ["bridge"]},
    ),
    fault(
        "left out of the optimizer",
        "the optimizer never got the encoder's parameters",
        "WIR003",
        ANY,
        patches=(PATCHED_OPTIMIZER,),
    ),
    fault("encoder detached", "detach() behind the encoder", "WIR012 WIR003", ANY, patches=DETACHED),
    fault("true bypass", "what is decoded from never went through the encoder", "WIR004", ANY, patches=BYPASSED),
    fault(
        "cross-attention zeroed",
        "the projection behind the cross-attention is zero for good",
        "WIR011 WIR003",
        ATTENDING,
        change=no_answer,
    ),
    fault(
        "silent bridge",
        "the bridge's last gain is zero for good",
        "WIR011 WIR003",
        ("digits t5", "fsdd t5"),
        change=silent_bridge,
    ),
    fault(
        "cross-attention masked", "every slot of the source is masked", "WIR005 WIR011", ATTENDING, patches=masks(blind)
    ),
    fault(
        "mask inverted", "the mask hides what is real and shows the padding", "WIR005", PADDED, patches=masks(inverted)
    ),
    fault("padding unmasked", "no padding is masked", "WIR005", PADDED, patches=masks(unmasked)),
    fault(
        "no causal mask",
        "the decoder sees its whole target",
        "WIR006",
        CAUSAL,
        patches=(around(f"{MODEL}.families.transformer.Transformer.future", seen_future),),
    ),
    fault(
        "causal mask one off",
        "the decoder sees the token it has to say",
        "WIR006",
        CAUSAL,
        patches=(around(f"{MODEL}.families.transformer.Transformer.future", seen_next),),
    ),
    fault("labels unshifted", "the decoder reads the token it has to say", "WIR007", LABELLED, patches=fed(unshifted)),
    fault(
        "labels shifted twice",
        "collator and model both shift the labels",
        "WIR007",
        LABELLED,
        patches=fed(shifted_twice),
    ),
    fault(
        "start token in the labels", "labels begin with the start token", "WIR007", LABELLED, patches=labelled(begun)
    ),
    fault("end missing", "no label is the end of text", "WIR009", LABELLED, patches=labelled(without_end)),
    fault(
        "loss on padding",
        "padding is not -100 but the padding's id",
        "WIR008",
        ("digits rnn", "fsdd t5"),  # dates have targets of one length: nothing is padded
        patches=labelled(counted_padding),
    ),
    fault(
        "wrong start token",
        "training starts with another token than generation",
        "WIR010",
        LABELLED,
        patches=fed(started_wrongly),
    ),
    fault(
        "neighbour's labels",
        "the collator pairs each source with its neighbour's labels",
        "DAT003 SRC001 TRN005",
        ("digits rnn", "dates t5"),
        patches=labelled(of_the_neighbour),
    ),
    fault(
        "deep sigmoids",
        "a recurrent encoder of 30 layers, each behind a sigmoid",
        "WIR013",
        ("digits rnn", "multi30k rnn"),
        options={"model.encoder_layers": 30, "train.steps": 60},
        patches=(around(f"{MODEL}.blocks.recurrent_layers.EncoderLayer.forward", sigmoid),),
    ),
)
