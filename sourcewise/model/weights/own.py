"""Folders of our own families: config.json holds the fields of a shape, and the tensors have our names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from typing import Any, get_args

import torch
from torch import Tensor

from sourcewise.config import ModelConfig
from sourcewise.errors import RequestError
from sourcewise.model.weights.interchange import check, copies, take
from sourcewise.model.weights.weight_files import Weights

IDS = {"pad_id": "pad_token_id", "eos_id": "eos_token_id", "start_id": "decoder_start_token_id"}  # in config.json


def read_own(
    make: Callable[[Any], Any], shape: type, choices: Sequence[str], config: dict[str, Any], weights: Weights
) -> Any:
    """The network that `make` builds from a `shape` with the values of config.json, with its weights.

    `choices` are the fields whose values are those of the option of the same name. Raises RequestError with the reason.
    """
    where, given = f"{weights.folder}/config.json", {f.name: IDS.get(f.name, f.name) for f in fields(shape)}
    for key in given.values():
        if key not in config:
            raise RequestError(f"{where}: the key {key!r} of a {config['model_type']} configuration is missing")
    for key in choices:
        known = get_args(ModelConfig.model_fields[key].annotation)
        if config[key] not in known:
            raise RequestError(f"{where}: {key} {config[key]!r} is not one of {', '.join(known)}")
    if max(config[key] for key in given.values() if key.endswith("layers")) > len(weights):
        raise RequestError(f"{where}: states more layers than {weights.main} has tensors")
    stated = shape(**{name: config[key] for name, key in given.items()})
    with torch.device("meta"):  # no memory is allocated before the sizes are checked against the weights
        check(make(stated).state_dict().items(), weights)
    body = make(stated)
    take(body.state_dict().items(), weights)
    return body


def write_own(kind: str, body: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration with this `model_type`, and fp32 weights on the CPU with our names."""
    shape = {IDS.get(name, name): value for name, value in asdict(body.config).items()}
    config = {"architectures": [type(body).__name__], "model_type": kind, **shape}
    return config, copies(body.state_dict().items())
