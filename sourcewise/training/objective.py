"""What is minimised: the decoder's cross-entropy, and where asked losses that help it to read its source."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.errors import RequestError
from sourcewise.model.blocks.memory import TransformerMemory
from sourcewise.model.loss import Emphasis, emphasised_cross_entropy
from sourcewise.model.network import Seq2Seq
from sourcewise.training.contrastive import contrastive
from sourcewise.training.decoder_inputs import decoder_inputs
from sourcewise.training.supervision import check_supervised, supervision


class Objective(nn.Module):
    """The network with the heads that only training needs."""

    weights: Tensor | None
    others: Callable[[list[int]], Source] | None = None  # sources of other examples, for a batch's; None: no contrast

    def __init__(
        self, network: Seq2Seq, train: TrainConfig, unknown: int | None = None, weights: Tensor | None = None
    ) -> None:
        """`unknown` stands for withheld words: the tokenizer's <unk>; where it has none, the padding does.

        `weights` (vocabulary,) float32 say how much each target token counts; None: all alike.
        """
        super().__init__()
        self.network, self.smoothing, self.ctc_weight = network, train.label_smoothing, train.ctc_weight
        self.register_buffer("weights", weights, persistent=False)
        self.focal = train.focal
        self.word_dropout = train.word_dropout
        self.guided, self.mass = (train.guided_attention, train.guided_width), train.attention_mass
        self.contrast, self.margin = train.contrastive, train.contrastive_margin
        check_supervised(network, train.guided_attention, train.attention_mass)
        self.unknown = network.pad_id if unknown in (None, network.eos_id) else unknown
        if self.ctc_weight:
            if "encoder" not in network.stacks:
                raise RequestError("train.ctc_weight: this network has no encoder whose output it could align; set 0")
            config = network.body.config
            self.ctc_head = nn.Linear(config.d_model, config.vocabulary)

    def forward(self, batch: Batch, reference: float = 1.0) -> tuple[Tensor, Tensor]:
        """(what to minimise, cross-entropy alone), both in nats summed over the batch's target tokens.

        `reference` is the share of the reference in what the decoder is fed.
        """
        network, labels = self.network, batch.labels.to(self.network.device)
        memory = network.encode(batch.source)
        tokens = decoder_inputs(network, memory, labels, reference, self.word_dropout, self.unknown)
        states, matrix, flat = network.projection(tokens, memory, labels, padded=self.contrast > 0)
        emphasis = None if self.weights is None and not self.focal else Emphasis(self.weights, self.focal)
        minimised, nats = emphasised_cross_entropy(states, matrix, flat, self.smoothing, emphasis)
        if self.ctc_weight:
            minimised = (1 - self.ctc_weight) * minimised + self.ctc_weight * self.ctc(memory, batch)
        if self.guided[0] or self.mass:
            minimised = minimised + supervision(network, tokens, memory, batch, labels, self.guided, self.mass)
        if self.contrast and self.others is not None:
            memory = network.encode(self.others(batch.indices))
            other, *_ = network.projection(tokens, memory, labels, padded=True)
            minimised = minimised + self.contrast * contrastive(states, other, matrix, labels, self.margin)
        return minimised, nats

    def ctc(self, memory: TransformerMemory, batch: Batch) -> Tensor:
        """−ln of the summed probability of all alignments of slots and targets (Graves et al. 2006), summed.

        As an auxiliary loss: Watanabe et al. 2017. Padding is the blank; targets longer than their slots count 0.
        """
        skip = 0 if batch.source.tokens is None or batch.source.features is None else batch.source.tokens.shape[1]
        logits = self.ctc_head(memory.states[:, skip:])
        log_p = torch.log_softmax(logits.float(), dim=-1).transpose(0, 1)
        labels = batch.labels.to(log_p.device)
        real = labels != IGNORED
        lengths = real.sum(1)
        return F.ctc_loss(
            log_p,
            labels.clamp(min=0),
            memory.mask[:, skip:].sum(1),
            lengths,
            blank=self.network.pad_id,
            reduction="sum",
            zero_infinity=True,
        )
