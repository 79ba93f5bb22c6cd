"""Somebody's file or texts, read as a recipe reads its own sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sourcewise.config import DataConfig
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError

MIXTURE = [
    {"pairs": "german.tsv", "prefix": "to German: ", "lowercase": True, "source": "english"},
    {"pairs": "french.tsv", "prefix": "to French: ", "name": "french"},
]


def data(**options: Any) -> DataConfig:
    return DataConfig.model_validate(options)


@pytest.mark.parametrize("given", [["A Cat"], "file"])
def test_texts_and_files_get_the_prefix_and_case_of_the_own_set(given: Any, tmp_path: Path) -> None:
    path = tmp_path / "any.txt"
    path.write_text("A Cat\n")
    request = SourceRequest(data(train=MIXTURE[0]))
    assert request.sources(str(path) if given == "file" else given)[0].source == "to German: a cat"
    other = SourceRequest(data(train=MIXTURE[0]), prefix="")
    assert other.sources(str(path) if given == "file" else given)[0].source == "a cat"


def test_of_a_mixture_the_task_or_the_file_says_which(tmp_path: Path) -> None:
    of = data(train=MIXTURE, root="/elsewhere")
    assert SourceRequest(of, task="french").sources(["A Cat"])[0].source == "to French: A Cat"
    assert SourceRequest(of).sources(["A Cat"], "there/german.tsv")[0].source == "to German: a cat"
    with pytest.raises(RequestError, match="of which task"):
        SourceRequest(of).sources(["A Cat"])
    with pytest.raises(RequestError, match="--task dutch"):
        SourceRequest(of, task="dutch").sources(["A Cat"])


def test_pairs_to_measure_by_are_read_with_the_same_columns(tmp_path: Path) -> None:
    path = tmp_path / "german.tsv"
    path.write_text("english\tsource\ttarget\nA Cat\tno\tEine Katze\n")
    request = SourceRequest(data(train=MIXTURE, root="/elsewhere"))
    assert [(e.source, e.target) for e in request.examples(str(path))] == [("to German: a cat", "eine katze")]
    assert request.sources(str(path))[0].source == "to German: a cat"
    named = SourceRequest(data(train=MIXTURE, root="/elsewhere"), source="target", target="source")
    assert [(e.source, e.target) for e in named.examples(str(path))] == [("to German: eine katze", "no")]
    missing = SourceRequest(data(train=MIXTURE), target="nowhere")
    with pytest.raises(RequestError, match="nowhere"):
        missing.examples(str(path))


def test_a_model_without_a_recipe_reads_what_is_there() -> None:
    assert SourceRequest(data()).sources(["A Cat"])[0].source == "A Cat"
    assert SourceRequest(data(), prefix="say: ").sources(["A Cat"])[0].source == "say: A Cat"
    assert SourceRequest(data()).sources([np.ones((3, 2))]).dims == 2


def test_a_conversation_begins_with_what_a_human_says(tmp_path: Path) -> None:
    of = data(train={"conversations": "talk.json"}, chat={"system": "Be kind.", "human": "H: ", "model": "M: "})
    assert SourceRequest(of).sources(["Hello"])[0].source.startswith("Be kind.\n\n### H: : Hello\n")
