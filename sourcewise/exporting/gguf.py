"""A GGUF file of a T5, as llama.cpp reads it, by the library gguf.

llama.cpp computes what T5 1.1 does, or the first T5, and knows no other activation, distance or embedding. It scales no
decoder output, so the head is written apart, already scaled. The check reads the file back with gguf's own reader and
computes with its tensors and its settings alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.exporting.checking import own_outputs
from sourcewise.exporting.kinds import Ids, Task, needs, why_no_tokens
from sourcewise.generation.model import Model
from sourcewise.model.families.registry import FAMILIES
from sourcewise.model.families.transformer import Transformer
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.interchange import HEAD, SHARED
from sourcewise.model.weights.weight_files import Weights

FILE = "model.gguf"
ACTIVATIONS = ("relu", "gated-gelu")  # all that llama.cpp computes of a T5
DISTANCE = 128  # its relative positions share a bucket from here on, whatever a file says
SPACE = "\u2581"
UNUSED = "[PAD{}]"
KINDS = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}  # gguf.TokenType


class Gguf:
    """model.gguf in fp32, with the tokenizer in it."""

    by = "gguf's reader"

    def why_not(self, model: Model) -> str:
        """See Kind."""
        _library()
        if reason := why_no_tokens(model, "GGUF's T5 reads"):
            return reason
        network = model.network
        assert isinstance(network, Seq2Seq)
        if type(network.body) is not Transformer:
            return f"is {network.kind} and no T5, the one encoder–decoder that the library gguf describes"
        c = network.body.config
        if c.decoder_positions:
            return "has positions in its decoder, and GGUF's T5 has none"
        if c.activation not in ACTIVATIONS:
            return f"computes {c.activation}, and GGUF's T5 {' or '.join(ACTIVATIONS)}"
        if c.relative_distance != DISTANCE:
            return f"has relative_distance {c.relative_distance}, and GGUF's T5 {DISTANCE}"
        return _why_no_tokenizer(model)

    def write(self, task: Task) -> None:
        """See Kind."""
        library = _library()
        network = task.model.network
        assert isinstance(network, Seq2Seq)
        writer = library.GGUFWriter(str(task.folder / FILE), "t5")
        _write_shape(writer, network)
        _write_tokens(writer, task, network.vocabulary)
        config, weights = FAMILIES["t5"].write(network.body)
        names = _names(config)
        for name, tensor in _written(network, weights):
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def options(self, options: GenerationConfig) -> GenerationConfig:
        """See Kind: the search is the caller's."""
        return options

    def outputs(self, task: Task, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
        """See Kind."""
        network = task.model.network
        assert isinstance(network, Seq2Seq)
        again = Seq2Seq(read_back(task.folder / FILE))
        again.defaults = network.defaults
        model = Model(again.eval(), task.model.tokenizer, task.model.name, task.model.data, task.model.generation)
        return own_outputs(model, encoded, options)


def _library() -> Any:
    try:
        import gguf
    except ImportError:
        raise needs("gguf", "gguf") from None
    return gguf


def _names(config: dict[str, Any]) -> Any:
    """gguf's own table from the names of Hugging Face's tensors to those of a file."""
    library = _library()
    blocks = max(config["num_layers"], config["num_decoder_layers"])
    return library.get_tensor_name_map(library.MODEL_ARCH.T5, blocks)


def _written(network: Seq2Seq, weights: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a file; the head is always one of them, scaled as the model scales its outputs."""
    c = network.body.config
    head = weights.get(HEAD, weights[SHARED])
    for name, tensor in weights.items():
        if name != HEAD:
            yield name, tensor
    yield HEAD, head * c.d_model**-0.5 if c.scaled else head


def _write_shape(writer: Any, network: Seq2Seq) -> None:
    """The settings that llama.cpp asks of a T5."""
    c = network.body.config
    writer.add_context_length(512)
    writer.add_embedding_length(c.d_model)
    writer.add_feed_forward_length(c.d_ff)
    writer.add_block_count(c.encoder_layers)
    writer.add_decoder_block_count(c.decoder_layers)
    writer.add_head_count(c.heads)
    writer.add_key_length(c.d_kv)
    writer.add_value_length(c.d_kv)
    writer.add_layer_norm_eps(c.eps)
    writer.add_layer_norm_rms_eps(c.eps)
    writer.add_relative_attn_buckets_count(c.relative_buckets)
    writer.add_decoder_start_token_id(network.start_id)
    writer.add_file_type(0)  # all in fp32


def _why_no_tokenizer(model: Model) -> str:
    try:
        tree = json.loads(model.tokenizer.to_json())
    except (RequestError, ValueError):
        return "has a tokenizer that is no tokenizer.json, and GGUF's T5 takes one of SentencePiece's kind Unigram"
    if tree["model"]["type"] != "Unigram":
        return f"has a tokenizer of kind {tree['model']['type']}, and GGUF's T5 takes SentencePiece's kind Unigram"
    return ""


def _write_tokens(writer: Any, task: Task, vocabulary: int) -> None:
    """The tokenizer: pieces, their scores and kinds, in the form of SentencePiece (▁ for a space)."""
    tokenizer = task.model.tokenizer
    tree = json.loads(tokenizer.to_json())
    pieces = [(text.replace(" ", SPACE), float(score)) for text, score in tree["model"]["vocab"]]
    kinds = [KINDS["normal"]] * len(pieces)
    for added in sorted(tree.get("added_tokens", []), key=lambda each: int(each["id"])):
        while len(pieces) <= added["id"]:
            pieces.append((UNUSED.format(len(pieces)), -1000.0))
            kinds.append(KINDS["unused"])
        pieces[added["id"]] = (added["content"], pieces[added["id"]][1])
        kinds[added["id"]] = KINDS["control" if added["special"] else "user"]
    unknown = tree["model"].get("unk_id")
    if unknown is not None:
        kinds[unknown] = KINDS["unknown"]
    for i in range(len(pieces), vocabulary):
        pieces.append((UNUSED.format(i), -1000.0))
        kinds.append(KINDS["unused"])
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text.encode() for text, _ in pieces])
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types(kinds)
    _write_rules(writer, tree)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_unk_token_id(tokenizer.unk_id)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)


def _write_rules(writer: Any, tree: dict[str, Any]) -> None:
    """How a text is changed before it is cut into pieces."""
    steps = tree.get("normalizer") or {}
    charsmap = next((step["precompiled_charsmap"] for step in _flat(steps) if step["type"] == "Precompiled"), None)
    if charsmap:
        import base64

        writer.add_precompiled_charsmap(base64.b64decode(charsmap))
    kept = any(step["type"] in ("Replace", "Strip") and " {2,}" in json.dumps(step) for step in _flat(steps))
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(kept)


def _flat(steps: dict[str, Any]) -> list[dict[str, Any]]:
    if steps.get("type") == "Sequence":
        return [each for step in steps["normalizers"] for each in _flat(step)]
    return [steps] if steps else []


def read_back(path: Path) -> Transformer:
    """The T5 of a file, from its own settings and tensors. Raises RequestError as any folder's."""
    reader = _library().GGUFReader(str(path))

    def setting(name: str) -> Any:
        return reader.get_field(f"t5.{name}").contents()

    ids = {key: reader.get_field(f"tokenizer.ggml.{key}_token_id").contents() for key in ("eos", "padding")}
    held = {tensor.name: np.array(tensor.data, dtype=np.float32) for tensor in reader.tensors}
    config: dict[str, Any] = {
        "model_type": "t5",
        "vocab_size": len(reader.get_field("tokenizer.ggml.tokens").contents()),
        "d_model": setting("embedding_length"),
        "d_ff": setting("feed_forward_length"),
        "d_kv": setting("attention.key_length"),
        "num_heads": setting("attention.head_count"),
        "num_layers": setting("block_count"),
        "num_decoder_layers": setting("decoder_block_count"),
        "layer_norm_epsilon": setting("attention.layer_norm_rms_epsilon"),
        "relative_attention_num_buckets": setting("attention.relative_buckets_count"),
        "relative_attention_max_distance": DISTANCE,
        "feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in held else "relu",
        "scale_decoder_outputs": False,  # llama.cpp scales none
        "decoder_start_token_id": setting("decoder_start_token_id"),
        "eos_token_id": ids["eos"],
        "pad_token_id": ids["padding"],
    }
    names = _names(config)
    theirs = {names.get_name(name, try_suffixes=(".weight",)): name for name in _expected(config)}
    weights = Weights({theirs[name]: torch.from_numpy(each) for name, each in held.items()}, path.parent)
    weights.main = path
    return FAMILIES["t5"].read(config, weights)  # type: ignore[no-any-return]


def _expected(config: dict[str, Any]) -> list[str]:
    """Names of the tensors of an untied T5 of this shape."""
    attention = [f"{{}}Attention.{letter}.weight" for letter in "qkvo"]
    inner = ("wi_0", "wi_1", "wo") if config["feed_forward_proj"].startswith("gated") else ("wi", "wo")
    names = [SHARED, HEAD]
    for stack, count in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        names.append(f"{stack}.final_layer_norm.weight")
        names.append(f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        for block in (f"{stack}.block.{i}.layer" for i in range(count)):
            layers = 3 if stack == "decoder" else 2
            names += [f"{block}.{layer}.layer_norm.weight" for layer in range(layers)]
            names += [f"{block}.0.{each.format('Self')}" for each in attention]
            names += [f"{block}.1.{each.format('EncDec')}" for each in attention if stack == "decoder"]
            names += [f"{block}.{layers - 1}.DenseReluDense.{each}.weight" for each in inner]
    return names


KIND = Gguf()
