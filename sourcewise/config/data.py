"""Options of the data: sets, mixtures, conversations."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from sourcewise.config.options import Options, Positive, TaskFigure

OF_COLUMN = "column:"  # before the name of a column that holds languages
KINDS = ("pairs", "conversations", "text", "manifest", "builtin")  # kinds of data sets
OF_TEXT = ("denoise", "noise_density", "mean_span")  # options of the kind `text`


class ChatConfig(Options):
    """Format of a conversation as text; the defaults are FastChat's for T5."""

    human: str = Field("Human", description="what the human is called in the text")
    model: str = Field("Assistant", description="what the model is called in the text")
    turn: str = Field("### {role}: {text}\n", description="how a turn is written; the model speaks from {text} on")
    system: str = Field(
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions.",
        description="system prompt of conversations that bring none; empty: none",
    )
    head: str = Field("{text}\n\n", description="how the system prompt is written")
    human_roles: list[str] = Field(["human", "user"], description="who is the human in the file (its `from`)")
    model_roles: list[str] = Field(["gpt", "chatgpt", "assistant", "model"], description="who is the model")
    system_roles: list[str] = Field(["system"], description="whose turn is the system prompt")

    @model_validator(mode="after")
    def _one_place_for_the_text(self) -> ChatConfig:
        for name in ("turn", "head"):
            if getattr(self, name).count("{text}") != 1:
                raise ValueError(f"{name} should hold {{text}} once, not {getattr(self, name)!r}")
        roles = [role.lower() for role in (*self.human_roles, *self.model_roles, *self.system_roles)]
        twice = next((role for role in roles if roles.count(role) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice among the roles; give each `from` one meaning")
        return self


class DatasetConfig(Options):
    """One set of examples: pairs of texts, conversations, or a manifest with its features, or an embedded set."""

    pairs: str | None = Field(
        None, description="a .tsv, .csv, .jsonl, .parquet or .tar file of text pairs, or hub:NAME"
    )
    conversations: str | None = Field(None, description="a .json or .jsonl of conversations in ShareGPT's layout")
    text: str | None = Field(
        None, description="plain text to pre-train on: one document per line, or the named columns of a table"
    )
    denoise: Literal["span", "ul2"] = Field("span", description="of text: T5's span corruption, or UL2's denoisers")
    noise_density: float = Field(0.15, gt=0, le=0.9, description="of span corruption: share of the tokens dropped")
    mean_span: float = Field(3.0, ge=1, description="of span corruption: tokens in a row dropped, on average")
    manifest: str | None = Field(None, description="a .tsv (or .csv) that lists feature files and their target texts")
    features: str | dict[str, str] | None = Field(
        None,
        description="the folder of the manifest's files, a file of all clips, or a pattern with {id}; or NAME: FOLDER "
        "of several streams, whose frames are joined",
    )
    file: str | None = Field(None, description="name of the manifest's column of files, or of matrices")
    builtin: Literal["digits", "dates"] | None = Field(None, description="an embedded set, for demos")
    split: str | None = Field(
        None, description="the split of a hub or embedded set (default: what the set is used for)"
    )
    subset: str | None = Field(None, description="the configuration of a hub set")
    source: str | None = Field(None, description="name of the source column (default: source)")
    target: str | None = Field(None, description="name of the target column (default: target, or the manifest's own)")
    prompt: str | None = Field(None, description="name of the column with a text prompt beside the features")
    quoting: Literal["auto", "csv", "text"] = Field(
        "auto", description="quotes around cells of a .tsv or .csv: CSV's (removed), text, or inferred from all of them"
    )
    prefix: str = Field("", description="task prefix: put before every source text, or the prompt beside features")
    lowercase: bool = Field(False, description="lower-case sources and targets")
    source_form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = Field(
        None, description="Unicode form of the sources, such as NFD: a letter apart from its accent (default: as read)"
    )
    source_letters: bool = Field(
        False,
        description="write sources with a space between all characters (spaces they had go), behind source_form: so "
        "that data.unit words takes letters",
    )
    where: dict[str, str] = Field(
        default_factory=dict,
        description="of pairs: only the rows whose column has this value, COLUMN: VALUE; a list of values makes a "
        "task of each, and {COLUMN} in prefix and name is its value",
    )
    source_language: str | None = Field(
        None, min_length=1, description="language of the sources (default: data.source_language)"
    )
    target_language: str | None = Field(
        None, min_length=1, description="language of the targets (default: data.target_language)"
    )
    name: str | None = Field(None, min_length=1, description="name of the task (default: that of the file)")
    weight: float = Field(1.0, gt=0, description="share of this set in a mixture, relative to the others")
    max_source: Positive | None = Field(None, description="data.max_source of this set (default: as there)")
    max_target: Positive | None = Field(None, description="data.max_target of this set (default: as there)")
    metric: TaskFigure | None = Field(None, description="the figure this task is judged by (default: bleu)")
    join_sources: bool = Field(
        False, description="of valid or test: rows of one source text are one example with several references"
    )
    limit: Positive | None = Field(None, description="use only the first N examples")
    stream: bool = Field(
        False,
        description="of pairs in train (Parquet, shards of .tar, a folder of either, hub:NAME): read "
        "data.stream_examples at a time, and never keep all of them",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> DatasetConfig:
        kinds = [k for k in KINDS if getattr(self, k)]
        if len(kinds) != 1:
            known = f"{', '.join(KINDS[:-1])} and {KINDS[-1]}"
            raise ValueError(f"give one of {known}, not {' and '.join(kinds) or 'none'}")
        for name in ("features", "file"):
            if getattr(self, name) and not self.manifest:
                raise ValueError(f"{name} goes with a manifest; give manifest too")
        if not self.text and any(getattr(self, k) != type(self).model_fields[k].default for k in OF_TEXT):
            raise ValueError(f"{', '.join(OF_TEXT[:-1])} and {OF_TEXT[-1]} go with text; give text too")
        if self.stream and not self.pairs:
            raise ValueError("stream reads pairs: from Parquet, shards (.tar), a folder of either, or hub:NAME")
        if self.where and (not self.pairs or self.stream):
            raise ValueError("where chooses among the rows of pairs that are not streamed")
        if self.text and (self.prefix or self.prompt or self.source_form or self.source_letters):
            raise ValueError(
                "text has no sources to put a prefix or prompt before, or to write in a source_form or in "
                "source_letters; leave it out"
            )
        if self.denoise == "ul2" and (self.noise_density, self.mean_span) != (0.15, 3.0):
            raise ValueError("noise_density and mean_span are of denoise span; UL2's denoisers have their own")
        return self

    @field_validator("pairs")
    @classmethod
    def _set_of_the_hub(cls, pairs: str | None) -> str | None:
        if pairs is not None and pairs.startswith("hf://"):
            name = pairs.removeprefix("hf://").removeprefix("datasets/").partition("@")[0]
            raise ValueError(f"a set of the hub is written hub:{'/'.join(name.split('/')[:2])}, not {pairs}")
        return pairs

    @field_validator("features", mode="before")
    @classmethod
    def _streams_in_words(cls, features: Any) -> Any:
        return named_streams(features) if isinstance(features, str) else features

    @field_validator("where", mode="before")
    @classmethod
    def _rows_in_words(cls, where: Any) -> Any:
        return dict([where.split("=", 1)]) if isinstance(where, str) and "=" in where else where

    @field_validator("features")
    @classmethod
    def _streams_have_names(cls, features: str | dict[str, str] | None) -> str | dict[str, str] | None:
        if features == {}:
            raise ValueError("names no stream; give NAME: FOLDER")
        return features

    @property
    def task(self) -> str:
        """Name of the task: as given, else of the file, or of the hub or embedded set with its split."""
        path = self.pairs or self.conversations or self.text or self.manifest or self.builtin or ""
        return self.name or "-".join(filter(None, (PurePath(path.removeprefix("hub:")).stem, self.subset, self.split)))


def named_streams(features: str) -> str | dict[str, str]:
    """`pose=DIR,rgb=DIR` as a mapping; any other text as it is. Raises ValueError if two have one name."""
    if not re.fullmatch(r"[A-Za-z_]\w*=[^,]+(,[A-Za-z_]\w*=[^,]+)*", features) or Path(features).exists():
        return features
    pairs = [each.split("=", 1) for each in features.split(",")]
    found: dict[str, str] = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"features {features}: each stream needs its own name")
    return found


def _named_apart(sets: list[DatasetConfig]) -> list[DatasetConfig]:
    names = [each.task for each in sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two sets are called {twice}; give each a name of its own")
    return sets


def _task_of_each(named: Any) -> Any:
    """A set whose `where` has a list of values as sets, one for each value; a mixture has them in its place."""
    if isinstance(named, list):
        made = [_task_of_each(each) for each in named]
        return [one for each in made for one in (each if isinstance(each, list) else [each])]
    where = named.get("where") if isinstance(named, dict) else None
    if not isinstance(where, dict):
        return named
    listed = {column: values for column, values in where.items() if isinstance(values, list)}
    if len(listed) > 1 or [] in listed.values():
        raise ValueError("where: one column may have a list of values, and not an empty one")
    sets = [_with_value(named, column, str(value)) for column, values in listed.items() for value in values]
    return sets or named


def _with_value(named: dict[str, Any], column: str, value: str) -> dict[str, Any]:
    """The set with the rows of one value, which also stands for {COLUMN} in its prefix and name."""
    texts = {"name": named.get("name") or f"{{{column}}}", "prefix": named.get("prefix") or ""}
    texts = {key: text.replace(f"{{{column}}}", value) for key, text in texts.items()}
    return {**named, **texts, "where": {**named["where"], column: value}}


SOUNDS = {"log-mel": 80, "log-mel-128": 128, "fbank": 80, "samples": 1}  # the width of their frames
OWN = "own:"  # before the folder of a model whose own processor prepares recordings


def _sounds(value: str) -> str:
    if value not in SOUNDS and not value.removeprefix(OWN) != value:
        raise ValueError(f"{value}: not one of {', '.join(SOUNDS)}, {OWN}FOLDER")
    return value


Sounds = Annotated[str, AfterValidator(_sounds)]
Mixture = Annotated[list[DatasetConfig], Field(min_length=1), AfterValidator(_named_apart)]


class DataConfig(Options):
    """The data that the model reads."""

    root: str = Field("", description="folder that relative paths of the sets start from")
    train: DatasetConfig | Mixture | None = Field(None, description="training set, or a mixture of sets")
    valid: DatasetConfig | Mixture | None = Field(None, description="set, or sets, for evaluation while training")
    test: DatasetConfig | Mixture | None = Field(
        None, description="set, or sets, for the final evaluation (default: valid)"
    )
    rates: Literal["equal", "proportional"] = Field(
        "equal", description="shares of a mixture's sets, times their weights: equal, or as their numbers of examples"
    )
    rate_cap: Positive | None = Field(None, description="a set counts at most this many examples (proportional)")
    temperature: float = Field(1.0, gt=0, description="rates to the power of 1/this: above 1 more even (proportional)")
    tokenizer: str | None = Field(None, description="tokenizer.json, SentencePiece model or folder; default: train one")
    vocabulary: Annotated[int, Field(ge=16)] = Field(8000, description="entries of a tokenizer trained here")
    unit: Literal["subwords", "words", "characters"] = Field("subwords", description="unit of those entries")
    add_tokens: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, description="texts that become one token each where the tokenizer lacks them"
    )
    source_language: str | None = Field(
        None, min_length=1, description="language of the sources, as the tokenizer names it, or column:NAME of the sets"
    )
    target_language: str | None = Field(
        None, min_length=1, description="language of the targets, in the same way; outputs begin with its code"
    )
    max_source: Positive = Field(512, description="longest source in tokens; longer ones are cut")
    max_frames: Positive = Field(4096, description="longest source in frames; longer ones are cut")
    max_target: Positive = Field(256, description="longest target in tokens, end of text included")
    sounds: Sounds | None = Field(
        None,
        description="what recordings (.wav, …) are read as: log-mel (Whisper's 80 bands), log-mel-128, fbank (Kaldi's "
        "80 bands), samples, 16,000 a second, or own:FOLDER, by the processor of the model in a folder (default: what "
        "the model reads, else log-mel)",
    )
    group: str | None = Field(
        None, min_length=1, description="regular expression on ids: its first group says what belongs to one split"
    )
    skip_bad: bool = Field(False, description="leave out rows that cannot be used, and note them, instead of stopping")
    cache_gb: float = Field(4.0, ge=0, description="features up to this many GB are checked fully and kept in memory")
    memory_mb: float = Field(
        64.0, ge=0, description="a table of pairs of this many MB or more is kept on disk as ids, not in memory"
    )
    stream_examples: Positive = Field(100_000, description="examples of a stream that are shuffled together")
    store: str = Field("", description="folder for such tables, used again (default: sourcewise/sets in the cache)")
    chat: ChatConfig = Field(default_factory=ChatConfig, description="how conversations become text")

    @field_validator("train", "valid", "test", mode="before")
    @classmethod
    def _lists_of_values(cls, named: Any) -> Any:
        return _task_of_each(named)

    @field_validator("group")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _training_joins_nothing(self) -> DataConfig:
        if any(each.join_sources for each in self.sets("train")):
            raise ValueError("join_sources is for valid and test: of a source in train all but one target would go")
        return self

    @model_validator(mode="after")
    def _only_training_is_streamed(self) -> DataConfig:
        if any(each.stream for use in ("valid", "test") for each in self.sets(use)):  # type: ignore[arg-type]
            raise ValueError("stream is for train: an evaluation reads all examples; name a file of those that count")
        return self

    @model_validator(mode="after")
    def _rates_fit(self) -> DataConfig:
        if self.rates == "equal" and (self.rate_cap is not None or self.temperature != 1):
            raise ValueError("rate_cap and temperature go with rates: proportional")
        return self

    def limited(self, **limits: int | str) -> DataConfig:
        """A copy with these limits (max_source, max_target, max_frames) and languages for every set."""

        def freed(named: DatasetConfig | list[DatasetConfig] | None) -> Any:
            """The set, or sets, without own limits, which would take precedence."""
            if isinstance(named, list):
                return [freed(each) for each in named]
            own = dict.fromkeys(limits.keys() & DatasetConfig.model_fields.keys())
            return named and named.model_copy(update=own)

        sets = {use: freed(getattr(self, use)) for use in ("train", "valid", "test")}
        return DataConfig.model_validate({**self.model_dump(), **sets, **limits})

    def languages(self, own: DatasetConfig | None = None) -> tuple[str, str]:
        """The languages of sources and targets of a set: its own, or those of all; empty: the tokenizer's."""
        source, target = (own.source_language, own.target_language) if own else (None, None)
        return source or self.source_language or "", target or self.target_language or ""

    def path(self, path: str) -> Path:
        """A path of a set, from `root` on."""
        return Path(self.root).expanduser() / Path(path).expanduser()

    def features_of(self, config: DatasetConfig) -> Path | dict[str, Path] | None:
        """Where the features of a set are, from `root` on: a folder, file or pattern, or one for each stream."""
        if isinstance(config.features, dict):
            return {name: self.path(each) for name, each in config.features.items()}
        return self.path(config.features) if config.features else None

    def sets(self, use: Literal["train", "valid", "test"]) -> list[DatasetConfig]:
        """The sets of this use, as a list; empty where none is named."""
        named = getattr(self, use)
        return named if isinstance(named, list) else [named] if named else []
