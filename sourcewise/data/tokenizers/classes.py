"""Tokenizers that are opened by their transformers class, which knows how to encode targets."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sourcewise.data.tokenizers.fast import PROBE, ROLES, Fast, Frame, framed, notes_on, read_json, without_stored
from sourcewise.data.tokenizers.languages import Languages, code_of, is_code, refuse_language
from sourcewise.errors import RequestError
from sourcewise.runtime import hub

Pair = tuple[str, str]  # languages of sources and targets
WHISPERS, WHISPER_START = "set_prefix_tokens", "<|startoftranscript|>"  # a method that only Whisper's class has
SETTINGS = (
    "forced_bos_token_id",
    "decoder_start_token_id",
)  # of a model: if one is a language code, that language is chosen


def open_class(name: str) -> Fast | Slow:
    """The tokenizer of a folder or a hub name, opened by transformers. Raises RequestError if that fails.

    Its engine is used if it has one, since it encodes many texts far faster than the class.
    """
    import transformers

    try:
        with _told_once():
            theirs = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # many kinds, some from the network
        return _without_class(name, hub.reason(error))
    if len(set(theirs.get_vocab()) - set(theirs.all_special_tokens)) < 2:
        # if the vocabulary's files are missing, transformers makes a tokenizer of special tokens alone
        raise RequestError(f"{name}: its tokenizer has no vocabulary; tokenizer.json or spiece.model is missing")
    prompted = _prompt(theirs, Path(name)) if hasattr(theirs, WHISPERS) else ""
    languages = _settle(theirs, Path(name))
    opened: Engine | Slow = Engine(theirs, name) if _has_engine(theirs) else Slow(theirs, name)
    if languages is not None:
        opened.languages = languages
    opened.notes = (*opened.notes, prompted) if prompted else opened.notes
    return opened


def _without_class(name: str, reason: str) -> Fast:
    """Open a tokenizer.json as it stands if transformers cannot open its class. Raises RequestError without one."""
    whole = Path(name).expanduser() / "tokenizer.json"
    if not whole.is_file():
        raise RequestError(f"{name}: no tokenizer can be opened there: {reason}")
    opened = Fast.load(whole)
    opened.notes = (*opened.notes, f"read from its tokenizer.json alone: transformers cannot make its class ({reason})")
    return opened


class Engine(Fast):
    """The engine of a transformers tokenizer, with the class's special tokens around targets; saved as that class."""

    pair: Pair | None = None  # chosen languages of sources and targets, as the class names them
    prompted = False  # whether outputs always begin with what stands before targets (Whisper)

    def __init__(self, theirs: Any, name: str) -> None:
        self._theirs, self._where = theirs, name
        engine, target = theirs.backend_tokenizer, None
        if hasattr(theirs, "_switch_to_target_mode"):
            kept = getattr(theirs, "tgt_lang", None)
            whole = theirs(text_target=PROBE)["input_ids"]
            theirs(PROBE)  # back to sources
            theirs.tgt_lang = kept  # some classes take the source's language otherwise
            target = _unstarted(framed(whole, engine.encode(PROBE, add_special_tokens=False).ids), theirs)
        elif hasattr(theirs, WHISPERS):
            self.prompted = True
            target = _unstarted(_framed_by(theirs, "text"), theirs)
        engine.no_truncation()  # nor is any saved
        engine.no_padding()
        names = {role: str(getattr(theirs, role) or "") for role in ROLES}
        cleans = bool(theirs.clean_up_tokenization_spaces)
        super().__init__(engine.to_str(pretty=True), name, names, target=target, cleans=cleans)
        if self.prompted and self.languages is not None:
            self.languages = replace(self.languages, chosen="its folder", switches=True)
        self.cuts_left = theirs.truncation_side == "left"
        whole = Path(name).expanduser() / "tokenizer.json"
        if whole.is_file():
            self.notes = notes_on(without_stored(whole.read_text(encoding="utf-8"))[1])

    def in_languages(self, source: str, target: str) -> Fast:
        """See Backend."""
        if not (hasattr(self._theirs, "src_lang") or hasattr(self._theirs, WHISPERS)):
            return super().in_languages(source, target)
        other = copy.copy(self)
        other.pair, other.languages = named_by(self, self._theirs, source, target)
        with switched(self._theirs, other.pair):
            sides = [_framed_by(self._theirs, side) for side in ("text", "text_target")]
        other._frames = (sides[0], _unstarted(sides[1], self._theirs))
        return other

    def add(self, entries: Sequence[str]) -> Fast:
        """See Backend. If the class encodes targets differently, the entries are added to the class."""
        if self._frames[0] == self._frames[1]:
            return super().add(entries)
        larger = Engine(with_entries(self._theirs, entries), self._where)
        if self.pair is None:
            larger.languages = self.languages
            return larger
        return larger.in_languages(*self.pair)

    def save(self, folder: Path) -> None:
        """See Backend."""
        with switched(self._theirs, self.pair):
            self._theirs.save_pretrained(str(folder))


def _prompt(theirs: Any, folder: Path) -> str:
    """Let a Whisper begin its targets as its folder says: by its tokenizer, else by its generation_config.json.

    Returns a note if that has several languages and none is chosen.
    """
    told = read_json(folder / "generation_config.json")
    known, language = told.get("lang_to_id") or {}, told.get("language")
    forced = [pair[1] for pair in told.get("forced_decoder_ids") or () if isinstance(pair, list) and len(pair) == 2]
    if language is None:
        language = next((name for name, code in known.items() if code in forced), None)
    if theirs.language is None and isinstance(language, str):
        theirs.set_prefix_tokens(language=language.strip("<|>"), task=told.get("task") or "transcribe")
    many = theirs.language is None and bool(known) and told.get("is_multilingual", True)
    return "no target language is set, and no language is recognised here: outputs may be in any" if many else ""


def _has_engine(theirs: Any) -> bool:
    return getattr(theirs, "backend_tokenizer", None) is not None


def _settle(theirs: Any, folder: Path) -> Languages | None:
    """Choose the language of targets by the tokenizer's configuration, else by the model's settings.

    Without either it is the language of sources, as for mBART and NLLB (M2M-100 would fail).
    """
    if not hasattr(theirs, "tgt_lang") or not hasattr(theirs, "src_lang"):
        return None
    chosen = "tgt_lang of tokenizer_config.json" if theirs.tgt_lang else ""
    for file in ("generation_config.json", "config.json"):
        settings = read_json(folder / file)
        for setting in SETTINGS:
            if not chosen and isinstance(settings.get(setting), int):
                token = str(theirs.convert_ids_to_tokens(settings[setting]))
                if is_code(token):
                    theirs.tgt_lang, chosen = token.strip("_"), f"{setting} of {file}"
    source, target = (_code(theirs, lang) for lang in (theirs.src_lang, theirs.tgt_lang or theirs.src_lang))
    return Languages(source, target, chosen)


def _code(theirs: Any, language: str) -> str:
    """The code token of a language."""
    return str(theirs.get_lang_token(language)) if hasattr(theirs, "get_lang_token") else language


class Slow:
    """A tokenizer class in Python: bytes, Marian's two models, M2M-100."""

    pair: Pair | None = None  # chosen languages of sources and targets, as the class names them

    def __init__(self, theirs: Any, name: str) -> None:
        self._name, self._tokenizer = name, theirs
        self.size = _size(theirs)
        if theirs.eos_token_id is None:
            raise RequestError(f"{name}: its tokenizer has no end-of-text token, which every target needs")
        self.eos_id: int = theirs.eos_token_id
        self.unk_id: int = _first(theirs.unk_token_id, self.eos_id)
        self.pad_id: int = _first(theirs.pad_token_id, self.unk_id)
        self.languages: Languages | None = None
        self.cuts_left = theirs.truncation_side == "left"
        self.notes: tuple[str, ...] = _unprepared(theirs)
        self._frames = [self._frame(target) for target in (False, True)]

    def _frame(self, target: bool) -> Frame:
        plain = self._call([PROBE], target, add_special_tokens=False)[0]
        return framed(self.encode([PROBE], target)[0], plain)

    def encode(self, texts: Sequence[str], target: bool = False) -> list[list[int]]:
        """See Backend."""
        return self._call(list(texts), target) if texts else []

    def _call(self, texts: list[str], target: bool, **options: Any) -> list[list[int]]:
        if target and self.pair is None and getattr(self._tokenizer, "tgt_lang", "") is None:
            target = False  # M2M-100 needs a language for that
        given = {"text_target" if target else "text": texts}
        with switched(self._tokenizer, self.pair):
            return [list(ids) for ids in self._tokenizer(**given, verbose=False, **options)["input_ids"]]

    def in_languages(self, source: str, target: str) -> Slow:
        """See Backend."""
        if not hasattr(self._tokenizer, "src_lang"):
            raise refuse_language(target or source, "target" if target else "source", ())
        other = copy.copy(self)
        other.pair, other.languages = named_by(self, self._tokenizer, source, target)
        other._frames = [other._frame(side) for side in (False, True)]
        return other

    def frame(self, target: bool = False) -> Frame:
        """See Backend."""
        return self._frames[target]

    def decode(self, ids: list[int]) -> str:
        """See Backend."""
        marks = {i for frame in self._frames for part in frame for i in part}
        marks.update((getattr(self._tokenizer, "lang_token_to_id", None) or {}).values())  # which M2M-100 may output
        return str(self._tokenizer.decode([i for i in ids if i not in marks], skip_special_tokens=True))

    def name(self, token: int) -> str:
        """See Backend."""
        return str(self._tokenizer.convert_ids_to_tokens(token) or "")

    def find(self, name: str) -> int | None:
        """See Backend."""
        found: Any = self._tokenizer.convert_tokens_to_ids(name)  # the unknown's id if there is none
        return None if found is None or self._tokenizer.convert_ids_to_tokens(found) != name else int(found)

    def added(self) -> set[int]:
        """See Backend."""
        return {i for i, entry in self._tokenizer.added_tokens_decoder.items() if not entry.special}

    def add(self, entries: Sequence[str]) -> Slow:
        """See Backend."""
        larger = copy.copy(self)
        larger._tokenizer = with_entries(self._tokenizer, entries)
        larger.size = _size(larger._tokenizer)
        if larger.size != self.size + len(entries):
            kind = type(self._tokenizer).__name__
            raise RequestError(f"data.add_tokens: a {kind} gives new entries ids that are others' already")
        return larger

    def save(self, folder: Path) -> None:
        """See Backend."""
        with switched(self._tokenizer, self.pair):
            self._tokenizer.save_pretrained(str(folder))

    def to_json(self) -> str:
        """See Backend."""
        raise RequestError(f"{self._name}: this kind of tokenizer has no tokenizer.json; save it as a folder")


def named_by(backend: Fast | Slow, theirs: Any, source: str, target: str) -> tuple[Pair, Languages]:
    """Languages as a class names them, and their codes; an empty one is the class's own. Raises RequestError."""
    known = [name for name in theirs.get_added_vocab() if is_code(name)]
    known += [str(each) for each in getattr(theirs, "lang_token_to_id", None) or ()]
    own, names, codes = backend.languages, [], []
    for side, language in (("source", source), ("target", target)):
        default = getattr(own, side, "") if own is not None else ""
        if hasattr(theirs, WHISPERS):
            from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

            language = TO_LANGUAGE_CODE.get(language.lower(), language)  # it knows `german`, too
        code = code_of(language or default, backend.find)
        if language and not code:
            raise refuse_language(language, side, known)
        names.append(code.strip("_<|>") if code != (language or default) or code.startswith("_") else code)
        codes.append(code)
    chosen = "data.target_language" if target else own.chosen if own is not None else ""
    return (names[0], names[1]), Languages(codes[0], codes[1], chosen)


@contextlib.contextmanager
def switched(theirs: Any, pair: Pair | None) -> Iterator[None]:
    """Within: a class encodes sources and targets in these languages; None: in its own."""
    if pair is None:
        yield
    elif hasattr(theirs, WHISPERS):
        kept = {name: getattr(theirs, name, None) for name in ("language", "task", "predict_timestamps")}
        theirs.set_prefix_tokens(language=pair[1], task=kept["task"] or "transcribe", predict_timestamps=False)
        try:
            yield
        finally:
            for name, value in kept.items():
                setattr(theirs, name, value)
            theirs.set_prefix_tokens()
    else:
        kept = {name: getattr(theirs, name) for name in ("src_lang", "tgt_lang")}
        theirs.src_lang, theirs.tgt_lang = pair
        try:
            yield
        finally:
            theirs.src_lang, theirs.tgt_lang = kept["src_lang"], kept["tgt_lang"]


def _framed_by(theirs: Any, side: str) -> Frame:
    """The special tokens that a class puts around a text (side `text`) or a target (`text_target`)."""
    plain = theirs(PROBE, add_special_tokens=False)["input_ids"]
    return framed(theirs(**{side: PROBE})["input_ids"], plain)


def _unstarted(frame: Frame, theirs: Any) -> Frame:
    """A target's frame without the decoder's start token, which the labels do not repeat (Whisper, SeamlessM4T)."""
    starts = (theirs.eos_token_id, theirs.convert_tokens_to_ids(WHISPER_START))
    return Frame(frame.before[1:], frame.after) if frame.before[:1] and frame.before[0] in starts else frame


def with_entries(theirs: Any, entries: Sequence[str]) -> Any:
    """A transformers tokenizer with new entries, which are matched exactly."""
    import tokenizers

    with _told_once():
        larger = copy.deepcopy(theirs)
    larger.add_tokens([tokenizers.AddedToken(entry, normalized=False) for entry in entries])
    return larger


def _size(theirs: Any) -> int:
    """Number of ids, with those of languages and of a separate target vocabulary."""
    more = (getattr(theirs, name, None) or {} for name in ("target_encoder", "lang_token_to_id"))
    return max(len(theirs), *(max(ids.values(), default=-1) + 1 for ids in more))


def _unprepared(theirs: Any) -> tuple[str, ...]:
    """Notes on missing preparation of sources: Marian's punctuation without sacremoses, its target language code."""
    import importlib.util

    notes = []
    if hasattr(theirs, "punc_normalizer") and importlib.util.find_spec("sacremoses") is None:
        notes.append("punctuation is read as written, as sacremoses, which Marian normalises it with, is not installed")
    codes = sorted(getattr(theirs, "supported_language_codes", None) or ())
    if codes:
        first = f"{', '.join(codes[:3])}{', …' if len(codes) > 3 else ''}"
        cure = "put it into the texts, or before all with --prefix or a set's `prefix`"
        notes.append(f"a source begins with the code of its target's language ({first}): {cure}")
    return tuple(notes)


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """Within: transformers gives no warnings; important ones become notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first(*ids: int | None) -> int:
    return next(i for i in ids if i is not None)
