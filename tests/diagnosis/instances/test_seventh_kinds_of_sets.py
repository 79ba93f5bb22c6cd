"""Kinds of which people tell, the seventh time, in tables, Trainers and folders: missing values, marks of other
programs, rows weighted by their number, attention and layers of one's own, an output layer that is tied away."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sourcewise.diagnosis.against import Against, Held, repeated
from sourcewise.diagnosis.measures.tied import apart_in_file, apart_in_memory
from sourcewise.diagnosis.rules import look
from tests.diagnosis.test_data_rules import found, recipe, translations
from tests.integrations.test_transformers import watched
from tests.integrations.trainings import bart, rows, t5, trainer


def at(folder: Path) -> Path:
    folder.mkdir()
    return folder


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "every", "level"), [("nan", 10, "error"), ("None", 40, "warning"), ("#N/A", 9, "error")]
)
@pytest.mark.parametrize("side", [0, 1])
def test_missing_values(tmp_path: Path, name: str, every: int, level: str, side: int) -> None:
    pairs = [
        tuple(name if i == side and row % every == 0 else text for i, text in enumerate(pair))
        for row, pair in enumerate(translations(600))
    ]
    finding = found(recipe(tmp_path, pairs))["DAT032"]
    assert finding.level == level and repr(name) in finding.evidence


def test_labels_may_be_none(tmp_path: Path) -> None:
    labels = ["none", "some", "many", "all of them"]
    pairs = [(source, labels[row % 4]) for row, (source, _) in enumerate(translations(400))]
    assert "DAT032" not in found(recipe(tmp_path, pairs))


@pytest.mark.parametrize("mark", ["&amp;", "&#39;", "\\u00e4"])
def test_marks_of_other_programs(tmp_path: Path, mark: str) -> None:
    pairs = [(a, f"{b} {mark}" if row % 8 == 0 else b) for row, (a, b) in enumerate(translations(400))]
    assert found(recipe(tmp_path, pairs))["DAT031"].level == "warning"
    assert "DAT031" not in found(recipe(at(tmp_path / "without"), translations(400)))


def test_rows_that_stand_there_as_often_as_they_count(tmp_path: Path) -> None:
    draw = random.Random(0)
    pairs = translations(500)
    held = pairs[400:]
    often = [pair for pair in pairs[:400] for _ in range(draw.randint(1, 5))]
    assert found(recipe(tmp_path, often, valid=held))["DAT010"].level == "note"
    assert found(recipe(at(tmp_path / "leaks"), often, valid=pairs[:80]))["DAT010"].level == "warning"
    twice = [pair for pair in pairs[:400] for _ in range(2)]
    assert found(recipe(at(tmp_path / "twice"), twice, valid=held))["DAT010"].level == "warning"


# ── modules of one's own in a Trainer ─────────────────────────────────────────────────────────────────────────────────


class Cross(nn.Module):
    """Cross-attention of one's own in a BART; `dim` is the axis of its softmax."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.q, self.k, self.v = nn.Linear(48, 48), nn.Linear(48, 48), nn.Linear(48, 48)

    def forward(self, hidden_states: Tensor, key_value_states: Tensor, **others: Any) -> tuple[Tensor, None]:
        scores = self.q(hidden_states) @ self.k(key_value_states).transpose(1, 2) / 7
        return torch.softmax(scores, self.dim) @ self.v(key_value_states), None


def codes(folder: Path, model: Any, **options: Any) -> dict[str, str]:
    made = trainer(folder, model, steps=4, **({"eval_strategy": "no"} | options))
    callback = watched(made)
    made.train()
    failed = [line for line in callback.diagnosis.not_checked if "Error: " in line]
    assert not failed, failed
    return {each.code: each.level for each in callback.diagnosis.findings}


@pytest.mark.parametrize(("dim", "level"), [(1, "error"), (2, None)])
def test_queries_that_compete_in_a_trainer(tmp_path: Path, dim: int, level: str | None) -> None:
    model = bart()
    model.model.decoder.layers[0].encoder_attn = Cross(dim)
    assert codes(tmp_path, model).get("WIR044") == level


def test_one_layer_several_times_in_a_trainer(tmp_path: Path) -> None:
    model = t5()
    model.encoder.block = nn.ModuleList([model.encoder.block[0]] * 3)
    assert codes(tmp_path, model)["WIR046"] == "warning"
    assert not {"WIR044", "WIR045", "WIR046"} & codes(tmp_path / "healthy", t5()).keys()


class Deaf(nn.Module):
    """A decoder's embedding that gives the same for every word."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(table.clone())

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight[torch.zeros_like(ids)]


def test_a_decoder_that_does_not_read_in_a_trainer(tmp_path: Path) -> None:
    model = t5()
    model.decoder.embed_tokens = Deaf(model.shared.weight.detach())
    assert codes(tmp_path, model)["WIR045"] == "warning"


# ── what a Trainer evaluates on ───────────────────────────────────────────────────────────────────────────────────────


def long_rows(count: int, seed: int) -> list[dict[str, list[int]]]:
    """Words of eight letters, of which no two are the same by chance."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        word = torch.randint(4, 16, (8,), generator=draw).tolist()
        out.append({"input_ids": [*word, 1], "labels": [*reversed(word), 1]})
    return out


def evaluating(folder: Path, valid: list[dict[str, list[int]]]) -> dict[str, str]:
    options = {"eval_strategy": "steps", "eval_steps": 19, "per_device_train_batch_size": 32}
    made = trainer(folder, t5(), steps=20, train=long_rows(600, 0), valid=valid, **options)
    callback = watched(made)
    made.train()
    return {each.code: each.level for each in callback.diagnosis.findings}


def test_a_trainer_evaluates_on_its_training_data(tmp_path: Path) -> None:
    assert evaluating(tmp_path / "same", long_rows(600, 0)[:64])["DAT033"] == "warning"
    assert not {"DAT033", "DAT034"} & evaluating(tmp_path / "other", long_rows(64, 1)).keys()
    cut = [{**row, "input_ids": row["input_ids"][:-1]} for row in long_rows(64, 1)]
    assert evaluating(tmp_path / "cut", cut)["DAT034"] == "warning"


def held(rows: list[tuple[list[int], list[int]]]) -> Held:
    return Held([(tuple(a), tuple(b)) for a, b in rows], [a for a, _ in rows], [b for _, b in rows])


def test_a_set_that_is_gone_through_again_has_no_copies_by_nature() -> None:
    assert repeated([1, 2, 3, 4] * 3) == 0.0
    assert repeated([1, 2, 1, 3, 2, 4, 5, 1]) > 0.3
    data = [([i, 1], [i, 2]) for i in range(100)]
    piece = look(Against(held(data * 2), held(data[:40])))
    assert [each.code for each in piece.findings] == ["DAT033"]


# ── an output layer of its own ────────────────────────────────────────────────────────────────────────────────────────


def test_a_head_that_a_configuration_ties(tmp_path: Path) -> None:
    model = bart()
    assert apart_in_memory(model) == ""
    model.lm_head = nn.Linear(48, 16, bias=False)
    assert "tie_word_embeddings" in apart_in_memory(model)
    assert codes(tmp_path, model)["WIR050"] == "warning"
    model.config.tie_word_embeddings = False
    assert apart_in_memory(model) == ""


def test_a_file_with_both_tables(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    table, head = (torch.randn(16, 8, generator=draw) for _ in range(2))
    config = tmp_path / "config.json"
    for other, tied, ill in ((head, True, True), (head, False, False), (table + 1e-5, True, False)):
        config.write_text(json.dumps({"tie_word_embeddings": tied}))
        tables = {"shared.weight": table, "lm_head.weight": other.clone()}
        save_file(tables, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert bool(apart_in_file(tmp_path)) == ill
    assert rows(1)


def of_words(count: int, seed: int, change: Callable[[int], int] = int) -> Held:
    """Rows of ten ids of which few are common and most are rare, as words are."""
    draw = np.random.default_rng(seed)
    rows = [[change(int(i)) for i in 4 + draw.zipf(1.3, 10) % 5000] for _ in range(count)]
    return Held([hash(tuple(row)) for row in rows], rows, rows)


@pytest.mark.parametrize("count", [60, 600, 3000])
def test_ids_of_another_tokenizer(count: int) -> None:
    order = np.random.default_rng(7).permutation(5004)
    for change, told in ((int, False), (lambda i: 9000 + i, True), (lambda i: int(order[i]), True)):
        found = look(Against(of_words(count, 0), of_words(200, 1, change)), codes="DAT034").findings
        assert bool(found) == told, (count, told, [each.evidence for each in found])
