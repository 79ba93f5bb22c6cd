from __future__ import annotations

import io

import pytest

from sourcewise.data.tokenizers.sentencepiece_models import parse
from sourcewise.data.tokenizers.tokenizer import Tokenizer

TEXTS = [
    *(
        "A dog runs over the green field.",
        "Two dogs are running, and one sleeps.",
        "Zwei Hunde laufen über die Straße!",
    ),
    *(f"There are {n} dogs in the {place}." for n in range(12) for place in ("park", "field", "house")),
]
PROBES = [*TEXTS, "  two  spaces ", "日本語 unknown 😀", "", "a", "<extra> dogs <extra>", "dog\tfield", "ﬁne ½ ①２３"]


def _train(kind, rule, **options):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=options.pop("vocab_size", 120),
        model_type=kind,
        normalization_rule_name=rule,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return model.getvalue(), sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_ids_are_those_of_sentencepiece(kind, rule, tmp_path):
    proto, theirs = _train(kind, rule, user_defined_symbols=[] if kind == "bpe" else ["<extra>"])
    (tmp_path / "spiece.model").write_bytes(proto)
    for path in (tmp_path, tmp_path / "spiece.model"):
        ours = Tokenizer.load(path)
        assert (
            ours.size == theirs.get_piece_size() and ours.eos_id == theirs.eos_id() and ours.unk_id == theirs.unk_id()
        )
        for text in PROBES if rule == "nmt_nfkc" else PROBES[:-2]:
            assert ours.encode(text) == [*theirs.encode(text), theirs.eos_id()], text
    for text in TEXTS:
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))


def test_bytes_stand_for_unknown_characters(tmp_path):
    proto, theirs = _train("bpe", "identity", byte_fallback=True, vocab_size=400)
    (tmp_path / "x.model").write_bytes(proto)
    ours = Tokenizer.load(tmp_path / "x.model")
    assert ours.encode("dogs 😀") == [*theirs.encode("dogs 😀"), theirs.eos_id()]
    assert ours.decode(ours.encode("dogs 😀")) == "dogs 😀"


def test_it_is_saved_for_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    proto, _ = _train("unigram", "nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (tmp_path / "x.model").write_bytes(proto)
    ours = Tokenizer.load(tmp_path / "x.model")
    assert (ours.pad_id, ours.eos_id, ours.unk_id) == (0, 1, 2)
    ours.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(PROBES)["input_ids"] == ours.encode_batch(PROBES) and theirs.pad_token_id == 0


def test_what_is_no_model():
    proto, _ = _train("unigram", "identity")
    for broken in (b"", b"hello", proto[: len(proto) // 2], proto[:-20], b"\x0a\xff\xff\xff\xff\xff"):
        with pytest.raises(ValueError):
            parse(broken)
