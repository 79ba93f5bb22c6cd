"""Converts SentencePiece .model files to a `tokenizers.Tokenizer` with the same ids.

The converted tokenizer both encodes here and is saved as tokenizer.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram

BYTE_PAIRS = 2  # TrainerSpec.ModelType; unigrams (1), words (3) and characters (4) are read as unigrams
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # SentencePiece.Type
SPACE = "▁"


@dataclass(slots=True)
class SentencePieceModel:
    """The contents of a .model file that determine ids."""

    pieces: list[tuple[str, float, int]]  # text, score, type
    kind: int
    eos_id: int
    pad_id: int
    byte_fallback: bool
    split: bool  # no piece crosses a space
    charsmap: bytes  # compiled normalisation
    dummy_prefix: bool

    @property
    def unk_id(self) -> int:
        """The id of the piece of type UNKNOWN."""
        return next(i for i, (_, _, kind) in enumerate(self.pieces) if kind == UNKNOWN)


def parse(proto: bytes) -> SentencePieceModel:
    """Read a serialized model. Raises ValueError if it is none, or truncated."""
    from google.protobuf.message import DecodeError
    from sentencepiece.sentencepiece_model_pb2 import ModelProto

    try:
        read = ModelProto.FromString(proto)
    except DecodeError:
        raise ValueError("not a SentencePiece model") from None
    pieces = [(piece.piece, piece.score, piece.type) for piece in read.pieces]
    if all(kind != UNKNOWN for *_, kind in pieces):
        raise ValueError("not a SentencePiece model")
    if not read.HasField("normalizer_spec"):  # the last field that is read
        raise ValueError("cut off")
    trained, normal = read.trainer_spec, read.normalizer_spec
    return SentencePieceModel(
        pieces,
        kind=trained.model_type,
        eos_id=trained.eos_id,
        pad_id=trained.pad_id,
        byte_fallback=trained.byte_fallback,
        split=trained.split_by_whitespace,
        charsmap=normal.precompiled_charsmap,
        dummy_prefix=normal.add_dummy_prefix,
    )


def convert(model: SentencePieceModel) -> Tokenizer:
    """The equivalent tokenizer of the `tokenizers` library; it appends the model's end of text."""
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
    """The unigram model of the library, with the pieces' scores."""
    best = max((score for _, score, kind in model.pieces if kind == NORMAL), default=0.0)
    # The same bonus as in SentencePiece: a user-defined symbol beats any split of its characters.
    vocabulary = [
        (text, len(text) * best - 0.1 if kind == USER_DEFINED else score) for text, score, kind in model.pieces
    ]
    return Unigram(vocabulary, unk_id=model.unk_id, byte_fallback=model.byte_fallback)


def _byte_pairs(model: SentencePieceModel) -> BPE:
    """The BPE model of the library. SentencePiece stores no merges: a piece's score is its rank, for any two parts."""
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
