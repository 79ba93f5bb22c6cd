"""What is minimised: the decoder's cross-entropy, and where asked a CTC loss on the encoder output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.model.seq2seq import Seq2Seq
from sourcewise.model.transformer import TransformerMemory


class Objective(nn.Module):
    """The network with the heads that only training needs."""

    def __init__(self, network: Seq2Seq, train: TrainConfig, max_target: int) -> None:
        super().__init__()
        self.network, self.smoothing, self.ctc_weight = network, train.label_smoothing, train.ctc_weight
        if self.ctc_weight:
            config = network.transformer.config
            self.ctc_head = nn.Linear(config.d_model, config.vocabulary)
            self.order_head = nn.Linear(config.d_model, max_target + 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(what to minimise, cross-entropy alone), both in nats summed over the batch's target tokens."""
        memory = self.network.encode(batch.source)
        nats, _ = self.network.loss_from(memory, batch, self.smoothing)
        if not self.ctc_weight:
            return nats, nats.detach()
        aligned = self.ctc(memory, batch)
        return (1 - self.ctc_weight) * nats + self.ctc_weight * aligned, nats.detach()

    def ctc(self, memory: TransformerMemory, batch: Batch) -> Tensor:
        """−ln of the summed probability of all alignments of slots and targets (Graves et al. 2006), summed.

        As an auxiliary loss: Watanabe et al. 2017. Half of it aligns the tokens, half their numbers 1, 2, 3 …:
        a T5 decoder knows which token comes next, and finds a slot by its number where a token occurs twice.
        Padding is the blank; targets longer than their slots count 0.
        """
        skip = 0 if batch.source.tokens is None or batch.source.features is None else batch.source.tokens.shape[1]
        labels = batch.labels.to(memory.mask.device)
        lengths = (labels != IGNORED).sum(1)
        slots = memory.mask[:, skip:].sum(1)
        numbers = torch.arange(1, labels.shape[1] + 1, device=labels.device).expand_as(labels)
        aligned = torch.zeros((), device=labels.device)
        heads = ((self.ctc_head, labels.clamp(min=0), self.network.pad_id), (self.order_head, numbers, 0))
        for head, wanted, blank in heads:
            log_p = torch.log_softmax(head(memory.states[:, skip:]).float(), dim=-1).transpose(0, 1)
            aligned = aligned + F.ctc_loss(log_p, wanted, slots, lengths, blank, reduction="sum", zero_infinity=True)
        return aligned / 2
