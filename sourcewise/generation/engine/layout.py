"""A network in the layout of engine.cpp: the structures of network.h, with weights in int8."""

from __future__ import annotations

from ctypes import CDLL, POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from sourcewise.model.blocks.positions import sinusoids
from sourcewise.model.families.transformer import TransformerConfig

PADDED = 64  # rows and columns of a matrix are padded to multiples of this
ACTIVATIONS = {"relu": 0, "gated-gelu": 1, "gated-silu": 2}
LONGEST = 512  # memory positions of a source; longer ones are encoded by torch, whose large products are faster


def computes(c: TransformerConfig) -> bool:
    """Whether network.h can represent a Transformer of this configuration: a T5."""
    plain = c.norm_first and c.final_norm and c.attention_scale == c.embedding_scale == 1
    return plain and not (c.layer_norm or c.biases or c.embedding_norm) and c.activation in ACTIVATIONS


class Linear(Structure):
    """A matrix in int8 with scales."""

    _fields_ = [("weights", c_void_p), ("scales", c_void_p), ("outputs", c_int64), ("inputs", c_int64)]


class FeedForward(Structure):
    """The feed-forward of a block."""

    _fields_ = [("norm", c_void_p), ("wi", Linear), ("wo", Linear)]


class EncoderLayer(Structure):
    """A block of the encoder."""

    _fields_ = [("norm", c_void_p), ("qkv", Linear), ("out", Linear), ("feedforward", FeedForward)]


class DecoderLayer(Structure):
    """A block of the decoder."""

    _fields_ = [
        *(("norm", c_void_p), ("qkv", Linear), ("out", Linear)),
        *(("cross_norm", c_void_p), ("query", Linear), ("keys_values", Linear), ("cross_out", Linear)),
        ("feedforward", FeedForward),
    ]


class Network(Structure):
    """A complete network."""

    _fields_ = [
        *(("encoder", POINTER(EncoderLayer)), ("decoder", POINTER(DecoderLayer))),
        *(("encoder_norm", c_void_p), ("decoder_norm", c_void_p), ("head", Linear), ("embedding", c_void_p)),
        *((name, c_void_p) for name in ("places", "encoder_distances", "decoder_distances")),
        *((name, c_int64) for name in ("encoder_layers", "decoder_layers", "d_model", "heads", "d_kv", "d_ff")),
        *((name, c_int64) for name in ("activation", "longest", "steps")),
        ("eps", c_float),
    ]


class Options(Structure):
    """Options of the search."""

    _fields_ = [
        *((name, c_int64) for name in ("beams", "steps", "least")),
        ("length_penalty", c_float),
        *(("start_id", c_int32), ("end_id", c_int32), ("encoded", c_int64)),
    ]


class Layout:
    """A Transformer's weights in int8; this object owns their memory."""

    def __init__(self, code: CDLL, body: Any) -> None:
        self.code, self.body = code, body
        self.kept: list[Tensor] = []
        c = body.config
        encoder = (EncoderLayer * c.encoder_layers)(*(self._encoder_layer(block) for block in body.encoder))
        decoder = (DecoderLayer * c.decoder_layers)(*(self._decoder_layer(block) for block in body.decoder))
        distances = body.encoder_positions.table(body.encoder_positions.bucket(torch.arange(1 - LONGEST, LONGEST)))
        scale = c.d_model**-0.5 if c.scaled else 1.0
        self.network = Network(
            *(encoder, decoder, self._keep(body.encoder_norm.weight), self._keep(body.decoder_norm.weight)),
            *(self._packed(body.output_matrix.detach().float() * scale), self._keep(body.embedding.weight)),
            *(None, self._keep(distances.T), None),
            *(c.encoder_layers, c.decoder_layers, c.d_model, c.heads, c.d_kv, c.d_ff, ACTIVATIONS[c.activation]),
            *(LONGEST, 0, c.eps),
        )

    def for_steps(self, steps: int) -> tuple[Network, list[Tensor]]:
        """The network for outputs of at most `steps` tokens, and the tables that it points to, which must be kept."""
        positions, c = self.body.decoder_positions, self.body.config
        with torch.inference_mode():
            table = positions.table(positions.bucket(torch.arange(1 - steps, 1))).T.float().contiguous()
        network = Network.from_buffer_copy(self.network)
        network.decoder_distances, network.steps = table.data_ptr(), steps
        if not c.decoder_positions:
            return network, [table]
        places = sinusoids(steps, c.d_model)
        network.places = places.data_ptr()
        return network, [table, places]

    def _encoder_layer(self, block: Any) -> EncoderLayer:
        own = block.attention
        norm = self._keep(block.attention_norm.weight)
        return EncoderLayer(norm, self._packed(own.qkv.weight), self._packed(own.out.weight), self._inner(block))

    def _decoder_layer(self, block: Any) -> DecoderLayer:
        own, cross = block.attention, block.cross
        return DecoderLayer(
            *(self._keep(block.attention_norm.weight), self._packed(own.qkv.weight), self._packed(own.out.weight)),
            *(self._keep(block.cross_norm.weight), self._packed(cross.q.weight), self._packed(cross.kv.weight)),
            *(self._packed(cross.out.weight), self._inner(block)),
        )

    def _inner(self, block: Any) -> FeedForward:
        norm, own = self._keep(block.feedforward_norm.weight), block.feedforward
        return FeedForward(norm, self._packed(own.wi.weight), self._packed(own.wo.weight))

    def _packed(self, weight: Tensor) -> Linear:
        """A matrix (outputs, inputs) as int8 with scales."""
        outputs, inputs = weight.shape
        whole = -(-outputs // PADDED) * PADDED
        room = torch.empty(whole * (-(-inputs // PADDED) * PADDED), dtype=torch.uint8)
        scales = torch.zeros(whole)
        wide = weight.detach().float().contiguous()
        pointers = [c_void_p(t.data_ptr()) for t in (wide, room, scales)]
        self.code.sourcewise_pack(pointers[0], c_int64(outputs), c_int64(inputs), *pointers[1:])
        self.kept += [room, scales]
        return Linear(room.data_ptr(), scales.data_ptr(), outputs, inputs)

    def _keep(self, weight: Tensor) -> int:
        self.kept.append(weight.detach().float().contiguous().clone())
        return self.kept[-1].data_ptr()
