"""CTranslate2's folders, by its converter of Hugging Face models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError, tell
from sourcewise.exporting.huggingface import open_there, opens_there
from sourcewise.exporting.kinds import Ids, Task, copy_beside, needs, why_no_tokens
from sourcewise.generation.model import Model
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.weight_files import first_line

# Options and defaults of a search that a caller of CTranslate2 gives by himself, or that it lacks.
LACKING = ("begin_suppressed", "biases", "decay", "normalised")
PRE_NORM: dict[str, dict[str, bool]] = {  # what loaders ask of a configuration, by its model_type
    "bart": {"normalize_before": False, "normalize_embedding": True},
    "mbart": {"normalize_before": True, "normalize_embedding": True},
    "pegasus": {"normalize_before": True, "normalize_embedding": False},
}


class CTranslate2:
    """model.bin, CTranslate2's configuration and vocabulary, and the tokenizer beside them."""

    by = "ctranslate2"

    def why_not(self, model: Model) -> str:
        """See Kind."""
        if reason := why_no_tokens(model, "CTranslate2 reads"):
            return reason
        if not opens_there(model):
            return f"is {model.network.kind} that transformers has no class for, and CTranslate2 converts those alone"
        known, name = _loaders(), _config_name(model)
        return "" if name in known else f"its {name} is none that CTranslate2 converts"

    def write(self, task: Task) -> None:
        """See Kind."""
        import transformers
        from ctranslate2.converters.converter import Converter

        model = open_there(task)
        tokenizer = transformers.AutoTokenizer.from_pretrained(task.source, local_files_only=True)

        class Opened(Converter):  # type: ignore[misc]
            def _load(self) -> Any:
                return _spec(model, tokenizer)

        try:
            with torch.no_grad():
                Opened().convert(str(task.folder), force=True)
        except Exception as error:  # of any class
            raise RequestError(f"{task.model.name}: CTranslate2 cannot convert it ({first_line(error)})") from None
        copy_beside(task.source, task.folder)
        lacks = [name for name in LACKING if getattr(task.model.network.defaults, name)]
        if lacks:
            tell(f"{task.folder}: CTranslate2 has no {' and no '.join(lacks)} of a search; outputs may differ by it")

    def options(self, options: GenerationConfig) -> GenerationConfig:
        """See Kind: lengths and two penalties."""
        kept = ("beams", "max_new_tokens", "min_new_tokens", "batch_tokens", "repetition_penalty", "no_repeat_ngram")
        return GenerationConfig.model_validate(options.model_dump(include=set(kept)))

    def outputs(self, task: Task, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
        """See Kind."""
        import ctranslate2

        translator = ctranslate2.Translator(str(task.folder), compute_type="float32", intra_threads=1)
        defaults = task.model.network.defaults
        names = _names(task.folder)
        ids = {name: i for i, name in enumerate(names)}
        assert encoded.sources is not None
        begins = [list(row) for row in encoded.begins] if encoded.begins is not None else []
        begins = begins or [list(defaults.forced_bos[:1])] * len(encoded)
        found = translator.translate_batch(
            [[names[i] for i in row] for row in encoded.sources],
            target_prefix=[[names[i] for i in row] for row in begins],
            beam_size=1,
            min_decoding_length=options.min_new_tokens,
            max_decoding_length=options.max_new_tokens - bool(defaults.forced_eos),  # which is no token of its outputs
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram,
            suppress_sequences=[[names[i] for i in word] for word in _barred(defaults, len(names))] or None,
            end_token=[names[i] for i in defaults.ends],
        )
        return [[ids[name] for name in each.hypotheses[0]] for each in found]


def _barred(defaults: Any, size: int) -> list[list[int]]:
    words = [*([each] for each in defaults.suppressed), *map(list, defaults.bad_words)]
    return [word for word in words if max(word) < size]


def _names(folder: Path) -> list[str]:
    """The vocabulary that was written: the name of each id."""
    path = next(
        path for path in (folder / "shared_vocabulary.json", folder / "target_vocabulary.json") if path.is_file()
    )
    names: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return names


def _loaders() -> set[str]:
    """Names of the configurations that CTranslate2 converts. Raises RequestError if it is not installed."""
    try:
        from ctranslate2.converters import transformers as converters
    except ImportError:
        raise needs("ctranslate2", "ctranslate2") from None
    return set(converters._MODEL_LOADERS)


def _config_name(model: Model) -> str:
    """Name of transformers' configuration class of a model."""
    import transformers

    from sourcewise.model.families.registry import of_body

    network = model.network
    assert isinstance(network, Seq2Seq)
    family = of_body(network.body)
    if family is None:
        body: Any = network.body
        return type(body.model.config).__name__
    return transformers.CONFIG_MAPPING[family.write(network.body)[0]["model_type"]].__name__


def _spec(model: Any, tokenizer: Any) -> Any:
    """CTranslate2's specification of a transformers model, by its own loader of that class."""
    from ctranslate2.converters.transformers import _MODEL_LOADERS
    from ctranslate2.specs import model_spec

    loader, config = _MODEL_LOADERS[type(model.config).__name__], model.config
    for name, value in PRE_NORM.get(config.model_type, {}).items():
        if not hasattr(config, name):  # gone from transformers' configurations
            setattr(config, name, value)
    spec = loader.get_model_spec(model)
    if config.model_type in ("t5", "mt5", "umt5") and not getattr(config, "scale_decoder_outputs", True):
        spec.decoder.scale_outputs = model_spec.OPTIONAL  # its loader asks tie_word_embeddings, now true for every T5
    loader.set_config(spec.config, model, tokenizer)
    for name in ("bos_token", "unk_token"):  # which some tokenizers lack; CTranslate2 takes no null
        if getattr(spec.config, name) is None:
            setattr(spec.config, name, tokenizer.eos_token)
    tokens = list(dict.fromkeys(loader.get_vocabulary(model, tokenizer)))
    tokens += [f"<unused_{i}>" for i in range(spec.get_target_vocabulary_size() - len(tokens))]  # spare rows
    loader.set_vocabulary(spec, tokens)
    return spec


KIND = CTranslate2()
