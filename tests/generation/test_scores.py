"""Scores of outputs: token probabilities, source bits without a reference, alignments; MBR and ensembles."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sacrebleu import sentence_bleu, sentence_chrf

import sourcewise
from sourcewise.cli.parser import main
from sourcewise.data.open import open_sources
from sourcewise.errors import RequestError
from sourcewise.generation.generate import generate_lists
from sourcewise.generation.model import Model, load
from sourcewise.generation.risk import utilities
from sourcewise.generation.scores import scored
from tests.commands import Models
from tests.generation.folders import SOURCES, TOKENIZER, write_folder
from tests.model.networks import DIMS
from tests.serving.served import TEXTS, made

KINDS = ("t5", "bart", "bert2bert")


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Model, Path]:
    path = tmp_path_factory.mktemp(request.param)
    return write_folder(request.param, path), load(path), path


@torch.inference_mode()
def test_token_probabilities_are_those_of_the_model_itself(pair: tuple[Any, Model, Path]) -> None:
    model, opened, _ = pair
    how: dict[str, Any] = {"beams": 3, "max_new_tokens": 7, "repetition_penalty": 1.5}
    found = opened.generate(SOURCES, n_best=3, scores=True, **how)
    assert [[o.ids for o in e.best_first] for e in found.of] == [
        [o.ids for o in e.best_first] for e in opened.generate(SOURCES, n_best=3, **how).of
    ]
    for source, outputs in zip(SOURCES, found.of, strict=True):
        for output in outputs.best_first:
            ids = torch.tensor([TOKENIZER.encode(source)])
            begun = torch.tensor([[opened.network.start_id, *output.ids[:-1]]])
            logits = model(input_ids=ids, decoder_input_ids=begun).logits[0].log_softmax(-1)
            expected = logits.gather(1, torch.tensor(output.ids)[:, None])[:, 0].tolist()
            assert [token.log_probability for token in output.tokens] == pytest.approx(expected, abs=1e-4)
            assert output.log_probability == pytest.approx(sum(expected), abs=1e-3)
            assert [token.text for token in output.tokens] == opened.tokenizer.pieces(output.ids)


def test_without_penalties_the_score_is_the_log_probability_over_the_length(pair: tuple[Any, Model, Path]) -> None:
    opened = pair[1]
    for penalty in (0.0, 1.0, 2.0):
        found = opened.generate(SOURCES, n_best=2, scores=True, beams=4, max_new_tokens=7, length_penalty=penalty)
        for output in (o for e in found.of for o in e.best_first):
            forced = output.tokens[-1].log_probability if opened.network.defaults.forced_eos else 0.0
            own = output.log_probability / len(output.ids) ** penalty
            without = (output.log_probability - forced) / len(output.ids) ** penalty
            assert output.score in (pytest.approx(own, abs=1e-4), pytest.approx(without, abs=1e-4))


@pytest.mark.parametrize("bridge", [None, "projection"])
def test_source_bits_are_those_of_a_trace(bridge: str | None) -> None:
    """Against the same others of the set, per token; for texts and for features."""
    model = made(bridge)
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((6 + i % 3, DIMS)).astype("float32") for i in range(5)]
    sources = open_sources(matrices if bridge else TEXTS)
    found = model.generate(sources, scores=True, n_best=2)
    for i, outputs in enumerate(found.of):
        traced = sourcewise.trace(model, sources, i)
        best = outputs.best
        assert best.text == traced.output
        assert [t.source_bits for t in best.tokens] == pytest.approx([s.bits for s in traced.steps], abs=1e-4)
        assert best.source_bits == pytest.approx(traced.bits, abs=1e-4)
        assert outputs.against == traced.against
        assert [slot.kind for slot in outputs.slots] == [slot.kind for slot in traced.slots]
        weights = traced.weights()
        assert weights is not None
        for t, token in enumerate(best.tokens):
            content = [k for k in range(len(outputs.slots)) if bridge or k < len(outputs.slots) - 1]
            assert token.slot == max(content, key=lambda k: (weights[t, k], -k))


def test_an_output_of_another_source_is_marked_as_made_up() -> None:
    """Scored with a source that it was not made from; its own source is among the others, and explains it better."""
    model = made()
    encoded = model.lay_out(open_sources(TEXTS))
    found = generate_lists(model.network, encoded, model.options(sample=True, temperature=0.5))
    true, turned = scored(model, encoded, found), scored(model, encoded, [*found[1:], found[0]])
    assert np.mean([e.best.source_bits for e in true]) > np.mean([e.best.source_bits for e in turned])
    for each in turned:
        assert each.best.least_bits <= each.best.source_bits + 1e-9
        assert each.best.made_up is (each.best.least_bits < 0.1)
    assert any(each.best.made_up for each in turned)
    for i, each in enumerate(turned):  # the best of the others is at least as good as the one that it was made from
        own = -math.fsum(t.log_probability for t in true[(i + 1) % len(TEXTS)].best.tokens)
        mine = -each.best.log_probability
        assert each.best.least_bits <= (own - mine) / math.log(2) / len(each.best.tokens) + 1e-4


def test_of_one_source_alone_bits_are_against_an_emptied_one_and_say_so() -> None:
    model = made()
    found = model.generate(TEXTS[0], scores=True)
    assert found.of[0].against == "an empty source"
    assert math.isfinite(found.of[0].best.source_bits)


def test_scores_of_a_set_do_not_depend_on_the_set_if_they_are_alone() -> None:
    model = made()
    together, alone = model.generate(TEXTS, scores=True, alone=True), model.generate(TEXTS[:1], scores=True, alone=True)
    assert together.of[0].against == alone.of[0].against
    assert together.of[0].best.source_bits == pytest.approx(alone.of[0].best.source_bits, abs=1e-4)


def test_a_given_beginning_is_marked_and_not_counted(pair: tuple[Any, Model, Path]) -> None:
    opened = pair[1]
    best = opened.generate(SOURCES, scores=True, beams=2, max_new_tokens=5, target_prefix="ran mol").of[0].best
    given = [token for token in best.tokens if token.given]
    assert "".join(token.text for token in given).strip().endswith("ran mol")
    counted = [token.log_probability for token in best.tokens if not token.given]
    assert best.log_probability == pytest.approx(math.fsum(counted))
    assert len(counted) <= 5


@pytest.mark.parametrize("score", ["chrf", "bleu"])
def test_mbr_chooses_what_is_most_like_the_others(score: str) -> None:
    texts = ["ein Hund läuft", "ein Hund läuft", "der Hund läuft weg", "eine Katze"]
    one = sentence_chrf if score == "chrf" else sentence_bleu
    expected = [np.mean([100.0 if a == b else one(a, [b]).score for b in texts]) for a in texts]
    assert utilities(texts, score) == pytest.approx(expected)
    model = made()
    found = model.generate(TEXTS, mbr=score, beams=4, n_best=4)
    for outputs, plain in zip(found.of, model.generate(TEXTS, beams=4, n_best=4).of, strict=True):
        own = [output.text for output in plain.best_first]
        gains = dict(zip(own, utilities(own, score), strict=True))
        assert [o.utility for o in outputs.best_first] == pytest.approx(sorted(map(gains.get, own), reverse=True))
        assert gains[outputs.best.text] == pytest.approx(max(gains.values()))
    drawn = model.generate(TEXTS, mbr=score, sample=True, mbr_candidates=6, seed=1)
    every = model.generate(TEXTS, sample=True, n_best=6, seed=1)
    assert all(text in [o.text for o in e.best_first] for text, e in zip(drawn, every.of, strict=True))


def test_mbr_by_comet_asks_for_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RequestError, match="comet: no command comet-score"):
        made().generate(TEXTS, mbr="comet", beams=2)


@torch.inference_mode()
def test_an_ensemble_has_the_mean_of_the_probabilities(tmp_path: Path) -> None:
    """Greedy, token by token, by transformers' own classes; of one model twice it is that model."""
    first = write_folder("t5", tmp_path / "a")
    second = write_folder("t5", tmp_path / "b")
    for weight in second.parameters():
        weight.copy_(weight + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(weight))))
    second.save_pretrained(tmp_path / "b")
    both = sourcewise.load([tmp_path / "a", tmp_path / "b"])
    for source, output in zip(SOURCES, both.generate(SOURCES, beams=1, max_new_tokens=6, scores=True).of, strict=True):
        ids, said = torch.tensor([TOKENIZER.encode(source)]), [0]
        for token in output.best.tokens:
            given = {"input_ids": ids, "decoder_input_ids": torch.tensor([said])}
            p = sum(model(**given).logits[0, -1].softmax(-1) for model in (first, second)) / 2
            assert int(p.argmax()) == token.id
            assert token.log_probability == pytest.approx(math.log(p.max()), abs=1e-4)
            said.append(token.id)
    twice = sourcewise.load([tmp_path / "a", tmp_path / "a"])
    alone = sourcewise.load(tmp_path / "a")
    assert list(twice.generate(SOURCES, max_new_tokens=6)) == list(alone.generate(SOURCES, max_new_tokens=6))


def test_what_does_not_go_together_is_no_ensemble(tmp_path: Path) -> None:
    write_folder("t5", tmp_path / "a")
    write_folder("bart", tmp_path / "b")
    with pytest.raises(RequestError, match=r"b: cannot join .*a in an ensemble: the start token: 1, not 0"):
        sourcewise.load([tmp_path / "a", tmp_path / "b"])
    other = made()
    with pytest.raises(RequestError, match=r"tiny: cannot join .*its vocabulary is another one"):
        sourcewise.generation.model.ensemble([load(tmp_path / "a"), other])
    with pytest.raises(RequestError, match="an ensemble has at least one model"):
        sourcewise.load([])


def test_the_command_writes_n_best_lists_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder("t5", tmp_path / "m")
    (tmp_path / "in.txt").write_text("\n".join(SOURCES) + "\n")
    words = ["generate", str(tmp_path / "m"), str(tmp_path / "in.txt"), "--n-best", "3", "--max-new-tokens", "6"]
    assert main([*words, "--scores", "--json", "--length-penalty", "0.5", "--generation.beams", "5"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = load(tmp_path / "m").generate(SOURCES, n_best=3, scores=True, beams=5, length_penalty=0.5, max_new_tokens=6)
    assert [row["output"] for row in rows] == list(found)
    for row, outputs in zip(rows, found.of, strict=True):
        assert row["outputs"] == outputs.to_dict()["outputs"]
        assert {"text", "score", "log_probability", "source_bits", "made_up", "finished", "tokens"} <= set(
            row["outputs"][0]
        )
        assert len(row["slots"]) == len(TOKENIZER.encode(row["source"]))
    assert main([*words, "--scores"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [str(i) for i in range(1, len(SOURCES) + 1) for _ in range(3)]
    assert {len(line) for line in lines} == {5}


def test_every_option_of_a_recipe_is_one_of_the_commands() -> None:
    from sourcewise.cli.options import RARE, SHOWN
    from sourcewise.config import GenerationConfig

    assert sorted({*SHOWN, *RARE}) == sorted(GenerationConfig.model_fields)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--early-stopping", "soon"], "early_stopping"),
        (["--length-penalty", "9"], "length_penalty should be less than or equal to 5"),
        (["--n-best", "0"], "n_best should be an integer from 1"),
        (["--n-best", "3", "--beams", "2"], "n_best 3 is above beams 2"),
        (["--suppress", "☃"], "the tokenizer cannot spell this word"),
    ],
)
def test_wrong_options_are_refused_in_a_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder("t5", tmp_path / "m")
    (tmp_path / "in.txt").write_text(SOURCES[0] + "\n")
    capsys.readouterr()
    assert main(["generate", str(tmp_path / "m"), str(tmp_path / "in.txt"), *words]) == 2
    err = capsys.readouterr().err
    assert line in err and len(err.strip().splitlines()) == 1


def test_a_trace_and_an_evaluation_take_the_same_options(models: Models, tmp_path: Path) -> None:
    model = made()
    how: dict[str, Any] = {"mbr": "chrf", "beams": 4, "stop": ["lu"], "repetition_penalty": 1.2}
    assert [sourcewise.trace(model, TEXTS, i, **how).output for i in range(len(TEXTS))] == model.generate(TEXTS, **how)
    pairs = [(text, "ba lu") for text in TEXTS]
    rows = sourcewise.evaluate(model, pairs, generation=how).rows
    assert [row.output for row in rows] == model.generate(TEXTS, **how)
    with pytest.raises(RequestError, match="mbr comet is for generate and evaluate"):
        sourcewise.trace(model, TEXTS[0], mbr="comet")


def test_commands_take_the_same_options(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "d.tsv"
    data.write_text("source\ttarget\n" + "".join(f"word {i}\tword {i}\n" for i in range(4)))
    options = ["--target-prefix", "word", "--length-penalty", "0.3", "--max-new-tokens", "4"]
    assert main(["evaluate", str(models.text), str(data), *options, "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    lines = (tmp_path / "out" / "translations.tsv").read_text().splitlines()[1:]
    found = load(models.text).generate(
        [f"word {i}" for i in range(4)], target_prefix="word", length_penalty=0.3, max_new_tokens=4
    )
    assert all(text in line for text, line in zip(found, lines, strict=True))
    assert main(["trace", str(models.text), "word 1", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"]["text"].startswith("word")
    both = ["generate", str(models.text), str(data), "--ensemble", str(models.text), *options]
    assert main(both) == 0
    assert capsys.readouterr().out.splitlines() == list(found)
