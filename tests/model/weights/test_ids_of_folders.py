"""Folders without a start, an end, a padding, with several ends, or with null: as transformers, or one line."""

from __future__ import annotations

import json
import shutil
import warnings
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source
from sourcewise.errors import RequestError
from sourcewise.generation.settings import read_settings
from sourcewise.model.weights.checkpoint import generation_told, load_network
from tests.generation.searching import greedy_or_sample
from tests.model.families.zoo import folder_of

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
GONE, STEPS = object(), 6
START, BOS, EOS, PAD = "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"
FIRST, LAST = "forced_bos_token_id", "forced_eos_token_id"
KINDS = ["t5", "bart", "marian", "mbart", "m2m_100", "pegasus", "encoder-decoder"]
CASES: dict[str, dict[str, Any]] = {  # in config.json, also of its decoder's section, and in generation_config.json
    "as it is": {},
    "no start": {START: GONE},
    "start null": {START: None},
    "no bos": {BOS: GONE},
    "neither start nor bos": {START: None, BOS: None},
    "no padding": {PAD: GONE},
    "padding null": {PAD: None},
    "padding is the end": {PAD: 1},
    "several ends": {EOS: [1, 7]},
    "no end": {EOS: GONE},
    "end null": {EOS: None},
    "nothing forced": {FIRST: None, LAST: None},
    "first and last forced": {FIRST: 11, LAST: 1},
}
# What transformers can do and sourcewise refuses: without an end no output ends.
REFUSED = {EOS: ("end null", "no end")}


@cache
def base(kind: str) -> Path:
    return folder_of(kind, Path(mkdtemp()) / "model")


def changed(kind: str, case: str, file: bool, folder: Path) -> Path:
    """A tiny model with these ids, with or without its generation_config.json."""
    shutil.copytree(base(kind), folder)
    if not file:
        (folder / "generation_config.json").unlink()
    for path in (folder / "config.json", folder / "generation_config.json"):
        if path.is_file():
            tree = json.loads(path.read_text())
            for part in (tree, tree.get("decoder")):
                for key, value in CASES[case].items() if isinstance(part, dict) else ():
                    part.pop(key, None) if value is GONE else part.update({key: value})
            path.write_text(json.dumps(tree))
    return folder


def by_transformers(folder: Path, tokens: torch.Tensor, mask: torch.Tensor) -> list[list[int]] | None:
    """What `generate` outputs, with its start; None: it cannot."""
    try:
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        found = model.generate(
            input_ids=tokens, attention_mask=mask, num_beams=1, do_sample=False, max_new_tokens=STEPS
        )
    except Exception:  # of many classes
        return None
    return found.tolist()  # type: ignore[no-any-return]


@torch.inference_mode()
@pytest.mark.parametrize("file", [True, False], ids=["two files", "config.json alone"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_opens_as_in_transformers_or_a_line_says_why_not(
    kind: str, case: str, file: bool, tmp_path: Path
) -> None:
    folder = changed(kind, case, file, tmp_path / "model")
    tokens = torch.randint(4, 90, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[1, 4:] = 0
    expected = by_transformers(folder, tokens, mask)
    try:
        with warnings.catch_warnings(record=True) as told_of:
            warnings.simplefilter("always")
            network: Any = load_network(folder)
    except RequestError as error:
        keys = [key for key in (START, EOS, PAD) if key in str(error)]
        assert keys and "\n" not in str(error) and "add" in str(error)
        assert expected is None or case in REFUSED.get(keys[0], ())
        return
    told = read_settings(generation_told(folder))
    options = GenerationConfig(**{**told.options, "beams": 1, "max_new_tokens": STEPS})
    memory = network.encode(Source(tokens, mask.sum(1)))
    outputs = [each.said for each in greedy_or_sample(network, memory, options, [0, 1, 2])]
    assert all(outputs) and network.start_id >= 0
    if expected is None:
        return
    if network.start_id != expected[0][0]:  # the class has a start, which its loss uses, and `generate` does not
        assert case == "no start"
        lines = [str(each.message) for each in told_of if START in str(each.message)]
        assert len(lines) == 1 and "as in its loss" in lines[0] and "\n" not in lines[0]
        return
    for output, row in zip(outputs, (row[1:] for row in expected), strict=True):
        end = next((place for place, token in enumerate(row) if token in network.defaults.ends), STEPS)
        assert output == row[: end + 1]
