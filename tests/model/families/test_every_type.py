"""Every encoder–decoder that transformers lists: its own loss, gradients, searches and files; or a refusal."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Batch, Source, length_mask
from sourcewise.errors import RequestError
from sourcewise.generation.rules import ReadSource
from sourcewise.generation.settings import read_settings
from sourcewise.model.families.differences import shaped, why_refused
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import shift_right
from sourcewise.model.weights.checkpoint import generation_told, load_network, save_network
from tests.generation.folders import change
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.families.learning import learned, recorded
from tests.model.families.zoo import EOS, KINDS, PAD, SIZE, folder_of

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
SOURCES, STEPS = 6, 10
ROOT = Path(__file__).parents[3]
GENERIC = [name for name, kind in KINDS.items() if not kind.native]


def sources(network: Seq2Seq) -> Source:
    """Random sources of several lengths."""
    draw = torch.Generator().manual_seed(0)
    longest = 12 if not network.dims else 40 if network.dims > 1 else 1600
    lengths = torch.randint(longest // 2, longest + 1, (SOURCES,), generator=draw)
    lengths[0] = longest
    mask = length_mask(lengths, longest)
    if network.dims:
        features = torch.randn(SOURCES, longest, network.dims, generator=draw) * mask[..., None]
        return Source(None, None, features, lengths)
    tokens = torch.randint(4, SIZE - 3, (SOURCES, longest), generator=draw)
    return Source(tokens.masked_fill(~mask, PAD), lengths)


def given(model: Any, network: Any, source: Source) -> dict[str, torch.Tensor]:
    """The same as arguments of transformers."""
    if source.features is None:
        assert source.tokens is not None
        return {"input_ids": source.tokens, "attention_mask": source.token_mask.long()}
    features, mask = shaped(model, source.features, source.frame_mask)
    return {network.body.reads: features, "attention_mask": mask.long()}


def labels() -> torch.Tensor:
    """Random targets, one of them shorter."""
    ids = torch.randint(4, SIZE - 3, (SOURCES, 7), generator=torch.Generator().manual_seed(1))
    ids[:, -1] = ids[0, 4] = EOS
    ids[0, 5:] = -100
    return ids


@pytest.fixture(scope="module", params=GENERIC)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A model of transformers, ours of its folder, and the folder."""
    folder = folder_of(request.param, tmp_path_factory.mktemp("model"))
    ours: Any = load_network(folder)
    return type(ours.model).from_pretrained(folder).eval(), ours, folder


def test_loss_and_gradients_are_the_own_of_the_class(pair: tuple[Any, Any, Path]) -> None:
    theirs, ours, _ = pair
    assert isinstance(ours, HuggingFaceNetwork)
    source, targets = sources(ours), labels()
    # FSMT does not shift labels, PLBart begins with the last of them, which is a language.
    shifted = type(theirs).__name__ not in ("FSMTForConditionalGeneration", "PLBartForConditionalGeneration")
    read = {} if shifted else {"decoder_input_ids": shift_right(targets, ours.start_id, ours.pad_id)}
    out = theirs(**given(theirs, ours, source), labels=targets, **read)
    out.loss.backward()
    found = ours(Batch(source, targets, list(range(SOURCES))))
    (found.minimised / found.tokens).backward()
    assert float(found.nats) / found.tokens == pytest.approx(float(out.loss), abs=1e-5)
    for (name, parameter), (_, own) in zip(theirs.named_parameters(), ours.model.named_parameters(), strict=True):
        first, second = (torch.zeros_like(p) if p.grad is None else p.grad for p in (own, parameter))
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5, msg=name)
        parameter.grad = own.grad = None


SETTINGS: dict[str, dict[str, Any]] = {  # of a folder's generation_config.json
    "none": {},
    "penalties": {
        "length_penalty": 2.0,
        "no_repeat_ngram_size": 2,
        "repetition_penalty": 1.3,
        "suppress_tokens": [5, 9, 20],
        "begin_suppress_tokens": [*range(4, SIZE, 2)],
    },
    "forced": {
        "forced_bos_token_id": 11,
        "forced_eos_token_id": EOS,
        "eos_token_id": [EOS, 9, 12, 40],
        "early_stopping": True,
        "length_penalty": 0.3,
        "min_new_tokens": 3,
    },
}


@torch.inference_mode()
@pytest.mark.parametrize("settings", SETTINGS)
def test_searches_are_those_of_generate_with_the_settings_of_the_folder(
    settings: str, pair: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    theirs, _, folder = pair
    shutil.copytree(folder, tmp_path / "model")
    change(tmp_path / "model", max_new_tokens=STEPS, max_length=..., **SETTINGS[settings])
    ours: Any = load_network(tmp_path / "model")
    told = read_settings(generation_told(tmp_path / "model"))
    source = sources(ours)
    memory, rows = ours.encode(source), source.tokens
    tokens = None if rows is None else ReadSource(lambda i: rows[i, : source.token_lengths[i]].tolist())
    before = theirs.generation_config
    theirs.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path / "model")
    try:
        for beams in (1, 4):
            options = GenerationConfig(**{**told.options, "beams": beams})
            if beams == 1:
                found = greedy_or_sample(ours, memory, options, list(range(SOURCES)), tokens)
            else:
                found = [best[0] for best in beam_search(ours, memory, options, tokens)]
            read = given(theirs, ours, source)
            expected = transformers.GenerationMixin.generate(theirs, **read, num_beams=beams)  # Whisper's is another
            for hypothesis, row in zip(found, expected[:, 1:].tolist(), strict=True):
                end = next((i for i, token in enumerate(row) if token in ours.defaults.ends), STEPS)
                assert hypothesis.said == row[: end + 1]
    finally:
        theirs.generation_config = before


@torch.inference_mode()
def test_it_is_saved_as_the_folder_that_it_came_from(pair: tuple[Any, Any, Path], tmp_path: Path) -> None:
    theirs, ours, folder = pair
    save_network(ours, tmp_path / "again", generation=GenerationConfig(beams=3, max_new_tokens=STEPS))
    back = type(theirs).from_pretrained(tmp_path / "again").eval()
    source = given(theirs, ours, sources(ours))
    read = {"decoder_input_ids": labels().clamp(min=0)}
    torch.testing.assert_close(back(**source, **read).logits, theirs(**source, **read).logits, atol=0, rtol=0)
    assert (back.generation_config.num_beams, back.generation_config.max_new_tokens) == (3, STEPS)
    assert {p.name for p in folder.iterdir()} == {p.name for p in (tmp_path / "again").iterdir()}


@torch.inference_mode()
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.reads == "sounds"])
def test_sounds_of_any_length_are_read(name: str, tmp_path: Path) -> None:
    """Each alone and in a batch of others, as the model reads it alone."""
    ours: Any = load_network(folder_of(name, tmp_path))
    draw, counts = torch.Generator().manual_seed(2), (33, 40) if ours.dims > 1 else (1203, 1337)
    each = [torch.randn(1, count, ours.dims, generator=draw) for count in counts]
    tokens = labels()[:1].clamp(min=0)
    for features in each:
        length = torch.tensor([features.shape[1]])
        alone = ours.decode(tokens, ours.encode(Source(None, None, features, length)))
        longer = Source(None, None, F.pad(features, (0, 0, 0, 3)), length)
        assert alone.isfinite().all()
        if not ours.body.edges:
            torch.testing.assert_close(ours.decode(tokens, ours.encode(longer)), alone, atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_attention_is_a_share_of_the_source(pair: tuple[Any, Any, Path]) -> None:
    _, ours, _ = pair
    memory = ours.encode(sources(ours))
    weights = ours.cross_attention(labels().clamp(min=0), memory)
    assert (weights.shape[1], weights.shape[3]) == (SOURCES, 7) and weights.shape[-1] == memory.mask.shape[1]
    sums = weights.sum(-1)
    assert float(sums.min()) > 0 and float(sums.max()) < 1 + 1e-4  # T5Gemma 2 attends to targets with the rest
    assert {info.part for info in ours.parts()} >= {"embedding", "encoder", "decoder"}
    own = ours.self_attention(sources(ours), labels().clamp(min=0))  # of layers that attend to all positions
    assert "decoder" in own and all(each.isfinite().all() and each.shape[1] == SOURCES for each in own.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_small_task_is_learned_in_150_steps(name: str, tmp_path: Path) -> None:
    """What is saved answers, reads its source, is traced, and has no fault; docs/models.md has the figures."""
    found = learned(name, tmp_path)
    told = recorded()[name]
    assert found.figures.exact >= 90 and told.exact >= 90
    assert found.figures.source_bits == pytest.approx(told.source_bits, abs=1) and told.source_bits > 2
    assert found.trace.output == found.target and min(step.bits for step in found.trace.steps[:2]) > 0
    assert not [finding for finding in found.diagnosis.findings if finding.level == "error"]


def listed() -> dict[str, Any]:
    """Type → configuration class of all that transformers lists as text- or speech-to-text."""
    texts, sounds = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
    return {config.model_type: config for classes in (texts, sounds) for config in classes}


@pytest.mark.parametrize("name", sorted(set(listed()) - {kind.split(" ")[0] for kind in KINDS}))
def test_what_is_not_run_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    config = listed()[name]()
    config.save_pretrained(tmp_path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(RequestError) as refused:
        load_network(tmp_path)
    reason = why_refused(config)
    assert reason and reason in str(refused.value) and "\n" not in str(refused.value)


def test_the_table_of_the_page_is_as_its_script_writes_it() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "models_table.py"))
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert script["table"]() in page
    run = {
        line.split("`")[1]
        for line in script["table"]().splitlines()
        if line.startswith("| `") and "refused" not in line
    }
    assert run == {kind.split(" ")[0] for kind in KINDS}
