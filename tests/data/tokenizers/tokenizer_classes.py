"""Tiny tokenizers of transformers' own classes, made as folders."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ENGLISH = ["the cat sat on the mat", "a dog runs, and a cat sits", "two dogs run: 1 2 3"]
GERMAN = ["die Katze saß auf der Matte", "ein Hund läuft, und eine Katze sitzt", "zwei Hunde laufen: 1 2 3"]
TEXTS = [*ENGLISH, *GERMAN, "", "a", "  the   cat ", "Ωmega 猫 </s> x", "don't stop , now !"]


def trained(texts: Sequence[str], kind: str = "unigram", **options: Any) -> bytes:
    """A SentencePiece model of these texts."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(list(texts) * 20),
        model_writer=model,
        model_type=kind,
        vocab_size=90,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def _with_model(cls: str, file: str, **options: Any) -> Callable[[Path], None]:
    """A folder with the SentencePiece model alone, as those on the hub, and the class that is to open it."""

    def make(folder: Path) -> None:
        layout = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} if file == "spiece.model" else {}
        (folder / file).write_bytes(trained([*ENGLISH, *GERMAN], **layout))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls, **options}))

    return make


def _nllb(folder: Path, **options: Any) -> None:
    from transformers import NllbTokenizer

    characters = sorted(set("▁".join([*ENGLISH, *GERMAN]).replace(" ", "▁")))
    names = ["<s>", "<pad>", "</s>", "<unk>", *characters, "▁a", "th", "the", "▁the", "in", "ein"]
    merges = [("▁", "a"), ("t", "h"), ("th", "e"), ("▁", "the"), ("i", "n"), ("e", "in")]
    vocabulary = {name: i for i, name in enumerate(names)}
    NllbTokenizer(vocab=vocabulary, merges=merges, **options).save_pretrained(folder)


def _m2m(folder: Path, **options: Any) -> None:
    import sentencepiece
    from transformers import M2M100Tokenizer

    model = folder / "sentencepiece.bpe.model"
    model.write_bytes(trained([*ENGLISH, *GERMAN], "bpe"))
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    names = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, len(pieces)))]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    M2M100Tokenizer(str(folder / "vocab.json"), str(model), **options).save_pretrained(folder)


def _marian(folder: Path, separate: bool = False) -> None:
    import sentencepiece
    from transformers import MarianTokenizer

    names: list[list[str]] = []
    for side, texts in (("source", ENGLISH), ("target", GERMAN)):
        (folder / f"{side}.spm").write_bytes(trained(texts))
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        names.append([pieces.id_to_piece(i) for i in range(3, len(pieces))])
    vocabularies = [[*names[0]], [*names[1]]] if separate else [[*names[0], *names[1]]]
    files = ["vocab.json", "target_vocab.json"][: len(vocabularies)]
    for file, each in zip(files, vocabularies, strict=True):
        listed = list(dict.fromkeys(["</s>", "<unk>", *each, "<pad>"]))
        if separate:  # both as long, so that the ids of special tokens are the same
            listed = ["</s>", "<unk>", "<pad>", *listed[2:-1]]
        (folder / file).write_text(json.dumps({name: i for i, name in enumerate(listed)}))
    more = {"target_vocab_file": str(folder / "target_vocab.json"), "separate_vocabs": True} if separate else {}
    spm = [str(folder / f"{side}.spm") for side in ("source", "target")]
    MarianTokenizer(*spm, str(folder / "vocab.json"), source_lang="en", target_lang="de", **more).save_pretrained(
        folder
    )


def _bart(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BartTokenizer

    engine = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    engine.train_from_iterator([*ENGLISH, *GERMAN] * 5, 320, special_tokens=marks, show_progress=False)
    engine.save_model(str(folder))
    BartTokenizer.from_pretrained(folder).save_pretrained(folder)


def _bert(folder: Path, **options: Any) -> None:
    from transformers import BertTokenizer

    words = sorted({word for text in [*ENGLISH, *GERMAN] for word in text.lower().replace(",", " ,").split()})
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join([*marks, *words, "##s", ":", ".", "!", "'", "n", "t", "don", "stop"]))
    BertTokenizer.from_pretrained(folder, **options).save_pretrained(folder)


def _byt5(folder: Path) -> None:
    from transformers import ByT5Tokenizer

    ByT5Tokenizer().save_pretrained(folder)


def template(folder: Path, single: str, **options: Any) -> None:
    """A PreTrainedTokenizerFast of words with a template of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys(word for text in [*ENGLISH, *GERMAN] for word in text.split())
    names = {name: i for i, name in enumerate(["<pad>", "</s>", "<unk>", "<s>", "xx_XX", "yy_YY", *words])}
    engine = Tokenizer(models.WordLevel(names, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    marks = [(name, names[name]) for name in ("</s>", "<s>", "xx_XX", "yy_YY") if name in single]
    engine.post_processor = processors.TemplateProcessing(single, special_tokens=marks)
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    codes = {"additional_special_tokens": ["xx_XX", "yy_YY"]}
    PreTrainedTokenizerFast(tokenizer_object=engine, **named, **codes, **options).save_pretrained(folder)


LANGUAGES: dict[str, Callable[[Path], None]] = {
    "mbart": _with_model("MBartTokenizer", "sentencepiece.bpe.model", src_lang="en_XX", tgt_lang="de_DE"),
    "mbart50": _with_model("MBart50Tokenizer", "sentencepiece.bpe.model", src_lang="en_XX", tgt_lang="de_DE"),
    "nllb": lambda folder: _nllb(folder, src_lang="eng_Latn", tgt_lang="deu_Latn"),
    "m2m100": lambda folder: _m2m(folder, src_lang="en", tgt_lang="de"),
}
UNSET: dict[str, Callable[[Path], None]] = {
    "mbart unset": _with_model("MBartTokenizer", "sentencepiece.bpe.model"),
    "mbart50 unset": _with_model("MBart50Tokenizer", "sentencepiece.bpe.model"),
    "nllb unset": _nllb,
    "m2m100 unset": _m2m,
}
OTHERS: dict[str, Callable[[Path], None]] = {
    "t5": _with_model("T5Tokenizer", "spiece.model", extra_ids=10),
    "mt5": _with_model("T5Tokenizer", "spiece.model", extra_ids=0),
    "pegasus": _with_model("PegasusTokenizer", "spiece.model", offset=5),
    "marian": _marian,
    "marian of two vocabularies": lambda folder: _marian(folder, separate=True),
    "bart": _bart,
    "bert": _bert,
    "bert that cleans": lambda folder: _bert(folder, clean_up_tokenization_spaces=True),
    "byt5": _byt5,
    "end": lambda folder: template(folder, "$A </s>"),
    "begin and end": lambda folder: template(folder, "<s> $A </s>"),
    "code behind": lambda folder: template(folder, "$A </s> xx_XX"),
    "code before": lambda folder: template(folder, "xx_XX $A </s>"),
}
