"""Every encoder–decoder that transformers lists: its own loss, gradients, searches and files; or a refusal."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sourcewise.config import GenerationConfig, Recipe
from sourcewise.data.batches import Batch, Source, length_mask
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model
from sourcewise.model.families.differences import shaped, why_refused
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import shift_right
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import set_up
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.families.zoo import EOS, KINDS, PAD, SIZE, folder_of, task, tokenizer

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


@torch.inference_mode()
def test_searches_are_those_of_generate(pair: tuple[Any, Any, Path]) -> None:
    theirs, ours, _ = pair
    source = sources(ours)
    memory = ours.encode(source)
    for beams in (1, 4):
        options = GenerationConfig(beams=beams, max_new_tokens=STEPS)
        if beams == 1:
            found = greedy_or_sample(ours, memory, options, list(range(SOURCES)))
        else:
            found = [best[0] for best in beam_search(ours, memory, options)]
        expected = transformers.GenerationMixin.generate(  # Whisper's own is for hours of sound
            theirs,
            **given(theirs, ours, source),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=STEPS,
            max_length=None,
            length_penalty=1.0,
            early_stopping=False,
        )
        for hypothesis, row in zip(found, expected[:, 1:].tolist(), strict=True):
            assert hypothesis.ids == row[: row.index(EOS) if EOS in row else STEPS]


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
def test_attention_is_a_share_of_the_source(pair: tuple[Any, Any, Path]) -> None:
    _, ours, _ = pair
    memory = ours.encode(sources(ours))
    weights = ours.cross_attention(labels().clamp(min=0), memory)
    assert (weights.shape[1], weights.shape[3]) == (SOURCES, 7) and weights.shape[-1] == memory.mask.shape[1]
    sums = weights.sum(-1)
    assert float(sums.min()) > 0 and float(sums.max()) < 1 + 1e-4  # T5Gemma 2 attends to targets with the rest
    assert {info.part for info in ours.parts()} >= {"embedding", "encoder", "decoder"}


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERIC)
def test_a_small_task_is_learned_in_150_steps(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    KINDS[name].make().save_pretrained(tmp_path / "model")
    tokenizer(tmp_path / "model")
    data = task(tmp_path, KINDS[name].reads, load_network(tmp_path / "model").dims)
    train = {"steps": 150, "learning_rate": 1e-2, "warmup_steps": 20, "precision": "fp32", "batch_tokens": 100_000}
    generation = {"beams": 1, "max_new_tokens": 8}
    recipe = {"model": {"weights": str(tmp_path / "model")}, "train": train, "generation": generation}
    sets = {"train": data, "valid": data, "max_source": 60, "max_target": 60}
    setup = set_up(Recipe.model_validate({**recipe, "data": sets}))
    learner = Learner(setup)
    for _ in range(150):
        learner.learn([np.arange(len(setup.train))])
    assert setup.valid is not None
    model = Model(setup.network.eval(), setup.tokenizer, data=setup.recipe.data, generation=setup.recipe.generation)
    outputs = model.generate(setup.valid.dataset)
    right = [output == example.target for output, example in zip(outputs, setup.valid.dataset, strict=True)]
    assert np.mean(right) >= 0.9


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
