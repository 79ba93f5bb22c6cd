"""Whole small trainings: the files they leave, the figures they reach, what stops them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sourcewise
from sourcewise.config.files import load_recipe, save_recipe
from sourcewise.errors import RequestError
from sourcewise.training.run import create_run, locked
from sourcewise.training.state import load_state
from tests.commands import ENVIRONMENT
from tests.forking import Forking
from tests.training.recipes import SPOKEN, WORDS, feature_recipe, recipe


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / "last" / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.pages
def test_a_run_leaves_the_files_of_the_contract_and_learns(tmp_path: Path) -> None:
    wider = {"d_model": 64, "d_ff": 128, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
    options = {"train__learning_rate": 3e-3, "train__batch_tokens": 1024, "train__evaluate_every": 200}
    run = sourcewise.train(recipe(tmp_path, model=wider, train__steps=400, **options))
    for name in (
        "recipe.yaml",
        "metrics.jsonl",
        "metrics.json",
        "translations.tsv",
        "report.html",
        "training_curves.png",
    ):
        assert (run.folder / name).stat().st_size > 0, name
    for checkpoint in (run.last, run.best):
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in checkpoint.iterdir()}
    assert load_recipe(run.folder / "recipe.yaml") == run.recipe  # complete, and it reads back as itself
    lines = run.metrics()
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [200, 400]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[0] > 3 * losses[-1]
    figures = json.loads((run.folder / "metrics.json").read_text())
    assert figures["exact_match_pct"] >= 80
    assert figures["source_bits"] > 1
    assert run.evaluation is not None and run.evaluation.metrics["bleu"] == figures["bleu"]
    model = sourcewise.load(run.folder)
    assert model.generate(["ba do ki"]) == ["one two three"]
    assert "".join(model.stream("ba do ki")) == "one two three"
    memory = model.encode(["ba do ki", "no lu"])
    assert model.generate(memory) == model.generate(memory) == ["one two three", "six four"]


def test_of_evaluations_with_equal_figures_the_lowest_loss_is_best(tmp_path: Path) -> None:
    words = "source\ttarget\n" + "".join(f"{a}\t{b}\n" for a, b in zip(WORDS, SPOKEN, strict=True))
    (tmp_path / "words.tsv").write_text(words)  # BLEU of one word is 0, whether it is right or wrong
    files = {"train": {"pairs": str(tmp_path / "words.tsv")}, "valid": {"pairs": str(tmp_path / "words.tsv")}}
    run = sourcewise.train(recipe(tmp_path, data=files | {"vocabulary": 32}, train__learning_rate=1e-2))
    told = [line for line in run.metrics() if line["kind"] == "evaluation"]
    assert {line["bleu"] for line in told} == {0}
    assert [line["step"] for line in told if line.get("best")][-1] == min(told, key=lambda line: line["loss"])["step"]
    assert told[0]["loss"] > told[-1]["loss"]


@pytest.mark.parametrize("average", [0, 2])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    tmp_path: Path, precision: str, average: int
) -> None:
    options = {"train__precision": precision, "train__average": average}
    runs = [sourcewise.train(recipe(tmp_path, name=f"r{i}", seed=seed, **options)) for i, seed in enumerate((0, 0, 1))]
    assert same(weights(runs[0].folder), weights(runs[1].folder))
    assert not same(weights(runs[0].folder), weights(runs[2].folder))
    assert runs[0].evaluation is not None and runs[1].evaluation is not None
    assert runs[0].evaluation.outputs == runs[1].evaluation.outputs


KILL = """
import os, random, signal, sys, threading
import sourcewise
from sourcewise.training import learner, loop, state
from sourcewise.model.weights import checkpoint
from tests.commands import NoPages

sourcewise.api.LiveReport = NoPages
moment, count = sys.argv[2], int(sys.argv[3])
seen = 0

def dies(function, after):
    def wrapped(*args, **kwargs):
        global seen
        seen += 1
        if seen == count and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if seen == count and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

if moment == "step":
    learner.Learner.learn = dies(learner.Learner.learn, False)
elif moment == "evaluation":
    loop.evaluate_encoded = dies(loop.evaluate_encoded, True)
elif moment == "checkpoint":
    checkpoint.save_file = dies(checkpoint.save_file, True)  # tensors written, folder not yet in place
elif moment == "swap":
    checkpoint.Path.rename = dies(checkpoint.Path.rename, True)  # the old folder aside, the new one not yet there
elif moment == "state":
    state.os.fsync = dies(state.os.fsync, True)  # the new state written, not yet in place
sourcewise.train(sys.argv[1], resume=os.path.exists(sys.argv[1] + "/recipe.yaml"))
"""

MOMENTS = [
    *[("step", n) for n in (1, 7, 9, 18)],
    *[("evaluation", n) for n in (1, 2)],
    *[("checkpoint", n) for n in (1, 3)],
    *[("swap", n) for n in (2, 5)],
    *[("state", n) for n in (2, 4)],
]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_killed_at_any_moment_and_resumed_the_weights_are_the_same(tmp_path: Path, accumulate: int) -> None:
    options = {"train__average": 2, "train__save_every": 5, "train__accumulate": accumulate}
    whole = sourcewise.train(recipe(tmp_path, name="whole", **options))
    killed = recipe(tmp_path, name="killed", **options)
    file = tmp_path / "killed.yaml"
    save_recipe(killed, file)
    folder = tmp_path / "runs" / "killed"
    with Forking(tmp_path, ENVIRONMENT) as forked:
        for moment, count in MOMENTS[:: 1 if accumulate == 1 else 4]:
            target = str(folder) if (folder / "recipe.yaml").exists() else str(file)
            done = forked.run([target, moment, str(count)], KILL)
            assert done.returncode == -9 or "resuming" in done.stderr, done.stderr
    run = sourcewise.train(folder, resume=True)
    assert same(weights(whole.folder), weights(run.folder))
    best = [load_file(r.best / "model.safetensors") for r in (whole, run)]
    assert same(*best)
    timed = ("seconds", "tokens_per_s", "peak_mb", "device", "began")
    logs = [[{k: v for k, v in line.items() if k not in timed} for line in r.metrics()] for r in (whole, run)]
    assert logs[0] == logs[1]
    assert not [p for p in run.folder.rglob(".*") if p.name != ".lock"]  # nothing half-written stays


def test_micro_batches_weigh_as_many_tokens_as_they_have(tmp_path: Path) -> None:
    """One batch of everything, or the same examples in uneven parts: the same first step."""
    from sourcewise.api import prepare
    from sourcewise.training.run import Run

    norms = []
    for size in (100_000, 300):
        made = recipe(tmp_path, train__batch_tokens=size, train__precision="fp32", model__dropout=0.0, train__clip=0)
        learner = prepare(made, Run(tmp_path / f"run{size}")).learner
        taken = learner.learn(learner.plan.batches(0))
        norms.append((float(taken.norm), learner.at.nats, learner.at.targets))
    assert norms[0][2] == norms[1][2]
    assert norms[0][1] == pytest.approx(norms[1][1], rel=1e-5)
    assert norms[0][0] == pytest.approx(norms[1][0], rel=1e-4)


@pytest.mark.parametrize("bridge", ["projection", "attention", "perceiver", "convolution", "units"])
@pytest.mark.parametrize("route", ["encoder", "bypass"])
def test_every_bridge_and_route_trains_saves_and_loads(tmp_path: Path, bridge: str, route: str) -> None:
    made = feature_recipe(
        tmp_path,
        model__bridge={"kind": bridge, "latents": 8},
        model__route=route,
        train__ctc_weight=0.3,
        train__steps=16,
        train__augment={"time_masks": 1, "frequency_masks": 1, "frequency_width": 2, "speed": 0.2, "noise": 0.1},
    )
    run = sourcewise.train(made)
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    assert run.evaluation is not None
    model = sourcewise.load(run.folder)
    again = sourcewise.evaluate(model, "digits", generation={"beams": 1})
    assert again.metrics["examples"] == 400


def test_frozen_parts_do_not_move_and_the_others_do(tmp_path: Path) -> None:
    first = sourcewise.train(recipe(tmp_path, train__steps=8))
    second = sourcewise.train(
        recipe(tmp_path, name="second", model__weights=str(first.folder), train__freeze=["encoder", "embedding"])
    )
    before, after = load_file(first.best / "model.safetensors"), weights(second.folder)
    for name, weight in before.items():
        moved = not torch.equal(weight, after[name])
        assert moved == name.startswith("decoder"), name


def test_an_output_folder_in_use_is_refused(tmp_path: Path) -> None:
    made = recipe(tmp_path, train__steps=2)
    run = sourcewise.train(made)
    with pytest.raises(RequestError, match=r"a run is there.*--resume"):
        sourcewise.train(made)
    sourcewise.train(made, overwrite=True)
    with locked(run.folder), pytest.raises(RequestError, match="another process"):
        sourcewise.train(run.folder, resume=True)
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "precious.txt").write_text("keep me")
    with pytest.raises(RequestError, match="not a run"):
        create_run(recipe(tmp_path, name="other"), overwrite=True)
    assert (tmp_path / "runs" / "other" / "precious.txt").exists()


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=8))
    state = run.state.read_bytes()
    run.state.write_bytes(state[: len(state) // 2])
    kept = (run.folder / "recipe.yaml").read_bytes()
    with pytest.raises(RequestError, match=r"state\.pt: damaged"):
        sourcewise.train(run.folder, {"train.steps": 9}, resume=True)
    assert (run.folder / "recipe.yaml").read_bytes() == kept  # a refused request leaves it as it is
    run.state.write_bytes(state)
    sourcewise.train(run.folder, {"train.steps": 9}, resume=True)
    assert run.recipe.train.steps == 9


def test_a_state_is_never_unpickled(tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "boom"),))  # type: ignore[return-value]

    path = tmp_path / "state.pt"
    torch.save({"step": Bomb()}, path)
    with pytest.raises(RequestError, match="damaged"):
        load_state(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(RequestError, match="damaged"):
        load_state(path)
    assert not (tmp_path / "boom").exists()


def test_a_full_disk_is_told_in_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    save_recipe(recipe(tmp_path, name="full"), file)
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from sourcewise.cli import main\n"
        "import sourcewise.api, sourcewise.model.weights.checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        f"sys.exit(main(['train', {str(file)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    leftovers = [p for p in (tmp_path / "runs" / "full").rglob("*") if p.name.endswith(("-new", ".part"))]
    assert not leftovers


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    import signal
    import time

    file = tmp_path / "r.yaml"
    save_recipe(recipe(tmp_path, name="stopped", train__steps=4000, train__evaluate_every=4000), file)
    process = subprocess.Popen(
        [sys.executable, "-m", "sourcewise", "train", str(file)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "runs" / "stopped" / "metrics.jsonl"
    for _ in range(600):
        if metrics.exists() and '"train"' in metrics.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in told.splitlines()[-1] and "Traceback" not in told
    state = load_state(tmp_path / "runs" / "stopped" / "state" / "state.pt")
    assert state is not None and state["step"] >= 4


def test_options_change_a_recipe_that_is_given_as_an_object(tmp_path: Path) -> None:
    given = recipe(tmp_path)
    run = sourcewise.train(given, {"train.steps": 2, "name": "other"})
    assert (run.folder.name, run.recipe.train.steps, given.train.steps) == ("other", 2, 24)
    with pytest.raises(RequestError, match=r"train\.stepz"):
        sourcewise.train(given, {"train.stepz": 2})
    with pytest.raises(RequestError, match="d_model"):
        sourcewise.preflight(given, {"model.d_model": -1})
