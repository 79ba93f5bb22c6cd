"""Models that are in memory, and examples that are a list of pairs, wherever a name or a file is taken."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sourcewise.data.examples import Dataset, Example
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model, load

Pair = tuple[str, str]  # source and target


def opened(model: Any, tokenizer: Any = None, device: str = "auto") -> Model:
    """A model ready to use: one that is, a name, or a Hugging Face model in memory with its `tokenizer`.

    What is in memory is written to a folder that is there for a moment, and read as any folder is: the same checks, the
    same settings of generation, and its own weights stay as they are. Raises RequestError.
    """
    if isinstance(model, Model):
        return model
    if not isinstance(model, nn.Module):
        if tokenizer is not None:
            raise RequestError("tokenizer: goes with a model in memory; a folder has its own")
        return load(model, device)
    kind = type(model).__name__
    hugging: Any = model
    if not hasattr(model, "save_pretrained") or not hasattr(model, "config"):
        way = "sourcewise.source_bits(module, batch) and sourcewise.doctor(module, optimizer) take any module"
        raise RequestError(f"{kind} is none of Hugging Face's models; {way}")
    if not hasattr(tokenizer, "save_pretrained"):
        raise RequestError(f"tokenizer: {kind} in memory needs that of Hugging Face, tokenizer=...")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="transformers")
        mode = model.training
        hugging.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model.train(mode)
        try:
            found = load(folder, device)
        except RequestError as problem:
            raise RequestError(str(problem).replace(folder, kind)) from None
    found.name = kind
    return found


def pairs(data: Any, name: str = "the pairs") -> Any:
    """A list of (source, target) texts as a set; all else as it is. Raises RequestError for a pair that is none."""
    if isinstance(data, (str, bytes, Path, Dataset)) or not isinstance(data, Sequence) or not data:
        return data
    if not any(isinstance(each, (tuple, list)) for each in data):
        return data
    examples = []
    for i, each in enumerate(data):
        if not isinstance(each, (tuple, list)) or len(each) != 2 or not all(isinstance(text, str) for text in each):
            raise RequestError(f"{name}: number {i} is no pair of texts (source, target): {each!r:.80}")
        examples.append(Example(str(i), each[1], each[0], where=f"pair {i}"))
    return Dataset(examples, name)
