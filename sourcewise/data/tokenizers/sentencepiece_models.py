"""SentencePiece .model files → `tokenizers.Tokenizer` with the same ids.

The file is a protocol buffer. The few fields needed are read here, so that no generated code is, and what we encode
with is exactly what is saved as tokenizer.json.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

UNIGRAM, BYTE_PAIRS = 1, 2  # TrainerSpec.ModelType; words (3) and characters (4) are read as unigrams
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type
SPACE = "▁"


@dataclass(slots=True)
class SentencePieceModel:
    """What a .model file holds, as far as ids depend on it."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)  # text, score, type
    kind: int = UNIGRAM
    eos_id: int = 2
    pad_id: int = -1
    byte_fallback: bool = False
    split: bool = True  # no piece crosses a space
    charsmap: bytes = b""  # its own normalisation, compiled
    dummy_prefix: bool = True
    complete: bool = False

    @property
    def unk_id(self) -> int:
        """The piece of type UNKNOWN."""
        return next(i for i, (_, _, kind) in enumerate(self.pieces) if kind == UNKNOWN)


def parse(proto: bytes) -> SentencePieceModel:
    """Read a serialized model. Raises ValueError when it is no such thing, or cut off."""
    model = SentencePieceModel()
    try:
        for number, value in _fields(proto):
            if number == 1:
                part = dict(_fields(value))
                model.pieces.append((part[1].decode("utf-8"), part.get(2, 0.0), part.get(3, NORMAL)))
            elif number == 2:
                spec = dict(_fields(value))
                model.kind, model.split = spec.get(3, UNIGRAM), bool(spec.get(22, 1))
                model.eos_id, model.pad_id = spec.get(42, 2), spec.get(43, -1)
                model.byte_fallback = bool(spec.get(35, 0))
            elif number == 3:
                spec = dict(_fields(value))
                model.charsmap, model.dummy_prefix = spec.get(2, b""), bool(spec.get(3, 1))
                model.complete = True
        _ = model.unk_id
    except (IndexError, KeyError, struct.error, AttributeError, TypeError, StopIteration, UnicodeDecodeError):
        raise ValueError("not a SentencePiece model") from None
    if not model.complete:
        raise ValueError("cut off")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protocol buffer message."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value - (1 << 64) if value >> 63 else value
            continue
        length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        if at + length > len(data):
            raise IndexError
        chunk = data[at : at + length]
        at += length
        yield key >> 3, struct.unpack("<f", chunk)[0] if kind == 5 else chunk


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def convert(model: SentencePieceModel) -> Tokenizer:
    """The same tokenizer for the `tokenizers` library; it ends texts with the model's eos piece."""
    tokenizer = Tokenizer(_byte_pairs(model) if model.kind == BYTE_PAIRS else unigram(model))
    spaces: list[Any] = [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if model.charsmap:
        spaces = [normalizers.Precompiled(model.charsmap), *spaces]
    tokenizer.normalizer = normalizers.Sequence(spaces)
    scheme = "always" if model.dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=model.split)
    metaspace = decoders.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=model.split)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), metaspace]) if model.byte_fallback else metaspace
    tokenizer.add_special_tokens([_added(text, True) for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)])
    if model.kind == BYTE_PAIRS:
        tokenizer.add_tokens([_added(text, False) for text, _, kind in model.pieces if kind == USER_DEFINED])
    if 0 <= model.eos_id < len(model.pieces):
        eos = model.pieces[model.eos_id][0]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {eos}", pair=f"$A {eos} $B {eos}", special_tokens=[(eos, model.eos_id)]
        )
    return tokenizer


def _added(text: str, special: bool) -> AddedToken:
    return AddedToken(text, normalized=False, special=special)


def unigram(model: SentencePieceModel) -> Unigram:
    """The pieces with their scores, as the library wants them."""
    best = max((score for _, score, kind in model.pieces if kind == NORMAL), default=0.0)
    # SentencePiece's own bonus: a user's symbol beats any split of its characters.
    vocabulary = [
        (text, len(text) * best - 0.1 if kind == USER_DEFINED else score) for text, score, kind in model.pieces
    ]
    return Unigram(vocabulary, unk_id=model.unk_id, byte_fallback=model.byte_fallback)


def _byte_pairs(model: SentencePieceModel) -> BPE:
    """SentencePiece keeps no merges: a piece's score is its rank, and it may come from any two pieces."""
    ids = {text: i for i, (text, _, _) in enumerate(model.pieces)}
    merges = []
    for text, score, kind in model.pieces:
        if kind == NORMAL:
            cuts = [(text[:k], text[k:]) for k in range(1, len(text))]
            merges += [(-score, ids[a], ids[b], (a, b)) for a, b in cuts if a in ids and b in ids]
    return BPE(
        vocab=ids,
        merges=[pair for *_, pair in sorted(merges)],
        unk_token=model.pieces[model.unk_id][0],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )
