"""ONNX graphs of encoder and decoder, with the names that optimum's ORTModelForSeq2SeqLM reads (use_cache=False).

```
encoder_model.onnx   input_ids, attention_mask → last_hidden_state
decoder_model.onnx   input_ids, encoder_attention_mask, encoder_hidden_states → logits
```
The decoder has no cache: each step computes the whole prefix.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.exporting.huggingface import open_there, opens_there
from sourcewise.exporting.kinds import Ids, Task, copy_beside, needs, why_no_tokens
from sourcewise.generation.generate import batch_indices, reader, search
from sourcewise.generation.model import Model
from sourcewise.model.weights.weight_files import first_line

ENCODER, DECODER = "encoder_model.onnx", "decoder_model.onnx"
OPSET = 18
LARGEST = 1_500_000_000  # bytes of weights in the file of a graph; larger ones lie beside it (protobuf's limit is 2 GB)


class Onnx:
    """Two graphs, config.json, the tokenizer and the generation settings."""

    by = "onnxruntime"

    def why_not(self, model: Model) -> str:
        """See Kind."""
        _runtime()
        if reason := why_no_tokens(model, "the graphs read"):
            return reason
        if not opens_there(model):
            return f"is {model.network.kind} that transformers has no class for, and graphs are made of its classes"
        return ""

    def write(self, task: Task) -> None:
        """See Kind."""
        model = open_there(task)
        model.set_attn_implementation("eager")
        length, width = (torch.export.Dim(name, min=1, max=100_000) for name in ("target", "source"))
        batch = torch.export.Dim("batch", min=1, max=100_000)
        tokens = torch.full((2, 5), task.model.network.pad_id + 1)
        mask = torch.ones(2, 5, dtype=torch.long)
        try:
            with _silence():
                states = Encoder(model)(tokens, mask)
                _export(
                    Encoder(model),
                    task.folder / ENCODER,
                    {"input_ids": tokens, "attention_mask": mask},
                    "last_hidden_state",
                    {"input_ids": {0: batch, 1: width}, "attention_mask": {0: batch, 1: width}},
                )
                _export(
                    Decoder(model),
                    task.folder / DECODER,
                    {"input_ids": tokens[:, :3], "encoder_attention_mask": mask, "encoder_hidden_states": states},
                    "logits",
                    {
                        "input_ids": {0: batch, 1: length},
                        "encoder_attention_mask": {0: batch, 1: width},
                        "encoder_hidden_states": {0: batch, 1: width},
                    },
                )
        except Exception as error:  # of any class
            raise RequestError(f"{task.model.name}: torch cannot export it as ONNX ({first_line(error)})") from None
        copy_beside(task.source, task.folder, without=("model.safetensors",))

    def options(self, options: GenerationConfig) -> GenerationConfig:
        """See Kind: the search is the caller's."""
        return options

    @torch.inference_mode()
    def outputs(self, task: Task, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
        """See Kind: our search, with logits of the graphs."""
        network: Any = GraphNetwork(task.model.network, task.folder)
        batches = batch_indices(encoded, options)
        feed = ((rows, network.encode(encoded.source(rows))) for rows in batches)
        found = search(network, feed, options, reader(encoded))
        return [found[i][0].said for i in range(len(encoded))]


class Encoder(nn.Module):
    """The encoder of a transformers model as a graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Ids and mask (batch, source) → states (batch, source, width)."""
        out = self.encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)
        return out.last_hidden_state  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """The decoder and head of a transformers model as a graph."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, encoder_attention_mask: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """Ids (batch, target), mask and states of the source → logits (batch, target, vocabulary)."""
        from transformers.modeling_outputs import BaseModelOutput

        out = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_hidden_states),
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            use_cache=False,
            return_dict=True,
        )
        return out.logits  # type: ignore[no-any-return]


def _export(module: nn.Module, path: Path, given: dict[str, Tensor], output: str, shapes: dict[str, Any]) -> None:
    size = sum(p.numel() * p.element_size() for p in module.parameters())
    torch.onnx.export(
        module.eval(),
        (),
        path,
        kwargs=given,
        input_names=list(given),
        output_names=[output],
        opset_version=OPSET,
        dynamic_shapes=shapes,
        dynamo=True,
        external_data=size > LARGEST,
        verbose=False,
    )


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Within: the exporter's own progress and advice are not shown."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _runtime() -> Any:
    """The module onnxruntime. Raises RequestError if a library that is needed is not installed."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise needs("onnx", str(error.name)) from None
    return onnxruntime


@dataclass
class GraphMemory:
    """States of the encoder's graph."""

    states: Tensor  # (batch, source, width)
    mask: Tensor  # (batch, source) bool

    @property
    def batch(self) -> int:
        """Number of sources."""
        return len(self.mask)

    def select(self, rows: Tensor) -> GraphMemory:
        """The memory of these sources."""
        return GraphMemory(self.states[rows], self.mask[rows])


@dataclass
class Prefix:
    """The tokens so far, in place of a cache."""

    tokens: Tensor  # (rows, time)

    def select(self, rows: Tensor) -> None:
        """Keep these hypotheses."""
        self.tokens = self.tokens[rows.flatten()]


class GraphNetwork:
    """A network whose encoder and decoder are the graphs; all else is the exported network's."""

    joins = False

    def __init__(self, network: Any, folder: Path) -> None:
        self._network = copy.copy(network)
        options = _runtime().SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._encoder, self._decoder = (
            _runtime().InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in (ENCODER, DECODER)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def encode(self, source: Source) -> GraphMemory:
        """Encode sources → memory."""
        assert source.tokens is not None
        mask = source.token_layout.on(torch.device("cpu")).mask
        given = {"input_ids": source.tokens.long().numpy(), "attention_mask": mask.long().numpy()}
        (states,) = self._encoder.run(None, given)
        return GraphMemory(torch.from_numpy(states), mask)

    def new_cache(self, memory: GraphMemory, beams: int, steps: int) -> Prefix:
        """No tokens yet."""
        return Prefix(torch.zeros(memory.batch * beams, 0, dtype=torch.long))

    def decode(self, tokens: Tensor, memory: GraphMemory, cache: Prefix) -> Tensor:
        """Tokens (rows, time) that continue the prefix → logits (rows, 1, vocabulary) of the next token."""
        cache.tokens = torch.cat((cache.tokens, tokens), dim=1)
        given = {
            "input_ids": cache.tokens.numpy(),
            "encoder_attention_mask": memory.mask.long().numpy(),
            "encoder_hidden_states": memory.states.numpy(),
        }
        (logits,) = self._decoder.run(None, given)
        return torch.from_numpy(logits[:, -1:])


KIND = Onnx()
