"""A network with its tokenizer and options, ready to use: the class that `sourcewise.load` returns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sourcewise.config import DataConfig, EvaluationConfig, GenerationConfig, Recipe
from sourcewise.config import messages as schema
from sourcewise.config.files import load_recipe
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_sources
from sourcewise.data.readers.plain_text import encode_set
from sourcewise.data.spelling import NOTHING, Spelling
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import DataWarning, RequestError, tell
from sourcewise.generation.engine.search import Engine, why_not
from sourcewise.generation.generate import Memories, Progress, encode_batches, generate_lists, reader
from sourcewise.generation.outputs import Generated, Output, Outputs, tell_words
from sourcewise.generation.rules import Allowed
from sourcewise.generation.sampling import Hypothesis, steps
from sourcewise.generation.scores import scored
from sourcewise.generation.settings import READ, Settings, read_settings
from sourcewise.model.ensemble import Ensemble
from sourcewise.model.finite import refuse_damaged, state_of
from sourcewise.model.inputs.source_encoder import PIXELS, encoder_of
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place
from sourcewise.model.protocol import Network
from sourcewise.model.weights.checkpoint import (
    find_folder,
    generation_told,
    load_network,
    save_network,
    tokenizer_folder,
)
from sourcewise.model.weights.generation_config import shown
from sourcewise.model.weights.hearing import placed, refuse_images, sounds_of
from sourcewise.runtime.device import choose_device, computes_bf16
from sourcewise.runtime.notebook import table
from sourcewise.runtime.random import host_kept

PRECISIONS = ("fp32", "bf16", "int8", "auto")
MOST_OUTPUTS = 1000  # of a source
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # torch's arithmetic


@dataclass(repr=False)
class Model:
    """A network, its tokenizer, and the options of its recipe for reading and generation."""

    network: Network
    tokenizer: Tokenizer
    name: str = ""
    data: DataConfig = field(default_factory=DataConfig)  # maximum lengths
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    engine: Engine | None = None  # search in int8, if `load` was asked for it
    settings: Settings = field(default_factory=Settings)  # of generation, from the model's folder
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # how its outputs are measured
    _checked: object = field(default=None, init=False, repr=False, compare=False)  # the weights that were finite

    def __repr__(self) -> str:
        """Name, kind of sources, and size, on one line."""
        return f"<Model {self.name or 'without a name'}: {', '.join(value for _, value in self._facts())}>"

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        return table(self.name or "a model", ("", ""), self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        dims, search = self.network.dims, self.generation
        size = sum(info.parameter.numel() for info in self.network.parts())
        return [
            ("sources", f"features {dims} wide" if dims else "text"),
            ("parameters", f"{size:,} parameters"),
            ("vocabulary", f"{self.tokenizer.size:,} tokens"),
            ("search", f"beams {search.beams}, at most {search.max_new_tokens} new tokens"),
        ]

    def generate(
        self,
        sources: str | Sequence[str] | Dataset | Memories,
        *,
        n_best: int = 1,
        scores: bool = False,
        allowed_tokens: Allowed | None = None,
        progress: Progress | None = None,
        first: int = 0,
        alone: bool = False,
        **options: Any,
    ) -> Generated:
        """One output per source: a list of texts. `options` are those of GenerationConfig: beams=4, ...

        `of[i]` of the result has the `n_best` outputs of source i; with `scores` they have the log-probability, source
        bits and alignment of each token. `allowed_tokens(index, ids)` returns the ids that may follow `ids`, the start
        included, as Hugging Face's prefix_allowed_tokens_fn. `first` is the index of the first source in a set that is
        given in parts, since samples belong to indices. With `alone`, source bits do not use other sources of the set.
        Raises RequestError for an option that does not exist or is out of range.
        """
        wanted = self.options(**self._room(n_best, options))
        if scores and isinstance(sources, Memories):
            raise RequestError("scores: give the sources themselves, not memories of them")
        given = sources if isinstance(sources, Memories) else self._encoded(sources)
        found = generate_lists(self.network, given, wanted, progress, self.engine, first, n_best, allowed_tokens)
        forced = bool(self.network.defaults.forced_eos)  # then each that is so long ends there, as it must
        for hypothesis in (each for several in found for each in several) if forced else ():
            hypothesis.forced = len(hypothesis.said) - hypothesis.given >= wanted.max_new_tokens
        if scores and isinstance(given, ExampleSet):
            generated = Generated(scored(self, given, found, progress, within=not alone))
        else:
            generated = Generated(Outputs(tuple(map(self._output, several))) for several in found)
        tell_words(generated, wanted, self.tokenizer)
        return generated

    def _output(self, found: Hypothesis) -> Output:
        text = self.tokenizer.decode(found.said)
        return Output(text, found.score, found.finished, tuple(found.said), utility=found.utility)

    def _room(self, n_best: int, options: dict[str, Any]) -> dict[str, Any]:
        """Options with as many beams as outputs, unless they are named. Raises RequestError for a wrong number."""
        if type(n_best) is not int or not 1 <= n_best <= MOST_OUTPUTS:
            raise RequestError(f"n_best should be an integer from 1 to {MOST_OUTPUTS:,}, not {n_best!r:.80}")
        sampled = options.get("sample", self.changed(options)["sample"])
        if "beams" in options or sampled or n_best <= self.generation.beams:
            return options
        return {**options, "beams": n_best}

    def encode(self, sources: str | Sequence[str] | Dataset) -> Memories:
        """Encode sources once, for any number of later calls of `generate`."""
        return encode_batches(self.network, self._encoded(sources), self.generation)

    def save(self, folder: str | Path) -> Path:
        """Write the model as a Hugging Face folder, with its adapters merged; returns the folder.

        transformers opens that of a T5, a BART or a model of its own. Raises RequestError if something is there.
        """
        path = Path(folder).expanduser()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RequestError(f"{path}: something is there; name a folder that is new or empty")
        assert isinstance(self.network, Seq2Seq)
        save_network(self.network, path, self.tokenizer, self.generation)
        return path

    def stream(self, source: str | Dataset, **options: Any) -> Iterator[str]:
        """Yields the output of one source as it grows, greedy or sampled, whatever beams the recipe or folder has.

        Raises RequestError if more than one beam is asked for, since the result of a beam search is known at its end.
        """
        wanted = self.options(**options)
        if options.get("beams", 1) > 1 and not wanted.sample:
            problem = f"beams should be 1 to stream, not {wanted.beams}: a beam search is known at its end only"
            raise RequestError(problem)
        return self._stream(wanted, self._encoded(source))

    def _stream(self, wanted: GenerationConfig, encoded: ExampleSet) -> Iterator[str]:
        ids: list[int] = []
        shown = text = ""
        with torch.inference_mode():
            memory = self.network.encode(encoded.batch([0]).source)
            for _, tokens, _ in steps(self.network, [([0], memory)], wanted, reader(encoded), every=1):
                ids.append(int(tokens[0]))
                text = self.tokenizer.decode(ids)
                if not text.endswith("\ufffd"):  # half a character: wait for the rest
                    yield text[len(shown) :]
                    shown = text
            if text != shown:  # the output ends in half a character
                yield text[len(shown) :]

    def followed(self, **changes: Any) -> dict[str, Any]:
        """The settings of the folder's generation_config.json that remain in force beside these changes."""
        own, kept = self.generation.model_dump(), self.changed(changes)
        return {
            key: value
            for key, value in self.settings.followed.items()
            if key not in READ or own[READ[key]] == kept[READ[key]]
        }

    def held(self, **changes: Any) -> str:
        """The same settings in one line; empty if there are none."""
        told = ", ".join(f"{key} = {shown(value)}" for key, value in self.followed(**changes).items())
        return f"{self.settings.file}: its {told} held" if told else ""

    def changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        """This model's generation options with changes, unchecked; changes take precedence over the folder's."""
        own = self.generation.model_dump()
        if "beams" in changes and "sample" not in changes:  # beams without sampling mean a search
            own["sample"] = False
        most = changes.get("max_new_tokens")
        if "min_new_tokens" not in changes and type(most) is int and 0 < most < own["min_new_tokens"]:
            own["min_new_tokens"] = most  # the same: no end before the last token
        return {**own, **changes}

    def options(self, **changes: Any) -> GenerationConfig:
        """This model's generation options with changes, checked."""
        try:
            wanted = GenerationConfig.model_validate(self.changed(changes))
        except ValidationError as error:
            raise RequestError(schema.explain(error, GenerationConfig, "generation")) from None
        asks_tokens = wanted.encoder_no_repeat_ngram or wanted.encoder_repetition_penalty != 1
        if self.network.dims and asks_tokens:
            named = "encoder_no_repeat_ngram and encoder_repetition_penalty"
            raise RequestError(f"generation: {named} are for text sources")
        check_positions("generation: max_new_tokens", wanted.max_new_tokens, self.network.positions, self.name)
        return wanted

    def measuring(self, **changes: Any) -> EvaluationConfig:
        """This model's options of evaluations with changes, checked. Raises RequestError."""
        try:
            return EvaluationConfig.model_validate({**self.evaluation.model_dump(), **changes})
        except ValidationError as error:
            raise RequestError(schema.explain(error, EvaluationConfig, "evaluation")) from None

    def _encoded(self, sources: str | Sequence[str] | Dataset) -> ExampleSet:
        if isinstance(sources, str):
            sources = [sources]
        encoded = self.lay_out(sources if isinstance(sources, Dataset) else open_sources(list(sources)))
        encoded.tell()
        return encoded

    def limited(self, **limits: Any) -> Model:
        """A copy with other limits (max_source and max_target in tokens, max_frames), or languages.

        Raises RequestError.
        """
        try:
            data = self.data.limited(**limits)
        except ValidationError as error:
            raise RequestError(schema.explain(error, DataConfig, "data")) from None
        for name in ("max_source", "max_target"):
            check_positions(name, limits.get(name), self.network.positions, self.name)
        return replace(self, data=data)

    def check_weights(self, *, anew: bool = True) -> None:
        """Raises NotFinite if a weight is NaN or infinite; unless `anew`, weights are checked only after a change."""
        state = state_of(self.network)
        if anew or self._checked != state:
            refuse_damaged(self.network, self.name or "this model")
            self._checked = state

    def lay_out(self, dataset: Dataset) -> ExampleSet:
        """A data set tokenised and truncated for this model.

        Raises RequestError unless the network reads such sources, and NotFinite if a weight is NaN or infinite.
        """
        self.check_weights(anew=False)
        reads = self.network.dims
        if dataset.dims != reads:
            given = f"features {dataset.dims} wide" if dataset.dims else "text"
            wanted = f"features {reads} wide" if reads else "text"
            raise RequestError(f"{dataset.name}: its sources are {given}; {self.name or 'this model'} reads {wanted}")
        encoder = encoder_of(self.network) if isinstance(self.network, Seq2Seq) else None
        if encoder is not None and encoder.reads == PIXELS:
            refuse_images(encoder.image, dataset.image, dataset.name)
        encoded = encode_set(dataset, self.tokenizer, self.data)
        for side, rows, size in (
            ("source", encoded.sources or [], self.network.vocabulary),
            ("target", encoded.targets, self.network.spoken),
        ):
            largest = max((max(ids) for ids in rows if len(ids)), default=0)
            if largest >= size:
                problem = f"its tokenizer gives a {side} the id {largest}, its weights embed {size} for {side}s"
                raise RequestError(f"{self.name or 'this model'}: {problem}; they are not of one model")
        return encoded


@host_kept
def load(
    name: str | Path | Sequence[str | Path],
    device: str = "auto",
    precision: str = "fp32",
    *,
    beside: str = "bf16",
    **limits: Any,
) -> Model:
    """Load a run folder, a Hugging Face folder or a hub name (fetched). Raises RequestError.

    Several names are an ensemble: the mean of their probabilities. They have one vocabulary and read alike; the options
    are those of the first.

    `limits` are the maximum lengths of sources and targets: max_source and max_target in tokens, max_frames. Defaults
    are those of the training, or of `data` in a recipe if the training is unknown. So are `source_language` and
    `target_language`, of all sources and outputs.

    precision: fp32; bf16, twice as fast on processors with bf16; int8, the fastest on a CPU with AVX2 (more so with
    AVX-512) and a C++ compiler; auto: bf16 on an accelerator that computes in it, else fp32. In bf16 and int8 near ties
    may be decided differently. Options of generation are those of the run, or of the folder's generation_config.json.
    `beside` is the precision of all that int8 leaves to torch (samples, streams, traces, bridges): bf16, or fp32, in
    which oneDNN compiles no code per shape.
    """
    for name_of, given, known in (("precision", precision, PRECISIONS), ("beside", beside, DTYPES)):
        if given not in known:
            raise RequestError(f"{name_of} {given}: not one of {', '.join(known)}")
    if not isinstance(name, (str, Path)):
        return ensemble([load(each, device, precision, beside=beside, **limits) for each in name])
    folder = find_folder(name)
    network: Any = load_network(folder)
    target = choose_device(device)
    precision = _precision(target) if precision == "auto" else precision
    engine = _engine(network, target, str(name)) if precision == "int8" else None
    place(network, target, DTYPES[beside if engine else precision])
    recipe, settings = _asked_by(folder)
    heard = placed(recipe.data.sounds, folder) or sounds_of(folder)
    data, generation = recipe.data.model_copy(update={"sounds": heard}), recipe.generation
    if network.positions is not None:
        data, generation = _within(network.positions, data, generation, settings)
    tokenizer = Tokenizer.load(tokenizer_folder(folder), asked=bool(limits.get("target_language")))
    tokenizer = tokenizer.led_by(network.defaults.forced_bos)
    found = Model(network, tokenizer, str(name), data, generation, engine, settings, recipe.measuring)
    return found.limited(**limits)


def _precision(device: torch.device) -> str:
    """The precision that is right for a device if none is asked for: bf16, which is told, or fp32."""
    if not computes_bf16(device):
        return "fp32"
    tell(f"generation: in bf16 on {device}, where near ties may be decided differently; precision fp32 is exact")
    return "bf16"


def ensemble(models: Sequence[Model]) -> Model:
    """Several models as one, with the mean of their probabilities. Raises RequestError if they do not go together."""
    if not models:
        raise RequestError("an ensemble has at least one model")
    first = models[0]
    if len(models) == 1:
        return first
    if any(model.engine is not None for model in models):
        raise RequestError("precision int8 is for one model; take bf16 or fp32 for an ensemble")
    for model in models[1:]:
        if model.tokenizer.digest() != first.tokenizer.digest():
            raise RequestError(f"{model.name}: cannot join {first.name} in an ensemble: its vocabulary is another one")
        if _reading(model) != _reading(first):
            problem = f"reads its sources otherwise: {_reading(model)}, not {_reading(first)}"
            raise RequestError(f"{model.name}: cannot join {first.name} in an ensemble: it {problem}")
    names = [model.name for model in models]
    network = Ensemble([model.network for model in models], names)
    return replace(first, network=network, name=" + ".join(names))


def _reading(model: Model) -> list[Spelling]:
    """How the sources of a model's training sets are changed when they are read."""
    return sorted({Spelling.of(each) for each in model.data.sets("train")}, key=repr) or [NOTHING]


def _asked_by(folder: Path) -> tuple[Recipe, Settings]:
    """The recipe of a checkpoint's run, or one with what another folder asks for, with notes on ignored settings."""
    run = folder.parent.parent
    if folder.parent.name == "checkpoints" and (run / "recipe.yaml").is_file():
        return load_recipe(run / "recipe.yaml"), Settings()
    settings = read_settings(generation_told(folder))
    for note in settings.notes:
        warnings.warn(note, DataWarning, stacklevel=3)
    return Recipe(generation=GenerationConfig(**settings.options)), settings


def _within(
    positions: int, data: DataConfig, generation: GenerationConfig, settings: Settings
) -> tuple[DataConfig, GenerationConfig]:
    """The same data and generation options, limited to a network's number of positions."""
    read = {name: min(getattr(data, name), positions) for name in ("max_source", "max_target")}
    said = {name: min(getattr(generation, name), positions) for name in ("max_new_tokens", "min_new_tokens")}
    if positions < settings.options.get("max_new_tokens", 0):
        told = f"{settings.file}: {settings.options['max_new_tokens']} new tokens are asked for"
        told += f", the model has {positions} positions: outputs end there"
        warnings.warn(told, DataWarning, stacklevel=3)
    return data.model_copy(update=read), generation.model_copy(update=said)


def check_positions(option: str, asked: int | None, positions: int | None, name: str) -> None:
    """Raises RequestError if an option asks for more tokens than a network has positions."""
    if asked is not None and positions is not None and asked > positions:
        raise RequestError(f"{option} is {asked}, {name or 'this model'} has {positions} positions")


def _engine(network: Network, device: torch.device, name: str) -> Engine:
    """The network in int8. Raises RequestError if that is impossible here, NotFinite for damaged weights."""
    reason = why_not(network, device)
    if reason:
        raise RequestError(f"{name}: precision int8 {reason}; take bf16 or fp32")
    assert isinstance(network, Seq2Seq)
    refuse_damaged(network, name)
    return Engine(network)
