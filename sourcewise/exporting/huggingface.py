"""Hugging Face folders: those of text models are checked by transformers' own classes, all others by reading them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.exporting.checking import own_outputs
from sourcewise.exporting.kinds import Ids, Task
from sourcewise.generation.model import Model, load
from sourcewise.model.network import Seq2Seq

TOGETHER = 32  # sources in a batch


class HuggingFace:
    """The folder that `save` writes."""

    by = "transformers"

    def why_not(self, model: Model) -> str:
        """See Kind: it holds every model."""
        return ""

    def write(self, task: Task) -> None:
        """See Kind: `save` has written it."""

    def options(self, options: GenerationConfig) -> GenerationConfig:
        """See Kind: its generation_config.json holds all of them."""
        return options

    def outputs(self, task: Task, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
        """See Kind."""
        if opens_there(task.model):
            return generated(open_there(task), task, encoded, options)
        self.by = "sourcewise, from the folder"
        return own_outputs(load(task.folder, "cpu"), encoded, options)


def opens_there(model: Model) -> bool:
    """Whether transformers opens the folder as a model of its own that reads text."""
    from sourcewise.model.families.registry import of_body

    network = model.network
    assert isinstance(network, Seq2Seq)
    family = of_body(network.body)
    of_ours = family is not None and str(family.write(network.body)[0]["model_type"]).startswith("sourcewise")
    return not (network.dims or of_ours)


def open_there(task: Task) -> Any:
    """The model as transformers opens it."""
    import transformers

    from sourcewise.model.families.huggingface import quiet

    with quiet():
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            task.source, local_files_only=True, dtype=torch.float32
        )
    return model.eval()


@torch.inference_mode()
def generated(model: Any, task: Task, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
    """The outputs of transformers' `generate` with the settings of the folder, in padded batches."""
    assert encoded.sources is not None
    alike: dict[tuple[int, ...], list[int]] = {}
    for i in np.argsort(encoded.source_lengths, kind="stable").tolist():
        alike.setdefault(() if encoded.begins is None else tuple(encoded.begins[i]), []).append(i)
    found: dict[int, list[int]] = {}
    for begin, every in alike.items():
        for rows in (every[i : i + TOGETHER] for i in range(0, len(every), TOGETHER)):
            source = encoded.source(rows)
            mask = source.token_layout.on(torch.device("cpu")).mask.long()
            asked: dict[str, Any] = {"num_beams": 1, "do_sample": False, "max_new_tokens": options.max_new_tokens}
            if begin:
                given = torch.tensor([[task.model.network.start_id, *begin]] * len(rows))
                left = max(1, options.max_new_tokens - len(begin))
                asked |= {"decoder_input_ids": given, "max_new_tokens": left, "forced_bos_token_id": None}
            out = model.generate(source.tokens, attention_mask=mask, **asked)
            found |= {i: row[1:] for i, row in zip(rows, out.tolist(), strict=True)}
    return [found[i] for i in range(len(found))]


KIND = HuggingFace()
