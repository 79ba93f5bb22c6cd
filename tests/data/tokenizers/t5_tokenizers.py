"""Tiny tokenizers of T5's kind, as transformers has them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

TEXT = 'the cat sat on the mat, a dog runs : 1 2 3 name age list "quoted" [ ] b c x - y'


def t5_folder(folder: Path) -> Path:
    """A folder as T5's are on the hub: spiece.model, and a configuration that names 100 sentinels; no `{ } \\n \\t`."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([TEXT] * 50),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text('{"model_type": "t5"}')
    return folder


def fast_t5_folder(folder: Path) -> Path:
    """The same as transformers saves it: a tokenizer.json."""
    theirs = opened(t5_folder(folder / "spiece"))
    theirs.save_pretrained(folder)
    return folder


def opened(folder: Path) -> Any:
    """transformers' tokenizer of a folder."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder)
