"""Generation settings of a folder: its generation_config.json, and the ids of start, end and padding.

An id that generation_config.json lacks is searched in config.json, in its decoder's section, and in the tokenizer, in
this order; none is guessed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.config import GenerationConfig
from sourcewise.errors import DataWarning, RequestError
from sourcewise.model.generation_defaults import KEYS, NORMALISED
from sourcewise.model.weights.weight_files import read_json

FILE, CONFIG = "generation_config.json", "config.json"
START, BOS, EOS, PAD = "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"
IDS = (START, BOS, EOS, PAD)
PART = "its decoder"
TASKS = "task_specific_params"
DECODERS = ("decoder", "generator", "text_config")  # names of the decoder's section in a config.json

# Generation settings with their defaults; old config.json files contain all of them.
NEUTRAL: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "num_beams": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
    "num_return_sequences": 1,
    "do_sample": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": None,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "penalty_alpha": 0.0,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "guidance_scale": 1.0,
    "remove_invalid_values": False,
    "stop_strings": None,
    "max_time": None,
    "token_healing": False,
    "watermarking_config": None,
    **dict.fromkeys(KEYS),
    NORMALISED: False,
}

OPTIONS = {  # a setting of `generate` → our option
    "num_beams": "beams",
    "do_sample": "sample",
    "max_new_tokens": "max_new_tokens",
    "min_new_tokens": "min_new_tokens",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "encoder_no_repeat_ngram_size": "encoder_no_repeat_ngram",
    **{name: name for name in ("early_stopping", "length_penalty", "temperature", "top_k", "top_p", "min_p")},
    **{name: name for name in ("typical_p", "epsilon_cutoff", "eta_cutoff")},
    **{name: name for name in ("repetition_penalty", "encoder_repetition_penalty")},
}
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
OF_CLASS = {  # model_type → defaults of transformers for keys that config.json lacks
    "t5": {PAD: 0, EOS: 1},
    "mt5": {PAD: 0, EOS: 1, START: 0},
    "bart": {PAD: 1, BOS: 0, EOS: 2, START: 2},
    "mbart": {PAD: 1, BOS: 0, EOS: 2},
    "marian": {PAD: 58100, EOS: 0, START: 58100},
}

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """The generation settings of a folder, possibly {}, and the name of their file."""

    settings: dict[str, Any]
    file: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ids:
    """The start token of a target, its end tokens, and padding."""

    start: int
    ends: tuple[int, ...]
    pad: int


def read_told(folder: Path, config: Tree) -> Told:
    """The generation settings of a folder as in transformers: from config.json only without a generation_config.json.

    Raises RequestError for a file that is no JSON object.
    """
    path, part = folder / FILE, decoder_part(config)
    found = {key: part.get(key) if config.get(key) is None else config[key] for key in NEUTRAL}
    old = {key: value for key, value in found.items() if value not in (None, NEUTRAL[key])}
    notes = []
    if config.get(TASKS):
        tasks = ", ".join(config[TASKS]) if isinstance(config[TASKS], dict) else shown(config[TASKS])
        notes.append(f"{folder / CONFIG}: {TASKS} ({tasks}) is not followed, as by `generate` of transformers")
    if not path.is_file():
        return Told(old, str(folder / CONFIG), tuple(notes))
    settings = read_json(path)
    left = {key: value for key, value in old.items() if key in config and value != settings.get(key)}
    notes += [f"{folder / CONFIG}: {k} = {shown(v)} is not followed: {FILE} is there" for k, v in left.items()]
    return Told({k: v for k, v in settings.items() if v is not None}, str(path), tuple(notes))


def write_search(options: GenerationConfig, positions: int | None) -> dict[str, Any]:
    """Our options as settings of transformers' `generate`, as many as the same search needs.

    `positions` is the maximum length of a target.
    """
    ours, usual = options.model_dump(), GenerationConfig().model_dump()
    of_beams = ("early_stopping", "length_penalty")
    told: dict[str, Any] = {"max_new_tokens": min(options.max_new_tokens, positions or options.max_new_tokens)}
    told["num_beams"] = 1 if options.sample else options.beams
    for name, option in OPTIONS.items():
        left_out = not options.sample if name in SAMPLED else name in of_beams and told["num_beams"] == 1
        if name not in told and not left_out and (ours[option] != usual[option] or name == "top_k"):
            told[name] = ours[option]
    return told


def in_memory(generation: Tree, config: Tree, vocabulary: int) -> Ids:
    """The ids of a model without a folder, from its configuration; possibly without end tokens.

    Raises RequestError if there is no start token.
    """
    places = (config, decoder_part(config), generation)

    def find(key: str, places: tuple[Tree, ...] = places) -> tuple[int, ...]:
        given = (place.get(key) for place in places)
        lists = (value if isinstance(value, (list, tuple)) else [value] for value in given if value is not None)
        return next((tuple(ids) for ids in lists if ids and all(0 <= each < vocabulary for each in ids)), ())

    ends, start = find(EOS, places[::-1]), find(START) or find(BOS) or find(PAD)
    if not start:
        raise RequestError(f"the model's configuration has neither {START} nor {BOS} nor {PAD}; set the first")
    return Ids(start[0], ends, (find(PAD) or ends or start)[0])


def decoder_part(config: Tree) -> Tree:
    """The decoder's section of a config.json; the complete one if there is none."""
    return next((config[name] for name in DECODERS if isinstance(config.get(name), dict)), {})


def shown(value: Any) -> str:
    """A setting as in its file, in one line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:56] + " ..."


class Search:
    """Searches the ids of a folder, place after place; `default` are the class's values of missing keys."""

    def __init__(
        self, folder: Path, told: Tree, config: Tree, vocabulary: int, default: Tree, of_decoder: Tree | None = None
    ) -> None:
        self.folder, self.vocabulary, self.notes = folder, vocabulary, list[str]()
        self.raw, self.config = config, {**default, **config}
        part = decoder_part(config)
        self.part: Tree = {**(of_decoder or {}), **part} if part else {}
        # Without the file, `told` is from config.json, and has nothing new.
        self.file: Tree = told if (folder / FILE).is_file() else {}

    def ids(self, starts_with_padding: bool = False) -> Ids:
        """The ids, with a DataWarning for one that is missing in its usual place.

        Raises RequestError for one that is missing everywhere, or is no id.
        """
        ends = self._find(EOS, tokenizer=("eos_token_id", "sep_token_id"))
        if not ends:
            raise self._missing(EOS, "no text ever ends")
        pad = self._find(PAD, tokenizer=("pad_token_id",), quiet=True) or ends  # as in `generate`
        start = self._find(START)
        if start and not self._said(START):
            self._tell_of_class(start[0])
        if not start and (start := self._find(BOS, quiet=True)) and not self._said(BOS):
            self._note(START, f"{start[0]}, the {BOS} of its class, is taken")
        if not start and starts_with_padding:
            start = pad[:1]
            self._note(START, f"{start[0]}, the padding, is taken, as T5 has it")
        start = start or self._find(START, tokenizer=("bos_token_id", "cls_token_id"), places=False)
        if not start:
            raise self._missing(START, "a target starts with nothing")
        if len(start) > 1:
            raise RequestError(f"{self.folder}: {START} = {list(start)}: a target starts with one token; give one id")
        for note in dict.fromkeys(self.notes):
            warnings.warn(note, DataWarning, stacklevel=2)
        return Ids(start[0], ends, pad[0])

    def _tell_of_class(self, start: int) -> None:
        """Tell of a start token that only the model's class has, where `generate` would begin with another."""
        other = next((tree[BOS] for tree in (self.file, self.raw) if tree.get(BOS) is not None), start)
        if other != start:
            taken = f"{start}, of its class, is taken, as in its loss"
            self._note(
                START, f"{taken}; `generate` of transformers begins with {BOS} {shown(other)}: add the right one"
            )

    def _said(self, key: str) -> bool:
        """Whether any file has a value for a key, rather than its class."""
        return any(tree.get(key) is not None for tree in (self.file, self.raw, decoder_part(self.raw)))

    def _find(
        self, key: str, tokenizer: tuple[str, ...] = (), *, quiet: bool = False, places: bool = True
    ) -> tuple[int, ...]:
        """The ids of the first place that has some; warns if it is not the usual one, unless `quiet`."""
        for place, tree in ((FILE, self.file), (CONFIG, self.config), (PART, self.part)) if places else ():
            value = tree.get(key)
            found = self._valid(value, f"{CONFIG if place == PART else place}: {key}")
            if found:
                odd = place == PART or (key == EOS and place == CONFIG and self.file)
                if odd and not quiet:
                    self._note(key, f"{shown(value)} of {place} is taken", FILE if self.file else CONFIG)
                if key == START and place == FILE and self.config.get(START) not in (None, value):
                    other = f"{self.folder / CONFIG}: {START} = {shown(self.config[START])}"
                    self.notes.append(f"{other} is not followed: {FILE} has {shown(value)}")
                return found
        for name in tokenizer:
            found = self._valid(_of_tokenizer(self.folder).get(name), f"tokenizer: {name}")
            if found:
                if not quiet:
                    self._note(key, f"{found[0]}, the tokenizer's {name.removesuffix('_id')}, is taken")
                return found
        return ()

    def _valid(self, value: Any, where: str) -> tuple[int, ...]:
        """The ids in the vocabulary; warns of others. Raises RequestError for a value that is no id."""
        given = [] if value is None else value if isinstance(value, list) else [value]
        if not all(type(each) is int for each in given):
            raise RequestError(f"{self.folder}/{where} should be an id, not {shown(value)}")
        beyond = [each for each in given if not 0 <= each < self.vocabulary]
        if beyond:
            self.notes.append(f"{self.folder}/{where} {beyond[0]} is left out: the decoder has {self.vocabulary} ids")
        return tuple(dict.fromkeys(each for each in given if each not in beyond))

    def _note(self, key: str, taken: str, file: str = CONFIG) -> None:
        self.notes.append(f"{self.folder / file}: {key} is missing: {taken}")

    def _missing(self, key: str, so: str) -> RequestError:
        looked = f"neither {FILE} nor the tokenizer has it" if self.file else "the tokenizer does not have it, either"
        return RequestError(f"{self.folder / CONFIG}: {key} is missing ({looked}): {so}; add it")


def _of_tokenizer(folder: Path) -> dict[str, int | None]:
    """The special ids of the tokenizer in a folder; {} if none can be opened."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception:  # many kinds; opening the tokenizer itself reports the reason
        return {}
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
        return {}  # without files transformers makes a tokenizer of special tokens alone
    names = [f"{role}_token_id" for role in ("bos", "cls", "eos", "sep", "pad")]
    return {name: getattr(tokenizer, name, None) for name in names}
