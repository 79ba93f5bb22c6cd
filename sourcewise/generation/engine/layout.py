"""A network in the layout of engine.cpp: the structs of network.h, with weights in int8."""

from __future__ import annotations

from ctypes import CDLL, Structure, addressof, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from sourcewise.model.blocks.positions import sinusoids
from sourcewise.model.families.transformer import TransformerConfig
from sourcewise.native.codes import HERE
from sourcewise.native.structures import structures

PADDED = 64  # rows and columns of a matrix are padded to multiples of this
ACTIVATIONS = {"relu": 0, "gated-gelu": 1, "gated-silu": 2}
C = structures(*(HERE / "search" / name for name in ("products.h", "network.h", "search.h")))
LONGEST = 512  # memory positions of a source; longer ones are encoded by torch, whose large products are faster


def computes(c: TransformerConfig) -> bool:
    """Whether network.h can represent a Transformer of this configuration: a T5."""
    plain = c.norm_first and c.final_norm and c.attention_scale == c.embedding_scale == 1
    return plain and not (c.layer_norm or c.biases or c.embedding_norm) and c.activation in ACTIVATIONS


class Layout:
    """A Transformer's weights in int8; this object owns their memory."""

    def __init__(self, code: CDLL, body: Any) -> None:
        self.code, self.body = code, body
        self.kept: list[Tensor] = []
        c = body.config
        encoder = (C.EncoderLayer * c.encoder_layers)(*(self._encoder_layer(block) for block in body.encoder))
        decoder = (C.DecoderLayer * c.decoder_layers)(*(self._decoder_layer(block) for block in body.decoder))
        distances = body.encoder_positions.table(body.encoder_positions.bucket(torch.arange(1 - LONGEST, LONGEST)))
        scale = c.d_model**-0.5 if c.scaled else 1.0
        self.blocks = encoder, decoder  # pointed to
        norms = self._keep(body.encoder_norm.weight), self._keep(body.decoder_norm.weight)
        self.network = C.Network(
            *(addressof(encoder), addressof(decoder), *norms),
            *(self._packed(body.output_matrix.detach().float() * scale), self._keep(body.embedding.weight)),
            *(None, self._keep(distances.T), None),
            *(c.encoder_layers, c.decoder_layers, c.d_model, c.heads, c.d_kv, c.d_ff, ACTIVATIONS[c.activation]),
            *(LONGEST, 0, c.eps),
        )

    def for_steps(self, steps: int) -> tuple[Structure, list[Tensor]]:
        """The network for outputs of at most `steps` tokens, and the tables that it points to, which must be kept."""
        positions, c = self.body.decoder_positions, self.body.config
        with torch.inference_mode():
            table = positions.table(positions.bucket(torch.arange(1 - steps, 1))).T.float().contiguous()
        network = C.Network.from_buffer_copy(self.network)
        network.decoder_distances, network.steps = table.data_ptr(), steps
        if not c.decoder_positions:
            return network, [table]
        places = sinusoids(steps, c.d_model)
        network.places = places.data_ptr()
        return network, [table, places]

    def _encoder_layer(self, block: Any) -> Structure:
        own = block.attention
        norm = self._keep(block.attention_norm.weight)
        return C.EncoderLayer(norm, self._packed(own.qkv.weight), self._packed(own.out.weight), self._inner(block))

    def _decoder_layer(self, block: Any) -> Structure:
        own, cross = block.attention, block.cross
        return C.DecoderLayer(
            *(self._keep(block.attention_norm.weight), self._packed(own.qkv.weight), self._packed(own.out.weight)),
            *(self._keep(block.cross_norm.weight), self._packed(cross.q.weight), self._packed(cross.kv.weight)),
            *(self._packed(cross.out.weight), self._inner(block)),
        )

    def _inner(self, block: Any) -> Structure:
        norm, own = self._keep(block.feedforward_norm.weight), block.feedforward
        return C.FeedForward(norm, self._packed(own.wi.weight), self._packed(own.wo.weight))

    def _packed(self, weight: Tensor) -> Structure:
        """A matrix (outputs, inputs) as int8 with scales."""
        outputs, inputs = weight.shape
        whole = -(-outputs // PADDED) * PADDED
        room = torch.empty(whole * (-(-inputs // PADDED) * PADDED), dtype=torch.uint8)
        scales = torch.zeros(whole)
        wide = weight.detach().float().contiguous()
        pointers = [c_void_p(t.data_ptr()) for t in (wide, room, scales)]
        self.code.sourcewise_pack(pointers[0], c_int64(outputs), c_int64(inputs), *pointers[1:])
        self.kept += [room, scales]
        return C.Linear(room.data_ptr(), scales.data_ptr(), outputs, inputs)

    def _keep(self, weight: Tensor) -> int:
        self.kept.append(weight.detach().float().contiguous().clone())
        return self.kept[-1].data_ptr()
