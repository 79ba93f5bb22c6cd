"""Logits processors: rules that suppress, force or reweight the next token's scores.

They are applied in the order of transformers' `generate`: to logits in greedy search and sampling, to log-probabilities
in a beam search. Suppressing and forcing give the same result in both, reweighting does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.generation.words import Words
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.protocol import Network

# Called with the index of a source and the tokens so far, start included; returns the ids that may follow.
Allowed = Callable[[int, Tensor], Sequence[int]]
Ids = Callable[[int], Sequence[int] | np.ndarray]  # index in the set → token ids
NOTHING = -1  # no token's id


@dataclass(frozen=True, slots=True)
class ReadSource:
    """What rules know of the examples of a set."""

    tokens: Ids | None = None  # of the source; None for features alone
    begins: Ids | None = None  # that the output begins with, such as its language; None: nothing of its own
    tokenizer: Tokenizer | None = None  # of the targets
    allowed: Allowed | None = None  # which tokens may follow; None: all

    def moved(self, first: int) -> ReadSource:
        """The same for indices that count from `first`."""
        return self._of(lambda index: index - first)

    def spread(self, count: int) -> ReadSource:
        """The same for `count` outputs per source: index × count + number."""
        return self._of(lambda index: index // count)

    def _of(self, own: Callable[[int], int]) -> ReadSource:
        tokens, begins, allowed = self.tokens, self.begins, self.allowed
        return ReadSource(
            None if tokens is None else (lambda index: tokens(own(index))),
            None if begins is None else (lambda index: begins(own(index))),
            self.tokenizer,
            None if allowed is None else (lambda index, ids: allowed(own(index), ids)),
        )


class Rules:
    """The rules of a search. `read` returns the source tokens that some of them need."""

    def __init__(self, network: Network, options: GenerationConfig, read: ReadSource | None = None) -> None:
        self.words = Words.of(options, None if read is None else read.tokenizer)
        self.defaults, self.options, self.read = _with(network, self.words), options, read
        self.start_id, self.ends = network.start_id, list(network.defaults.ends)
        self.suppressed = list(self.defaults.suppressed)
        self._there: dict[tuple[int, ...], Tensor] = {}
        self.asks_source = options.encoder_no_repeat_ngram > 0 or options.encoder_repetition_penalty != 1
        self.allowed = None if read is None else read.allowed
        self.begins, self.given = None if read is None else read.begins, 0
        if self.words.prefix:
            self._begin_with(self.words)
        whole = options.max_new_tokens + self.given
        self.steps = whole if network.positions is None else max(self.given + 1, min(whole, network.positions))
        if self.asks_source and (read is None or read.tokens is None):
            raise ValueError("these rules ask for the tokens of the sources")

    def _begin_with(self, words: Words) -> None:
        """Let every output begin with a language or a forced first token, if there is one, and the given text."""
        known, usual = self.begins, self.defaults.forced_bos[:1] or words.opening

        def begins(name: int) -> Sequence[int]:
            return [*(usual if known is None else known(name)), *words.prefix]

        self.begins = begins
        self.given = len(words.prefix) + (1 if known is not None else len(usual))

    @property
    def plain(self) -> bool:
        """Whether there is no rule but `min_new_tokens`, and only one end token."""
        o = self.options
        asked = o.no_repeat_ngram or self.asks_source or self.reshapes or o.force or o.stop
        return self.defaults.plain and not (asked or self.begins or self.allowed)

    @property
    def reshapes(self) -> bool:
        """Whether any rule reweights scores, rather than suppressing or forcing tokens."""
        return self.defaults.reshapes or self.options.repetition_penalty != 1 or self._weighs_source

    @property
    def _weighs_source(self) -> bool:
        return self.options.encoder_repetition_penalty != 1

    def for_beams(self, logits: Tensor, tokens: Tensor, names: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores of the next tokens (rows, vocabulary), and the logits that still have to normalise them, or None.

        `tokens` is (rows, generated so far), `names` (rows,) the sources' indices in the set. Logits change in place.
        """
        if self.reshapes:
            scores = self(logits.float().log_softmax(-1), tokens, names)
            return (scores.log_softmax(-1) if self.defaults.normalised else scores), None
        if self.forced(tokens.shape[1]):
            return self(logits, tokens, names), None
        if self._begun(tokens.shape[1], names):
            return self(logits.float().log_softmax(-1), tokens, names), None
        free = logits.clone() if self._suppresses else logits
        return self(logits, tokens, names), free

    def __call__(self, scores: Tensor, tokens: Tensor, names: Tensor) -> Tensor:
        """Scores (rows, vocabulary) after the rules, changed in place where possible; arguments as in `for_beams`."""
        history = F.pad(tokens, (1, 0), value=self.start_id)  # the start token counts, as in transformers
        generated, ends = tokens.shape[1], scores.index_select(1, self._ids(self.ends, scores))
        if self.reshapes:
            scores = self._reshaped(scores.float(), history, names)
        stuck = self._suppress_repeated(scores, history, names)
        if generated < self.options.min_new_tokens + self.given:
            scores.index_fill_(1, self._ids(self.ends, scores), -torch.inf)
        self._allow(scores, history, names)
        forced = self.forced(generated)
        if forced:
            scores.fill_(-torch.inf)
            scores.index_fill_(1, self._ids(forced, scores), 0.0)
        self._hasten(scores, generated)
        if self.suppressed:
            scores.index_fill_(1, self._ids(self.suppressed, scores), -torch.inf)
        if self.defaults.begin_suppressed and generated == self._free_from(names):
            scores.index_fill_(1, self._ids(self.defaults.begin_suppressed, scores), -torch.inf)
        if stuck:  # a row without allowed tokens must end
            nothing = scores.amax(-1, keepdim=True) == -torch.inf
            places = self._ids(self.ends, scores)
            scores[:, places] = torch.where(nothing, ends.to(scores.dtype), scores[:, places])
        for row, token in self._begun(generated, names).items():
            scores[row] = -torch.inf
            scores[row, token] = 0.0
        return scores

    def _ids(self, ids: Sequence[int], scores: Tensor) -> Tensor:
        """These ids beside the scores; taken there once, since an accelerator waits for what comes from the host."""
        found = self._there.get(tuple(ids))
        if found is None or found.device != scores.device:
            found = self._there[tuple(ids)] = torch.tensor(list(ids), dtype=torch.long, device=scores.device)
        return found

    def _allow(self, scores: Tensor, history: Tensor, names: Tensor) -> None:
        """Suppress what the function of the caller does not allow, in place; finished rows are left alone."""
        if self.allowed is None or history.shape[1] <= self.given:
            return
        finished = torch.isin(history[:, 1:], self._ids(self.ends, scores)).any(1).tolist()
        for row, name in enumerate(names.tolist()):
            if finished[row]:
                continue
            ids = list(self.allowed(name, history[row]))
            if not ids:
                raise RequestError(f"allowed_tokens: nothing is allowed after {history[row].tolist()} of source {name}")
            beyond = next((each for each in ids if not 0 <= each < scores.shape[1]), None)
            if beyond is not None:
                raise RequestError(f"allowed_tokens: no token has the id {beyond}; the model has {scores.shape[1]} ids")
            barred = torch.ones_like(scores[row], dtype=torch.bool)
            barred[torch.as_tensor(ids, device=scores.device)] = False
            scores[row] = scores[row].masked_fill(barred, -torch.inf)

    @property
    def _suppresses(self) -> bool:
        d, o = self.defaults, self.options
        repeated = o.no_repeat_ngram or o.encoder_no_repeat_ngram or d.bad_words
        return bool(repeated or o.min_new_tokens or d.suppressed or d.begin_suppressed or self.allowed)

    def forced(self, generated: int) -> tuple[int, ...]:
        """The only tokens allowed after `generated` tokens; empty if all are."""
        if generated + 1 == self.steps and self.defaults.forced_eos:
            return self.defaults.forced_eos
        return self.defaults.forced_bos if generated == 0 and self.begins is None else ()

    def _free_from(self, names: Tensor) -> int:
        """Number of tokens that are given at the beginning of an output."""
        if self.begins is None:
            return int(bool(self.defaults.forced_bos))
        return max((len(self.begins(name)) for name in set(names.tolist())), default=0)

    def _begun(self, generated: int, names: Tensor) -> dict[int, int]:
        """Row → the only token allowed after `generated` tokens, for sources whose output has a given beginning."""
        if self.begins is None:
            return {}
        beginnings = {name: self.begins(name) for name in dict.fromkeys(names.tolist())}
        if all(generated >= len(ids) for ids in beginnings.values()):
            return {}
        rows = ((row, beginnings[name]) for row, name in enumerate(names.tolist()))
        return {row: int(ids[generated]) for row, ids in rows if generated < len(ids)}

    def _reshaped(self, scores: Tensor, history: Tensor, names: Tensor) -> Tensor:
        """Biases and penalties."""
        scores = scores + self._bias(scores, history) if self.defaults.biases else scores
        if self._weighs_source:
            sources = self._sources(names, history, fill=None)
            scores = _penalised(scores, sources, 1 / self.options.encoder_repetition_penalty)
        if self.options.repetition_penalty != 1:
            scores = _penalised(scores, history, self.options.repetition_penalty)
        return scores

    def _bias(self, scores: Tensor, history: Tensor) -> Tensor:
        bias = torch.zeros_like(scores)
        for ids, value in self.defaults.biases:
            bias[:, ids[-1]] += value * _follows(history, ids).to(bias.dtype)
        return bias

    def _suppress_repeated(self, scores: Tensor, history: Tensor, names: Tensor) -> bool:
        """Suppress repeated n-grams and words in place; whether a row may have no token left."""
        n, of_source = self.options.no_repeat_ngram, self.options.encoder_no_repeat_ngram
        _suppress_ngrams(scores, history, history, n)
        if of_source:
            _suppress_ngrams(scores, self._sources(names, history, fill=NOTHING), history, of_source)
        for word in self.defaults.bad_words:
            scores[:, word[-1]] = scores[:, word[-1]].masked_fill(_follows(history, word), -torch.inf)
        return bool(n or of_source or self.defaults.bad_words)

    def _hasten(self, scores: Tensor, generated: int) -> None:
        """Exponential length decay, in place: from some length on, end tokens get likelier with every token."""
        if self.defaults.decay is None or generated - self.given <= self.defaults.decay[0]:
            return
        start, factor = self.defaults.decay[0] + self.given, self.defaults.decay[1]
        ends = scores[:, self.ends]
        gain = ends.abs() * (factor ** (generated - start) - 1)
        scores[:, self.ends] = torch.where(ends.isfinite(), ends + gain, ends)

    def _sources(self, names: Tensor, like: Tensor, fill: int | None) -> Tensor:
        """Tokens of the sources (rows, longest), padded with `fill`, or each with its own first token."""
        assert self.read is not None and self.read.tokens is not None
        rows = names.tolist()
        known = {name: [int(i) for i in self.read.tokens(name)] for name in dict.fromkeys(rows)}
        longest = max(map(len, known.values()))
        filled = {name: ids + [ids[0] if fill is None else fill] * (longest - len(ids)) for name, ids in known.items()}
        return torch.tensor([filled[name] for name in rows], device=like.device)


def _with(network: Network, words: Words) -> GenerationDefaults:
    """The network's defaults with the suppressed words of a request."""
    defaults = network.defaults
    if not words.barred:
        return defaults
    single = {ids[0] for ids in words.barred if len(ids) == 1}
    several = tuple(ids for ids in words.barred if len(ids) > 1)
    suppressed = tuple(sorted({*defaults.suppressed, *single}))
    return replace(defaults, suppressed=suppressed, bad_words=(*defaults.bad_words, *several))


def _penalised(scores: Tensor, said: Tensor, penalty: float) -> Tensor:
    """Scores (rows, vocabulary) with the ids `said` (rows, any) reduced by a factor (Keskar et al. 2019)."""
    found = scores.gather(1, said)
    return scores.scatter(1, said, torch.where(found < 0, found * penalty, found / penalty))


def _follows(history: Tensor, ids: tuple[int, ...]) -> Tensor:
    """Whether each row of the history ends in all of `ids` but the last: (rows,) bool."""
    before = len(ids) - 1
    if before > history.shape[1]:
        return torch.zeros(len(history), dtype=torch.bool, device=history.device)
    return (history[:, history.shape[1] - before :] == torch.tensor(ids[:-1], device=history.device)).all(-1)


def _suppress_ngrams(scores: Tensor, past: Tensor, history: Tensor, n: int) -> None:
    """Suppress tokens that complete an n-gram of `past` (rows, any) after the history (rows, so far), in place."""
    if not n or min(past.shape[1], history.shape[1] + 1) < n:
        return
    windows = past.unfold(1, n, 1)  # (rows, places, n)
    last = history[:, history.shape[1] - n + 1 :]
    again = (windows[:, :, : n - 1] == last[:, None]).all(-1) & (windows[:, :, -1] != NOTHING)
    rows, places = again.nonzero(as_tuple=True)
    scores[rows, windows[rows, places, n - 1]] = -torch.inf
