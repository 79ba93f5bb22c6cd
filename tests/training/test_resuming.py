"""`--resume`: exactly where the run left off, or a word that says why not."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import sourcewise
from sourcewise.api import prepare
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import DataWarning, Notice, RequestError
from sourcewise.training import step
from sourcewise.training.run import Run
from tests.training.recipes import feature_recipe, pairs_file, recipe
from tests.training.stopping import Stops


def exactly(run: Run) -> list[dict[str, object]]:
    """Its steps and evaluations, without how long they took."""
    timed, kinds = ("seconds", "tokens_per_s", "peak_mb"), ("train", "evaluation")
    return [{k: v for k, v in line.items() if k not in timed} for line in run.metrics() if line["kind"] in kinds]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return sourcewise.train(recipe(tmp_path, train__steps=16))


@pytest.mark.parametrize("gone", ["state/state.pt", "state"])
def test_without_its_state_a_run_is_left_as_it_is(run: Run, gone: str) -> None:
    path = run.folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = (run.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(RequestError, match=r"state\.pt: no such file.*at step 16.*--model .*last.*--overwrite"):
        sourcewise.train(run.folder, resume=True)
    assert (run.folder / "metrics.jsonl").read_bytes() == before


def test_a_state_lost_between_two_evaluations_is_missed_too(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=16, train__save_every=2))
    run.state.unlink()
    (run.folder / "metrics.json").unlink()
    run.rewind(4)
    with pytest.raises(RequestError, match=r"no such file.*at step 4"):
        sourcewise.train(run.folder, resume=True)


def test_a_run_that_never_saved_begins_again_and_says_so(run: Run) -> None:
    whole = exactly(run)
    run.state.unlink()
    (run.folder / "metrics.json").unlink()
    run.rewind(4)
    with pytest.warns(DataWarning, match="nothing was saved before it ended at step 4, so it begins again"):
        again = sourcewise.train(run.folder, resume=True)
    assert exactly(again) == whole


def test_a_run_that_is_as_it_was_goes_on_without_a_word(run: Run) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        sourcewise.train(run.folder, resume=True)


def test_a_line_more_is_other_training_data(run: Run, tmp_path: Path) -> None:
    with (tmp_path / "pairs.tsv").open("a") as file:
        file.write("ba do\tone two\n")
    with pytest.warns(DataWarning, match=r"training data .*\(1,500 examples, now 1,501 examples\)"):
        sourcewise.train(run.folder, resume=True)


def test_a_word_that_differs_is_other_validation_data(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "valid.tsv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace("one", "two", 1) if "one" in lines[3] else lines[3].rpartition(" ")[0] + " one"
    path.write_text("\n".join(lines) + "\n")
    with pytest.warns(DataWarning, match=r"validation data is not what the run began with \(24 examples, now 24"):
        sourcewise.train(run.folder, resume=True)


def test_matrices_that_differ_are_other_data(tmp_path: Path) -> None:
    run = sourcewise.train(feature_recipe(tmp_path, train__steps=2, train__evaluate_every=2))
    file = run.folder / "recipe.yaml"
    file.write_text(file.read_text().replace("limit: 200", "limit: 190"))
    with pytest.warns(DataWarning, match="200 examples, now 190"):
        sourcewise.train(run.folder, resume=True)


def test_another_tokenizer_is_refused(run: Run) -> None:
    Tokenizer.train(["ba do ki lu me no one two three four five six seven"] * 3, 40).save(run.tokenizer)
    with pytest.raises(RequestError, match="tokenizer: not the tokenizer that the run began with"):
        sourcewise.train(run.folder, resume=True)


def test_a_tokenizer_that_is_gone_is_made_again_from_the_same_texts(run: Run, tmp_path: Path) -> None:
    shutil.rmtree(run.tokenizer)
    sourcewise.train(run.folder, resume=True)
    shutil.rmtree(run.tokenizer)
    (tmp_path / "pairs.tsv").write_text("source\ttarget\nxyz xyz\tqrs qrs\nba\tone\n")
    with pytest.raises(RequestError, match="not the tokenizer"):
        sourcewise.train(run.folder, resume=True)


def test_a_finished_run_goes_on_for_more_steps(tmp_path: Path) -> None:
    flat = {"train__schedule": "constant"}
    whole = sourcewise.train(recipe(tmp_path, name="whole", train__steps=24, **flat))
    run = sourcewise.train(recipe(tmp_path, name="longer", train__steps=16, **flat))
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        run = sourcewise.train(run.folder, {"train.steps": 24}, resume=True)
    assert run.recipe.train.steps == 24
    assert exactly(run) == exactly(whole)


def test_more_steps_change_a_schedule_that_knows_its_end_and_fewer_are_refused(run: Run) -> None:
    with pytest.warns(DataWarning, match=r"train\.steps: 24 instead of 16; the learning rate"):
        sourcewise.train(run.folder, {"train.steps": 24}, resume=True)
    with pytest.raises(RequestError, match=r"--train\.steps: the run has 24; it can only be more"):
        sourcewise.train(run.folder, {"train.steps": 20}, resume=True)
    with pytest.raises(RequestError, match=r"--train\.learning_rate: the run has .*leave"):
        sourcewise.train(run.folder, {"train.learning_rate": 1.0}, resume=True)


def test_a_run_of_before_this_was_noted_is_taken_as_it_is(run: Run, tmp_path: Path) -> None:
    (run.folder / "state" / "origin.json").unlink()
    sourcewise.train(run.folder, resume=True)
    pairs_file(tmp_path, size=1400)
    with pytest.warns(DataWarning, match="1,500 examples, now 1,400"):
        sourcewise.train(run.folder, resume=True)


def test_a_run_that_lost_its_metrics_is_left_as_it_is(run: Run) -> None:
    path = run.folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:30] + "}\n", *lines[2:]]))
    with pytest.raises(RequestError, match=r"metrics\.jsonl:2: damaged: .*take it out"):
        sourcewise.train(run.folder, resume=True)
    for lost in (lambda: path.write_text(""), path.unlink):
        lost()
        with pytest.raises(
            RequestError, match=r"metrics\.jsonl: no such file, or empty.*put it back, or begin a new one"
        ):
            sourcewise.train(run.folder, resume=True)


def test_a_last_line_that_a_kill_cut_is_written_again(run: Run) -> None:
    whole = exactly(run)
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st\0\0')
    assert exactly(sourcewise.train(run.folder, resume=True)) == whole


@pytest.mark.parametrize("was, now", [("d_model: 32", "d_model: 16"), ("encoder_layers: 1", "encoder_layers: 2")])
def test_the_state_of_another_network_is_named(run: Run, was: str, now: str) -> None:
    file = run.folder / "recipe.yaml"
    file.write_text(file.read_text().replace(was, now))
    with (
        pytest.warns(DataWarning, match=rf"recipe\.yaml: not as the run began: model\.{now.replace(': ', ' ')}"),
        pytest.raises(RequestError, match=r"state\.pt: not the state of the network that .*recipe\.yaml describes: "),
    ):
        sourcewise.train(run.folder, resume=True)


def test_fewer_layers_than_the_state_has_are_seen(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=4, train__evaluate_every=4, model__decoder_layers=2))
    file = run.folder / "recipe.yaml"
    file.write_text(file.read_text().replace("decoder_layers: 2", "decoder_layers: 1"))
    with pytest.warns(DataWarning), pytest.raises(RequestError, match="in it, and not there in the network"):
        sourcewise.train(run.folder, resume=True)


def test_options_changed_in_its_recipe_are_told(run: Run) -> None:
    file = run.folder / "recipe.yaml"
    file.write_text(
        file.read_text().replace("warmup_steps: 4", "warmup_steps: 2").replace("log_every: 4", "log_every: 2")
    )
    told = (
        r"not as the run began: train\.warmup_steps 2 instead of 4, train\.log_every 2 instead of 4|log_every.*warmup"
    )
    with pytest.warns(DataWarning, match=told):
        sourcewise.train(run.folder, resume=True)


def test_checkpoints_that_were_deleted_come_back_from_the_state(run: Run) -> None:
    before = (run.last / "model.safetensors").read_bytes()
    shutil.rmtree(run.folder / "checkpoints")
    sourcewise.train(run.folder, resume=True)
    assert (run.last / "model.safetensors").read_bytes() == before


def test_a_copy_of_the_checkpoints_is_no_run(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder / "checkpoints", tmp_path / "copy" / "checkpoints")
    with pytest.raises(RequestError, match=r"copy: no such recipe; a folder without recipe\.yaml is no run; --model "):
        sourcewise.train(tmp_path / "copy", resume=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["masters", "exp_avg_sq"])
def test_a_state_of_values_that_are_no_numbers_is_refused(run: Run, kind: str, value: float) -> None:
    saved = torch.load(run.state, weights_only=True)
    if kind == "masters":
        tensor = next(iter(saved["optimizer"]["masters"].values()))
    else:
        tensor = next(iter(saved["optimizer"]["moments"].values()))[kind]
    tensor.view(-1)[3] = value
    torch.save(saved, run.state)
    before = (run.folder / "metrics.jsonl").read_bytes()
    with pytest.raises(RequestError, match=rf"state\.pt: .*1 of {tensor.numel():,} values are not finite"):
        sourcewise.train(run.folder, resume=True)
    assert (run.folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(("began", "goes_on"), [(2, 1), (1, 2)])
def test_on_another_number_of_threads_it_learns_from_the_same_batches(
    began: int, goes_on: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are cut into the parts that it began with: even dropout is the same, and the order of sums."""
    monkeypatch.setattr(step, "LEAST_FLOPS", 0)  # threads share even such small batches
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    options = {
        "train__precision": "fp32",
        "train__steps": 12,
        "train__save_every": 5,
        "train__log_every": 1,
        "train__threads": None,
        "model__dropout": 0.1,
    }
    kept = torch.get_num_threads()
    try:
        torch.set_num_threads(began)
        whole = sourcewise.train(recipe(tmp_path, name="whole", **options))
        with pytest.raises(MemoryError):
            sourcewise.train(recipe(tmp_path, name="parts", **options), listeners=[Stops(7)])
        torch.set_num_threads(goes_on)
        with pytest.warns(
            Notice, match=rf"{goes_on} threads? instead of .*{began} threads?.*its steps differ a little"
        ):
            parts = sourcewise.train(tmp_path / "runs" / "parts", resume=True)
    finally:
        torch.set_num_threads(kept)
    first, second = (exactly(run) for run in (whole, parts))
    assert first == second


def test_what_was_changed_in_its_recipe_holds_from_there_on(tmp_path: Path) -> None:
    """AdamW's decay and its moments' are the recipe's, not those that the state was saved with; and that is told."""
    options = {"train__steps": 8, "train__evaluate_every": 4, "train__log_every": 1}
    run = sourcewise.train(recipe(tmp_path, **options))
    before = exactly(run)
    file = run.folder / "recipe.yaml"
    file.write_text(file.read_text().replace("beta1: 0.9", "beta1: 0.5").replace("steps: 8", "steps: 10"))
    with pytest.warns(DataWarning, match=r"not as the run began: train\.beta1 0\.5 instead of 0\.9; it goes on with"):
        sourcewise.train(run.folder, resume=True)
    learner = prepare(run.recipe, run, resume=True).learner
    assert {group["betas"][0] for group in learner.optimizer.adamw.param_groups} == {0.5}
    learner.optimizer.load_state_dict(torch.load(run.state, weights_only=True)["optimizer"])
    assert {group["betas"][0] for group in learner.optimizer.adamw.param_groups} == {0.5}
    assert exactly(run)[: len(before)] == before
