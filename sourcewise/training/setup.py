"""Sets up a training: its data sets, tokenizer and network before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from sourcewise.config import Recipe
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.mixtures import encode_sets, encode_training, join
from sourcewise.data.noise.denoising import special_tokens
from sourcewise.data.open import open_sets
from sourcewise.data.readers.feature_record import told_apart
from sourcewise.data.stored.tokenizer import kept_tokenizer
from sourcewise.data.tokenizers.languages import check_language
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import DataWarning, RequestError, tell
from sourcewise.generation.settings import read_settings
from sourcewise.metrics.counting import check_installed
from sourcewise.model.builder import build_network
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.inputs.source_encoder import encoder_of
from sourcewise.model.lora import adapt, adapt_encoder
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place
from sourcewise.model.quantised import asked_quantised
from sourcewise.model.weights.adapters import digest
from sourcewise.model.weights.checkpoint import find_folder, generation_told, model_folder, tokenizer_folder
from sourcewise.model.weights.generation_config import shown
from sourcewise.model.weights.hearing import refuse_images, sounds_for
from sourcewise.model.weights.weight_files import read_json, read_weights
from sourcewise.runtime.device import device_beside


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Data sets, tokenizer and network of a training before the first step."""

    recipe: Recipe
    tokenizer: Tokenizer
    network: Seq2Seq
    train: ExampleSet
    valid: ExampleSet | None = None
    test: Sequence[Dataset] = ()  # the sets of the final evaluation

    @property
    def pairs(self) -> list[Dataset]:
        """The training sets as read, without those of plain text, whose pairs are drawn."""
        return [part.dataset for part in self.train.parts if not part.drawn]


def set_up(recipe: Recipe, tokenizer_of: Path | None = None, beside: int = 1) -> TrainingSetup:
    """Set up a training, beginning with the steps in which errors are found fastest.

    The tokenizer is that of the folder `tokenizer_of` if given. `beside` processes of the training share this
    machine's cores, and have an accelerator each. Raises RequestError.
    """
    device = device_beside(recipe.train.device, beside, recipe.train.threads)
    products = torch.bfloat16 if recipe.train.precision == "bf16" else torch.float32
    packed = asked_quantised(recipe.model.quantization, device, products)
    recipe = _hearing(recipe)
    train, valid, test = (open_sets(recipe.data, use) for use in ("train", "valid", "test"))
    for other in (*valid, *test):
        if other.dims != train[0].dims:
            raise RequestError(
                f"{other.name}: its sources are {_kind(other)}, those of {train[0].name} {_kind(train[0])}"
            )
        refuse_images(train[0].image, other.image, other.name)
    check_installed([*recipe.evaluation.metrics, recipe.train.best, *(each.task.metric for each in (*valid, *test))])
    for line in told_apart([(each.name, each.made) for each in (*train, *valid, *test)]):
        tell(line)
    tokenizer = Tokenizer.load(tokenizer_of) if tokenizer_of else open_tokenizer(recipe, train)
    torch.manual_seed(recipe.seed)
    network: Seq2Seq = place(build_network(recipe.model, tokenizer, join(train), packed), device)
    if packed is not None:
        tell(packed.note(network))
    _adapt(recipe, tokenizer, network)
    for note in network.body.notes:
        tell(note)
    tokenizer = _spoken(recipe, tokenizer, network, train)
    _check_lengths(recipe, network.positions, (*train, *valid, *test))
    if recipe.model.weights:
        _tell_settings(recipe)
    encoded = encode_training(train, tokenizer, recipe.data, recipe.seed)
    encoded_valid = encode_sets(valid, tokenizer, recipe.data) if valid else None
    return TrainingSetup(recipe, tokenizer, network, encoded, encoded_valid, test or valid)


def _hearing(recipe: Recipe) -> Recipe:
    """The recipe with recordings read as its model takes them, unless it says how. Raises RequestError."""
    heard = recipe.data.sounds or sounds_for(recipe.model)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"sounds": heard})})


def _adapt(recipe: Recipe, tokenizer: Tokenizer, network: Seq2Seq) -> None:
    """Let adapters into a network, if the recipe asks for them. Raises RequestError if their base would be another."""
    options, encoder = recipe.train.lora, encoder_of(network)
    if options.rank:
        _adapt_body(recipe, tokenizer, network)
    if encoder is not None:
        of = recipe.model.feature_encoder if recipe.model.feature_encoder.encoder else recipe.model.source_encoder
        adapt_encoder(encoder, of.train, options)
        if of.train != "frozen":
            network.body.parallel = False  # its dropout draws from torch's one stream


def _adapt_body(recipe: Recipe, tokenizer: Tokenizer, network: Seq2Seq) -> None:
    options, name = recipe.train.lora, recipe.model.weights
    if not name:
        raise RequestError("train.lora.rank: adapters are trained beside pretrained weights; name them with --model")
    if tokenizer.fresh:
        problem = f"{len(tokenizer.fresh)} new tokens have rows in the embedding, which adapters leave as it is"
        raise RequestError(f"data.add_tokens: {problem}; leave one of the two out")
    base = find_folder(name)
    if model_folder(base) != base:
        problem = f"{name} is an adapter itself; merge it first (sourcewise export), or go on with it by --resume"
        raise RequestError(f"train.lora.rank: {problem}")
    had = (base / "sourcewise.json").is_file()
    parts = {info.part for info in network.parts()} & {"bridge", "features"}
    new = set() if had else parts - ({"features"} if encoder_of(network) else set())
    adapt(network, options, str(base.resolve()) if Path(name).expanduser().exists() else name, new)
    if network.adapters is not None:
        network.adapters.base = digest(read_weights(base, read_json(base / "config.json")))
        network.adapters.bits = recipe.model.quantization.replace("none", "")


class Texts(Iterable[str]):
    """The sources and targets of sets, which can be read several times."""

    def __init__(self, sets: Sequence[Dataset]) -> None:
        self.sets = sets

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(each.texts() for each in self.sets)


def open_tokenizer(recipe: Recipe, sets: Sequence[Dataset]) -> Tokenizer:
    """The tokenizer of the recipe, of the pretrained model, or a new one trained on the training sets."""
    return _find_tokenizer(recipe, sets).add([_meant(entry, sets) for entry in recipe.data.add_tokens])


def _meant(entry: str, sets: Sequence[Dataset]) -> str:
    r"""A new entry; `\n` and the like as two characters become one if only that one occurs in the texts."""
    meant = entry.replace(r"\n", "\n").replace(r"\t", "\t").replace(r"\r", "\r")
    if meant == entry or any(entry in text for text in Texts(sets)) or not any(meant in text for text in Texts(sets)):
        return entry
    warnings.warn(f"data.add_tokens: {entry} is read as the character it stands for", DataWarning, stacklevel=2)
    return meant


def _find_tokenizer(recipe: Recipe, sets: Sequence[Dataset]) -> Tokenizer:
    asked = any(target for config in recipe.data.sets("train") for _, target in [recipe.data.languages(config)])
    if recipe.data.tokenizer:
        return Tokenizer.load(recipe.data.tokenizer, asked=asked)
    if recipe.model.weights:
        return Tokenizer.load(tokenizer_folder(find_folder(recipe.model.weights)), asked=asked)
    special = max((special_tokens(each.plain, recipe.data) for each in sets if each.plain), key=len, default=[])
    kept = [each.kept for each in sets if each.kept]
    if len(kept) < len(sets):
        return Tokenizer.train(Texts(sets), recipe.data.vocabulary, recipe.data.unit, special)
    return kept_tokenizer(kept, Texts(sets), recipe.data.vocabulary, recipe.data.unit, special)


def _spoken(recipe: Recipe, tokenizer: Tokenizer, network: Seq2Seq, train: Sequence[Dataset]) -> Tokenizer:
    """The tokenizer in the language that all targets have, which the network's outputs then begin with.

    Where targets have several languages, outputs begin with nothing unless it is asked for. Raises RequestError if no
    language is chosen, and the tokenizer's is not that of the network's outputs.
    """
    default = recipe.data.languages()
    pairs = {pair if any(pair) else default for dataset in train for pair in dataset.languages()}
    if not any(target for _, target in pairs):
        _check_language(recipe, tokenizer, network)
        return tokenizer.in_languages(*pairs.pop()) if len(pairs) == 1 else tokenizer
    spoken = {pair: tokenizer.in_languages(*pair) for pair in sorted(pairs)}
    targets = {target for _, target in pairs}
    starts = {each.target_start for each in spoken.values()} - {None}
    if len(starts) > 1:
        problem = f"{len(targets)} languages ({', '.join(sorted(targets))}), but this model's decoder starts with one"
        raise RequestError(f"data.target_language: {problem}; train one model for each")
    if starts:
        network.begin_with(int(starts.pop() or 0))
    begins = tuple(next(iter(spoken.values())).opening[:1]) if len(targets) == 1 else ()
    network.defaults = replace(network.defaults, forced_bos=begins)
    one = next(iter(spoken.values()))
    if len(targets) == 1 and one.prompt and isinstance(network, HuggingFaceNetwork):
        network.speak(one.name(one.prompt[0]))
    return one if len(spoken) == 1 else tokenizer


def _check_language(recipe: Recipe, tokenizer: Tokenizer, network: Seq2Seq) -> None:
    """Raises RequestError if targets have no language code, or another than the forced one of outputs."""
    forced, start = next(iter(network.defaults.forced_bos), -1), network.start_id
    where = recipe.data.tokenizer or recipe.model.weights or "the tokenizer"
    check_language(tokenizer.languages, where, tokenizer.name(forced), tokenizer.name(start))


def _check_lengths(recipe: Recipe, positions: int | None, sets: Sequence[Dataset]) -> None:
    """Raises RequestError if sources or targets may be longer than the network's number of positions."""
    for where, asked in (("data", recipe.data), ("generation", recipe.generation), *((s.name, s.task) for s in sets)):
        for name in ("max_source", "max_target", "max_new_tokens"):
            longest = getattr(asked, name, None)
            if positions is not None and longest is not None and longest > positions:
                problem = f"{longest} tokens, but the model has {positions} positions"
                raise RequestError(f"{where}.{name}: {problem}; set it to {positions}")


def _tell_settings(recipe: Recipe) -> None:
    """Warn of generation settings in the folder of the weights, since a run uses those of its recipe."""
    assert recipe.model.weights
    settings = read_settings(generation_told(find_folder(recipe.model.weights)))
    own = recipe.generation.model_dump()
    left = [f"{name} = {shown(value)}" for name, value in settings.options.items() if own[name] != value]
    if left:
        told = f"{settings.file}: asks for {', '.join(left)}"
        warnings.warn(f"{told}: not followed; `generation` of the recipe holds", DataWarning, stacklevel=2)


def _kind(dataset: Dataset) -> str:
    return f"features {dataset.dims} wide" if dataset.dims else "text"
