"""Reads the weight files of a folder that transformers would load, without unpickling.

```
config.json's transformers_weights, where it names a file
model.safetensors       else the shards of model.safetensors.index.json
pytorch_model.bin       else the shards of pytorch_model.bin.index.json
```
The first existing one is read, never any other file beside it (backups, older shards, an optimizer's state).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sourcewise.errors import RequestError, tell

INDEX = ".index.json"  # ending of an index of shards, after the name of their file
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
POINTER = b"version https://git-lfs"  # beginning of a large file in a clone without Git LFS
OTHERS = {".h5": "TensorFlow", ".msgpack": "Flax", ".index": "TensorFlow", ".ot": "Rust", ".onnx": "ONNX"}
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", *OTHERS}  # endings of weight files


class Weights(dict[str, Tensor]):
    """Name → tensor, with the files of the tensors."""

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path, files: Mapping[str, Path] | None = None) -> None:
        super().__init__(tensors)
        self.folder = folder
        self.files = dict(files or {})  # also for missing names: the file where it should be
        self.main = folder / SAFETENSORS

    def file(self, name: str) -> Path:
        """The file of a tensor, or the one where it should be."""
        return self.files.get(name, self.main)

    def without(self, prefix: str) -> Weights:
        """The same weights with the prefix removed from their names."""
        short = Weights(
            {name.removeprefix(prefix): tensor for name, tensor in self.items()},
            self.folder,
            {name.removeprefix(prefix): file for name, file in self.files.items()},
        )
        short.main = self.main
        return short


def read_weights(folder: Path, config: Mapping[str, Any]) -> Weights:
    """The weights that transformers would load from a folder with this config.json, in the precisions of the files.

    Raises RequestError with the file's name if it is missing, truncated, outside of the folder, or not plain tensors.
    """
    main = _main_file(folder, config)
    placed = _placed(main) if main.name.endswith(INDEX) else {}
    files = [folder / name for name in sorted(set(placed.values()))] or [main]
    missing = [file.name for file in files if not file.is_file()]
    if missing and not placed:
        raise RequestError(f"{main}: missing; config.json names it in transformers_weights")
    if missing:
        raise RequestError(f"{main}: of its {len(files)} shards {len(missing)} are missing ({some(missing)})")
    weights = Weights({}, folder, {name: folder / shard for name, shard in placed.items()})
    weights.main = main
    for file in files:
        held = read_safetensors(file) if file.suffix == ".safetensors" else read_pickled(file)
        weights.update(held)
        weights.files.update(dict.fromkeys(held, file))
    return weights


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises RequestError if the file is missing or holds none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RequestError(f"{path}: missing") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _check_pointer(path)
        raise RequestError(f"{path}: not a JSON object ({first_line(error)})") from None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises RequestError with the file's name."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise RequestError(f"{path}: missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        _check_pointer(path)
        raise RequestError(f"{path}: truncated or not safetensors ({first_line(error)})") from None


def some(names: Iterable[str]) -> str:
    """The first few names and the number of others, in one line."""
    every = list(names)
    more = f" and {len(every) - 3:,} more" if len(every) > 3 else ""
    return ", ".join(every[:3]) + more


def counted(names: Sequence[str]) -> str:
    """Number and first names of tensors with a verb: `a is`, `2 tensors (a, b) are`."""
    return f"{len(names):,} tensors ({some(names)}) are" if len(names) > 1 else f"{names[0]} is"


def first_line(error: Exception) -> str:
    """The message of a foreign error in one line: its last line, where Python and torch have the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(error).__name__


def _main_file(folder: Path, config: Mapping[str, Any]) -> Path:
    """The file that transformers opens first: weights, or the index of their shards."""
    named = config.get("transformers_weights")
    if named is not None:
        if not isinstance(named, str) or not named.removesuffix(INDEX).endswith(".safetensors"):
            raise RequestError(f"{folder / 'config.json'}: transformers_weights {named!r} names no safetensors file")
        _check_inside(folder / "config.json", named)
        return folder / named
    for name in (SAFETENSORS, PICKLED):
        file, index = folder / name, folder / (name + INDEX)
        if file.is_file():
            if index.is_file():
                tell(f"{file}: read, as transformers does; the shards of {index.name} beside it are not")
            return file
        if index.is_file():
            return index
    raise RequestError(f"{folder}: no weights ({SAFETENSORS} or {PICKLED}){_beside(folder)}")


def _beside(folder: Path) -> str:
    """Files found instead of readable weights, with advice: `; …`, or empty."""
    names = sorted(p.name for p in folder.iterdir() if p.suffix in WEIGHTS)
    for name in names:
        if not (folder / name).exists():
            return f"; {name} is a link to a file that is gone: fetch the model again"
        if (folder / name).is_dir():
            return f"; {name} is a folder, not a file"
        if "-of-" in name:
            of = SAFETENSORS if name.endswith(".safetensors") else PICKLED
            return f"; {some(names)} are shards without their {of}{INDEX}: copy it beside them"
        if name.startswith(("model.", "pytorch_model.")) and Path(name).suffix in (".safetensors", ".bin"):
            whole = SAFETENSORS if name.endswith(".safetensors") else PICKLED
            return f"; {name} is a variant of them: to read it, copy it to {whole}"
    foreign = next((name for name in names if Path(name).suffix in OTHERS), None)
    if foreign:
        kind = OTHERS[Path(foreign).suffix]
        return f"; {foreign} is of {kind}: open it there and save the model again with PyTorch's save_pretrained"
    if names:
        return f"; what is there is never read: {some(names)}; save the model again with save_pretrained"
    below = [p.name for p in sorted(folder.glob("*/")) if (p / SAFETENSORS).is_file() or (p / PICKLED).is_file()]
    return f"; there are some in its folder {below[0]}" if below else ""


def _placed(index: Path) -> dict[str, str]:
    """Tensor → shard, from an index. Raises RequestError if it is no index, or names a file outside of the folder."""
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise RequestError(f"{index}: has no weight_map that says which shard holds which tensor; copy it again")
    for name, shard in placed.items():
        if not isinstance(shard, str):
            raise RequestError(f"{index}: places {name} in {shard!r}, which is not the name of a file")
        _check_inside(index, shard)
    return placed


def _check_inside(where: Path, name: str) -> None:
    """Raises RequestError if a name leads out of its folder; links of the user's own files are allowed."""
    windows = PureWindowsPath(name)
    outside = PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts
    if outside or not windows.parts or "\0" in name:
        raise RequestError(f"{where}: names {name!r}, which is no file in its folder; no other is opened")


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of torch.save; refuses anything that needs unpickling."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        _check_pointer(path)
        problem = "truncated, or holds more than plain tensors, which is never loaded"
        raise RequestError(f"{path}: {problem}; save it as {SAFETENSORS}") from None
    except Exception as error:
        raise RequestError(f"{path}: cannot be read as plain tensors ({first_line(error)})") from None
    others = [str(n) for n, t in found.items() if not isinstance(t, Tensor)] if isinstance(found, dict) else ["a list"]
    if others:
        problem = f"holds what is no tensor ({some(others)})"
        raise RequestError(f"{path}: {problem}; save the weights alone: torch.save(model.state_dict(), FILE)")
    return dict(found)


def _check_pointer(path: Path) -> None:
    """Raises RequestError if a file is a pointer of Git LFS."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise RequestError(f"{path}: a pointer of Git LFS, not the file itself; fetch it with: git lfs pull")
