"""The objective: the decoder's cross-entropy, and optional auxiliary losses that help it to read its source."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.errors import RequestError
from sourcewise.model.loss import Emphasis
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Aims, Pass
from sourcewise.training.consistency import check_dropped, second_pass
from sourcewise.training.contrastive import contrastive
from sourcewise.training.decoder_inputs import decoder_inputs
from sourcewise.training.supervision import check_supervised, supervision


class Objective(nn.Module):
    """The network with the heads of auxiliary losses."""

    weights: Tensor | None
    others: Callable[[list[int]], Source] | None = None  # a batch's examples → other sources; None: no contrast

    def __init__(
        self, network: Seq2Seq, train: TrainConfig, unknown: int | None = None, weights: Tensor | None = None
    ) -> None:
        """`unknown` is the id of dropped words: the tokenizer's <unk>, or else padding.

        `weights` (vocabulary,) float32 are those of target tokens; None: all equal.
        """
        super().__init__()
        self.network, self.smoothing, self.ctc_weight = network, train.label_smoothing, train.ctc_weight
        self.register_buffer("weights", weights, persistent=False)
        self.focal = train.focal
        self.word_dropout = train.word_dropout
        self.guided, self.mass = (train.guided_attention, train.guided_width), train.attention_mass
        self.contrast, self.margin = train.contrastive, train.contrastive_margin
        self.r_drop = train.r_drop
        if self.r_drop:
            check_dropped(network)
        check_supervised(network, train.guided_attention, train.attention_mass)
        self.unknown = network.pad_id if unknown in (None, network.eos_id) else unknown
        if self.ctc_weight:
            if "encoder" not in network.stacks:
                raise RequestError("train.ctc_weight: this network has no encoder whose output it could align; set 0")
            config = network.body.config
            self.ctc_head = nn.Linear(config.d_model, config.vocabulary)

    def forward(self, batch: Batch, reference: float = 1.0) -> tuple[Tensor, Tensor]:
        """(objective, cross-entropy alone), both in nats summed over the batch's target tokens.

        `reference` is the share of reference tokens among the decoder's inputs.
        """
        emphasis = None if self.weights is None and not self.focal else Emphasis(self.weights, self.focal)
        inputs = partial(decoder_inputs, reference=reference, word_dropout=self.word_dropout, unknown=self.unknown)
        found = self.network(batch, Aims(self.smoothing, emphasis, inputs, self._terms(emphasis)))
        minimised = found.minimised
        if "again" in found.terms:
            minimised = 0.5 * minimised + found.terms["again"]
        if self.ctc_weight:
            minimised = (1 - self.ctc_weight) * minimised + self.ctc_weight * found.terms["ctc"]
        if "attention" in found.terms:
            minimised = minimised + found.terms["attention"]
        if "contrast" in found.terms:
            minimised = minimised + self.contrast * found.terms["contrast"]
        return minimised, found.nats

    def _terms(self, emphasis: Emphasis | None) -> dict[str, Callable[[Seq2Seq, Pass], Tensor]]:
        """The auxiliary losses, in the order of their random draws."""
        terms: dict[str, Callable[[Seq2Seq, Pass], Tensor]] = {}
        if self.ctc_weight:
            terms["ctc"] = self.ctc
        if self.guided[0] or self.mass:
            terms["attention"] = partial(supervision, guided=self.guided, mass=self.mass)
        if self.contrast and self.others is not None:
            terms["contrast"] = self.against_others
        if self.r_drop:
            terms["again"] = partial(second_pass, weight=self.r_drop, smoothing=self.smoothing, emphasis=emphasis)
        return terms

    def against_others(self, network: Seq2Seq, given: Pass) -> Tensor:
        """The contrastive loss, with the same targets after other examples' sources."""
        assert self.others is not None
        memory = network.read(self.others(given.batch.indices))
        other, *_ = network.projection(given.tokens, memory, given.batch.labels, padded=True)
        return contrastive(network.cross_entropy, given.states, other, given.matrix, given.labels, self.margin)

    def ctc(self, network: Seq2Seq, given: Pass) -> Tensor:
        """CTC: −ln of the summed probability of all alignments of positions and targets (Graves et al. 2006), summed.

        As an auxiliary loss: Watanabe et al. 2017. Padding is the blank; targets longer than their source count 0.
        """
        memory, skip = given.memory, given.batch.source.prompt
        logits = self.ctc_head(memory.layout.pad(memory.states)[:, skip:])
        log_p = torch.log_softmax(logits.float(), dim=-1).transpose(0, 1)
        lengths = (given.batch.labels.cpu() != IGNORED).sum(1)  # on the host, as torch wants them
        return F.ctc_loss(
            log_p,
            given.labels.clamp(min=0),
            memory.layout.mask[:, skip:].sum(1).tolist(),  # type: ignore[arg-type]
            lengths.tolist(),  # type: ignore[arg-type]
            blank=network.pad_id,
            reduction="sum",
            zero_infinity=True,
        )
