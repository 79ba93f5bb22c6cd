"""The files of a pretrained encoder before the bridge, in a checkpoint.

```
source_encoder.safetensors                          its weights, if all of them learned
source_encoder/adapter_config.json ...              its adapters, as peft saves them, if those learned
```
A frozen one has no files: sourcewise.json says where it is from. So it does of the others, whose shape is there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from sourcewise.errors import RequestError
from sourcewise.model.inputs.source_encoder import SourceEncoder, make_encoder, open_encoder
from sourcewise.model.weights.adapters import add_to, peft, write_adapter
from sourcewise.model.weights.interchange import check_finite
from sourcewise.model.weights.weight_files import Weights, first_line, read_safetensors

FILE, FOLDER = "source_encoder.safetensors", "source_encoder"


def save(encoder: SourceEncoder, folder: Path) -> dict[str, Any]:
    """Write what an encoder has learned; returns where it is from."""
    if encoder.how == "whole":
        state = {k: v.detach().float().cpu().contiguous().clone() for k, v in encoder.model.state_dict().items()}
        save_file(state, folder / FILE)
    elif encoder.how == "adapters":
        wrapper = encoder.adapters.wrapper
        (folder / FOLDER).mkdir()
        config = wrapper.peft_config["default"]
        write_adapter(folder / FOLDER, config, peft().get_peft_model_state_dict(wrapper))
    return encoder.origin


def reopen(origin: dict[str, Any], dims: int, folder: Path, find: Callable[[str | Path], Path]) -> SourceEncoder:
    """The encoder of a checkpoint, with what it has learned; `find` finds a model's folder. Raises RequestError."""
    try:
        if "encoder" in origin:
            encoder = make_encoder(origin["encoder"], origin["options"], Path(origin["weights"]), dims)
        else:
            encoder = open_encoder(find(origin["name"]), origin["name"], dims, origin.get("image"))
    except RequestError as error:
        told = f"{folder / 'sourcewise.json'}: its source encoder cannot be opened"
        raise RequestError(f"{told} ({error}); put it back, or write its new place there") from None
    if (folder / FOLDER).is_dir():
        encoder.model.load_state_dict(add_to(encoder.model, folder / FOLDER))
    if (folder / FILE).is_file():
        weights = Weights(read_safetensors(folder / FILE), folder)
        weights.main = folder / FILE
        check_finite(weights.items(), weights)
        try:
            encoder.model.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise RequestError(f"{folder / FILE}: does not fit {encoder.name} ({first_line(error)})") from None
    return encoder
