"""Which files of a folder are read, and what is said of those that cannot be: as transformers, or the file named."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sourcewise.errors import Notice, RequestError
from sourcewise.model.weights.checkpoint import find_folder, load_network
from tests.model.test_embeddings import folder_of, ours, store, theirs

transformers = pytest.importorskip("transformers")
KINDS = ["t5", "bart", "pegasus"]  # two of our own families, and one through the adapter
INDEX = "model.safetensors.index.json"


def whole(kind: str, folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    """A model's weights, in a folder without files of weights."""
    rest, names = folder_of(kind, folder)
    torch.manual_seed(seed)
    (folder / "model.safetensors").unlink()
    return {**rest, names[0]: torch.randn(40, 16) * 0.3}


def shard(folder: Path, weights: dict[str, torch.Tensor], name: str = "model.safetensors", below: str = "") -> None:
    """Two shards and their index."""
    keys, stem = sorted(weights), name.partition(".")[0]
    parts = keys[::2], keys[1::2]
    files = [f"{below}{stem}-0000{i}-of-00002.{name.partition('.')[2]}" for i in (1, 2)]
    for file, part in zip(files, parts, strict=True):
        (folder / file).parent.mkdir(exist_ok=True)
        held = {key: weights[key].contiguous() for key in part}
        if name.endswith(".bin"):
            torch.save(held, folder / file)
        else:
            save_file(held, folder / file, {"format": "pt"})
    placed = {key: file for file, part in zip(files, parts, strict=True) for key in part}
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_that_transformers_reads_is_read(kind: str, tmp_path: Path) -> None:
    first, second = whole(kind, tmp_path, 0), whole(kind, tmp_path, 1)
    backup = {k: w.contiguous() for k, w in second.items()}
    for name in ("model.safetensors.bak", "model (1).safetensors", "old.safetensors"):
        save_file(backup, tmp_path / name, {"format": "pt"})
    for name in ("pytorch_model_old.bin", "pytorch_model.bak.bin", "optimizer.pt", "training_args.bin"):
        torch.save(second, tmp_path / name)
    answers, told = [], []
    for write in (
        lambda: shard(tmp_path, first, "pytorch_model.bin"),
        lambda: torch.save(second, tmp_path / "pytorch_model.bin"),
        lambda: shard(tmp_path, first),
        lambda: store(tmp_path, second),
    ):
        write()  # type: ignore[no-untyped-call]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            answers.append(ours(tmp_path))
        told.append([str(w.message) for w in caught if w.category is Notice])
        torch.testing.assert_close(answers[-1], theirs(tmp_path)[0], atol=1e-4, rtol=0)
    beside = "read, as transformers does; the shards of {}.index.json beside it are not"
    assert told[0] == told[2] == []
    assert told[1] == [f"{tmp_path}/pytorch_model.bin: {beside.format('pytorch_model.bin')}"]
    assert told[3] == [f"{tmp_path}/model.safetensors: {beside.format('model.safetensors')}"]
    assert torch.equal(answers[0], answers[2]) and torch.equal(answers[1], answers[3])
    assert not torch.allclose(answers[0], answers[1], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_the_configuration_names_and_shards_in_a_folder_below(kind: str, tmp_path: Path) -> None:
    weights, others = whole(kind, tmp_path, 0), whole(kind, tmp_path, 1)
    store(tmp_path, others)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": "mine.safetensors"}))
    with pytest.raises(RequestError, match=r"mine\.safetensors: missing"):
        load_network(tmp_path)
    save_file({k: w.contiguous() for k, w in weights.items()}, tmp_path / "mine.safetensors", {"format": "pt"})
    named = ours(tmp_path)
    torch.testing.assert_close(named, theirs(tmp_path)[0], atol=1e-4, rtol=0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").unlink()
    shard(tmp_path, weights, below="shards/")
    assert torch.equal(ours(tmp_path), named)


def test_links_of_a_cache_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    weights = whole("t5", blobs)
    shard(blobs, weights)
    expected = ours(blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert torch.equal(ours(snapshot), expected)
    next(blobs.glob("model-00002*")).unlink()
    with pytest.raises(RequestError, match=r"of its 2 shards 1 are missing \(model-00002-of-00002\.safetensors\)"):
        load_network(snapshot)
    (snapshot / INDEX).unlink()
    with pytest.raises(RequestError, match=r"shards without their|is a link to a file that is gone"):
        load_network(snapshot)


def mapped(**weight_map: Any) -> Callable[[Path], object]:
    def spoil(folder: Path) -> object:
        said = json.loads((folder / INDEX).read_text())
        return (folder / INDEX).write_text(json.dumps({**said, "weight_map": {**said["weight_map"], **weight_map}}))

    return spoil


def index(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / INDEX).write_text(text)


def first_shard(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "model-00001-of-00002.safetensors").write_bytes(content)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "not JSON": (index("{"), r"index\.json: not a JSON object"),
    "a list": (index('["a"]'), r"index\.json: (not a JSON object|has no weight_map)"),
    "no map": (index('{"metadata": {}}'), r"index\.json: has no weight_map"),
    "an empty map": (index('{"weight_map": {}}'), r"index\.json: has no weight_map"),
    "a list for a map": (index('{"weight_map": ["a"]}'), r"index\.json: has no weight_map"),
    "a number": (mapped(a=3), r"index\.json: places a in 3"),
    "nothing": (mapped(a=None), r"index\.json: places a in None"),
    "an empty name": (mapped(a=""), r"index\.json: names '', which is no file in its folder"),
    "the folder above": (mapped(a="../x.safetensors"), r"index\.json: names '\.\./x\.safetensors', which is no file"),
    "a way out": (mapped(a="a/../../x.safetensors"), r"index\.json: names .* which is no file in its folder"),
    "an absolute path": (mapped(a="/etc/x.safetensors"), r"index\.json: names '/etc/x\.safetensors', which is no file"),
    "a path of Windows": (mapped(a="C:\\x.safetensors"), r"index\.json: names .* which is no file in its folder"),
    "another's shards": (mapped(a="model-00003-of-00003.safetensors"), r"index\.json: of its 3 shards 1 are missing"),
    "a shard cut off": (
        lambda f: first_shard((f / "model-00001-of-00002.safetensors").read_bytes()[:200])(f),
        r"00001-of-00002\.safetensors: truncated or not safetensors",
    ),
    "an empty shard": (first_shard(b""), r"00001-of-00002\.safetensors: truncated or not safetensors"),
    "a pointer": (
        first_shard(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        r"00001-of-00002\.safetensors: a pointer of Git LFS, not the file itself; fetch it with: git lfs pull",
    ),
    "a pointer for an index": (
        index("version https://git-lfs.github.com/spec/v1\n"),
        r"index\.json: a pointer of Git LFS",
    ),
    "a shard without its tensors": (
        lambda f: store_as(f / "model-00001-of-00002.safetensors", {"x": torch.zeros(2)}),
        r"00001-of-00002\.safetensors: the tensor .* is missing, and \d+ more",
    ),
}


def store_as(file: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file(weights, file, {"format": "pt"})


@pytest.mark.parametrize("case", SPOILT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_index_or_shard_is_named(kind: str, case: str, tmp_path: Path) -> None:
    weights = whole(kind, tmp_path / "model")
    store_as(tmp_path / "x.safetensors", {k: w.contiguous() for k, w in weights.items()})
    shard(tmp_path / "model", weights)
    spoil, line = SPOILT[case]
    spoil(tmp_path / "model")
    with pytest.raises(RequestError, match=line) as caught:
        load_network(tmp_path / "model")
    assert "\n" not in str(caught.value)


ABSENT: dict[str, tuple[list[str], str]] = {
    "a variant": (
        ["model.fp16.safetensors"],
        r"is a variant of them: to read it, copy it to model\.safetensors",
    ),
    "a variant in the old form": (["pytorch_model.fp16.bin"], r"is a variant .* copy it to pytorch_model\.bin"),
    "no index": (
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        r"are shards without their model\.safetensors\.index\.json",
    ),
    "no index in the old form": (
        ["pytorch_model-00001-of-00002.bin"],
        r"without their pytorch_model\.bin\.index",
    ),
    "TensorFlow": (["tf_model.h5"], r"tf_model\.h5 is of TensorFlow"),
    "Flax": (["flax_model.msgpack"], r"flax_model\.msgpack is of Flax"),
    "backups": (["model.safetensors.bak", "model (1).safetensors", "optimizer.pt"], r"never read: model \(1\)"),
    "another name": (["model.pt"], r"never read: model\.pt; save the model again with save_pretrained"),
    "nothing": ([], r"no weights \(model\.safetensors or pytorch_model\.bin\)$"),
}


@pytest.mark.parametrize("case", ABSENT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_without_weights_says_what_it_has(kind: str, case: str, tmp_path: Path) -> None:
    whole(kind, tmp_path)
    names, line = ABSENT[case]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RequestError, match=line):
        load_network(tmp_path)


def test_weights_in_a_folder_below_and_folders_in_their_place(tmp_path: Path) -> None:
    weights = whole("t5", tmp_path)
    (tmp_path / "weights").mkdir()
    store(tmp_path / "weights", weights)
    with pytest.raises(RequestError, match=r"no weights .*; there are some in its folder weights$"):
        load_network(tmp_path)
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(RequestError, match=r"no weights .*; model\.safetensors is a folder, not a file$"):
        load_network(tmp_path)


class Code:
    """Needs code to be unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.mkdir, (Path("unpickled"),)  # type: ignore[return-value]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickled_file_holds_plain_tensors_or_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights, file = whole(kind, tmp_path), tmp_path / "pytorch_model.bin"
    for held, line in (
        ({**weights, "code": Code()}, "holds more than plain tensors, which is never loaded"),
        ({"state_dict": weights, "epoch": 3}, r"holds what is no tensor \(state_dict, epoch\)"),
        ([1, 2], r"holds what is no tensor \(a list\)"),
    ):
        torch.save(held, file)
        with pytest.raises(RequestError, match=r"pytorch_model\.bin: .*" + line):
            load_network(tmp_path)
    assert not Path("unpickled").exists()
    torch.save(weights, file)
    data = file.read_bytes()
    for content in (data[: len(data) // 2], b"", b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(content)
        with pytest.raises(RequestError, match=r"pytorch_model\.bin: (cannot be read|truncated|a pointer of Git LFS)"):
            load_network(tmp_path)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "_forward_module."])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_wrapped_model_are_named_as_that(kind: str, prefix: str, tmp_path: Path) -> None:
    weights = whole(kind, tmp_path)
    store(tmp_path, {prefix + name: tensor for name, tensor in weights.items()})
    with pytest.raises(RequestError, match=f"is missing, and .*; its names begin with '{prefix}', a wrapper's"):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", [*KINDS, "mbart"])
def test_empty_tensors_are_named_with_what_leaves_them(kind: str, tmp_path: Path) -> None:
    weights = whole(kind, tmp_path)
    name = next(name for name in weights if "decoder" in name and "weight" in name)
    store(tmp_path, {**weights, name: torch.empty(0)})
    where = rf"model\.safetensors: {name.removeprefix('model.')}|model\.safetensors: {name}"
    with pytest.raises(RequestError, match=where) as caught:
        load_network(tmp_path)
    assert "has the shape (0,), the configuration says (" in str(caught.value) and "ZeRO-3" in str(caught.value)
    store(tmp_path, {**weights, name: torch.zeros(3, 5)})
    with pytest.raises(RequestError, match=r"has the shape \(3, 5\), the configuration says \([\d, ]+\)$"):
        load_network(tmp_path)


def test_folders_that_hold_no_model_themselves(tmp_path: Path) -> None:
    whole("t5", tmp_path / "made")
    output = tmp_path / "out"
    for step in (1000, 200, 50):
        shutil.copytree(tmp_path / "made", output / f"checkpoint-{step}")
    (output / "runs").mkdir()
    with pytest.raises(RequestError, match=r"out: the output folder of a Trainer; its checkpoints are checkpoint-50, "):
        find_folder(output)
    assert find_folder(output / "checkpoint-50") == output / "checkpoint-50"
    file = output / "checkpoint-50" / "config.json"
    with pytest.raises(RequestError, match=r"config\.json: a file; name the folder that it is in"):
        find_folder(file)
    shutil.copy(file, output / "config.json")  # a model of its own
    assert find_folder(output) == output


def test_a_sharded_folder_written_by_transformers(tmp_path: Path) -> None:
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)
    )
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    torch.testing.assert_close(ours(tmp_path), theirs(tmp_path)[0], atol=1e-4, rtol=0)
    assert load_file(next(tmp_path.glob("model-00001*")))
