"""Networks as people write them by hand: a packed LSTM, a two-way GRU, a Transformer, a convolutional pair."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from others.tasks import PAD
from others.tutorial import PositionalEncoding
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class PackedEncoder(nn.Module):
    """An LSTM over packed sources, time first."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, hidden)
        self.lstm = nn.LSTM(hidden, hidden)

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Source (time, batch) in falling order of lengths: outputs (time, batch, hidden), and the last state."""
        packed = pack_padded_sequence(self.embed(source), lengths.cpu())
        outputs, state = self.lstm(packed)
        return pad_packed_sequence(outputs)[0], state


class LuongDecoder(nn.Module):
    """An LSTM that reads the encoder's outputs by a general score, time first."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, hidden)
        self.lstm = nn.LSTM(hidden, hidden)
        self.score = nn.Linear(hidden, hidden, bias=False)
        self.concat, self.out = nn.Linear(2 * hidden, hidden), nn.Linear(hidden, size)

    def forward(self, read: Tensor, state: Any, outputs: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        """Tokens (time, batch), mask (batch, source) of padding: logits (time, batch, size), and the next state."""
        said, state = self.lstm(self.embed(read), state)
        queries, keys = self.score(said).transpose(0, 1), outputs.transpose(0, 1)
        scores = (queries @ keys.transpose(1, 2)).masked_fill(mask[:, None], -1e9)
        context = (scores.softmax(-1) @ keys).transpose(0, 1)
        return self.out(torch.tanh(self.concat(torch.cat((said, context), -1)))), state


class PackedSeq2Seq(nn.Module):
    """Both, with teacher forcing."""

    def __init__(self, source: int, target: int, hidden: int = 64) -> None:
        super().__init__()
        self.encoder, self.decoder = PackedEncoder(source, hidden), LuongDecoder(target, hidden)

    def forward(self, source: Tensor, lengths: Tensor, read: Tensor) -> Tensor:
        """Logits (time, batch, size)."""
        outputs, state = self.encoder(source, lengths)
        logits, _ = self.decoder(read, state, outputs, (source == PAD).T)
        return logits


class TwoWayEncoder(nn.Module):
    """A GRU in both directions; its last states become the decoder's first."""

    def __init__(self, size: int, hidden: int, viewed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden, padding_idx=PAD)
        self.rnn = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.viewed = viewed

    def forward(self, source: Tensor, lengths: Tensor) -> Tensor:
        """The decoder's first state (1, batch, hidden)."""
        packed = pack_padded_sequence(self.embedding(source), lengths, batch_first=True, enforce_sorted=False)
        _, state = self.rnn(packed)
        if self.viewed:  # (2, batch, hidden) is not (batch, 2, hidden)
            joined = state.view(source.shape[0], -1)
        else:
            joined = torch.cat((state[0], state[1]), dim=1)
        return torch.tanh(self.bridge(joined)).unsqueeze(0)


class StateDecoder(nn.Module):
    """A GRU that knows of the source what its first state says."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden)
        self.rnn = nn.GRU(hidden, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, size)

    def forward(self, read: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, time, size), and the next state."""
        said, state = self.rnn(self.embedding(read), state)
        return self.fc(said), state


class TwoWaySeq2Seq(nn.Module):
    """Both."""

    def __init__(self, source: int, target: int, hidden: int = 128, viewed: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = TwoWayEncoder(source, hidden, viewed), StateDecoder(target, hidden)

    def forward(self, source: Tensor, lengths: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, time, size)."""
        return self.decoder(read, self.encoder(source, lengths))[0]  # type: ignore[no-any-return]


class HeadsAttention(nn.Module):
    """Attention with several heads, from scratch. `viewed`: heads are cut off by view alone."""

    def __init__(self, width: int, heads: int, viewed: bool = False) -> None:
        super().__init__()
        self.heads, self.size, self.viewed = heads, width // heads, viewed
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.o_proj = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, hidden: Tensor) -> Tensor:
        """(batch, time, width) → (batch, heads, time, size)."""
        batch, time, _ = hidden.shape
        if self.viewed:
            return hidden.view(batch, self.heads, time, self.size)
        return hidden.view(batch, time, self.heads, self.size).transpose(1, 2)

    def join(self, hidden: Tensor) -> Tensor:
        """The other way round."""
        batch, _, time, _ = hidden.shape
        if self.viewed:
            return hidden.contiguous().view(batch, time, -1)
        return hidden.transpose(1, 2).contiguous().view(batch, time, -1)

    def forward(self, query: Tensor, memory: Tensor, hidden_from: Tensor) -> Tensor:
        """`hidden_from` is True where it must not look: broadcastable to (batch, 1, queries, keys)."""
        q, k, v = self.split(self.q_proj(query)), self.split(self.k_proj(memory)), self.split(self.v_proj(memory))
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.size)
        weights = scores.masked_fill(hidden_from, -1e9).softmax(dim=-1)
        return self.o_proj(self.join(weights @ v))  # type: ignore[no-any-return]


class Feed(nn.Module):
    """Two projections."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(batch, time, width)."""
        return self.fc2(F.relu(self.fc1(hidden)))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, norms first."""

    def __init__(self, width: int, heads: int, viewed: bool) -> None:
        super().__init__()
        self.attn, self.ff = HeadsAttention(width, heads, viewed), Feed(width, 2 * width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, hidden: Tensor, pad: Tensor) -> Tensor:
        """Pad (batch, 1, 1, source)."""
        normed = self.norm1(hidden)
        hidden = hidden + self.attn(normed, normed, pad)
        return hidden + self.ff(self.norm2(hidden))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source, feed-forward, norms first."""

    def __init__(self, width: int, heads: int, viewed: bool) -> None:
        super().__init__()
        self.self_attn, self.src_attn = HeadsAttention(width, heads, viewed), HeadsAttention(width, heads, viewed)
        self.ff = Feed(width, 2 * width)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, hidden: Tensor, memory: Tensor, future: Tensor, pad: Tensor) -> Tensor:
        """Future (1, 1, target, target), pad (batch, 1, 1, source)."""
        normed = self.norm1(hidden)
        hidden = hidden + self.self_attn(normed, normed, future)
        hidden = hidden + self.src_attn(self.norm2(hidden), memory, pad)
        return hidden + self.ff(self.norm3(hidden))  # type: ignore[no-any-return]


class ScratchTransformer(nn.Module):
    """A Transformer from scratch. `call` is how a layer is called (checkpointed, say)."""

    def __init__(
        self, source: int, target: int, layers: int = 1, width: int = 64, heads: int = 4, viewed: bool = False
    ) -> None:
        super().__init__()
        self.src_embed, self.tgt_embed = nn.Embedding(source, width), nn.Embedding(target, width)
        self.position = PositionalEncoding(width)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, viewed) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, viewed) for _ in range(layers))
        self.norm_e, self.norm_d = nn.LayerNorm(width), nn.LayerNorm(width)
        self.generator = nn.Linear(width, target)
        self.call = lambda layer, *inputs: layer(*inputs)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        pad = (src == PAD)[:, None, None]
        future = torch.ones(tgt.shape[1], tgt.shape[1], dtype=torch.bool).triu(1)[None, None]
        memory, hidden = self.position(self.src_embed(src)), self.position(self.tgt_embed(tgt))
        for layer in self.encoder:
            memory = self.call(layer, memory, pad)
        memory = self.norm_e(memory)
        for layer in self.decoder:
            hidden = self.call(layer, hidden, memory, future, pad)
        return self.generator(self.norm_d(hidden))  # type: ignore[no-any-return]


class ConvSeq2Seq(nn.Module):
    """Gated convolutions on both sides. `both_sides`: the decoder pads left and right."""

    def __init__(self, source: int, target: int, width: int = 64, kernel: int = 3, both_sides: bool = False) -> None:
        super().__init__()
        self.source_tokens, self.target_tokens = nn.Embedding(source, width), nn.Embedding(target, width)
        self.source_places, self.target_places = nn.Embedding(32, width), nn.Embedding(32, width)
        self.encoder_convs = nn.ModuleList(nn.Conv1d(width, 2 * width, kernel, padding=kernel // 2) for _ in range(2))
        self.decoder_convs = nn.ModuleList(nn.Conv1d(width, 2 * width, kernel) for _ in range(2))
        self.attention_in, self.out = nn.Linear(width, width), nn.Linear(width, target)
        self.kernel, self.both_sides = kernel, both_sides

    def encode(self, src: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (batch, source, width)."""
        embedded = self.source_tokens(src) + self.source_places(torch.arange(src.shape[1]))
        hidden = embedded.transpose(1, 2)
        for conv in self.encoder_convs:
            hidden = (F.glu(conv(hidden), dim=1) + hidden) * 0.7
        keys = hidden.transpose(1, 2)
        return keys, keys + embedded

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        keys, values = self.encode(src)
        embedded = self.target_tokens(trg) + self.target_places(torch.arange(trg.shape[1]))
        hidden = embedded.transpose(1, 2)
        around = (self.kernel // 2, self.kernel // 2) if self.both_sides else (self.kernel - 1, 0)
        for conv in self.decoder_convs:
            gated = F.glu(conv(F.pad(hidden, around)), dim=1)
            query = self.attention_in(gated.transpose(1, 2)) + embedded
            scores = (query @ keys.transpose(1, 2)).masked_fill((src == PAD)[:, None], -1e9)
            read = gated + (scores.softmax(-1) @ values).transpose(1, 2)
            hidden = (read + hidden) * 0.7
        return self.out(hidden.transpose(1, 2))  # type: ignore[no-any-return]
