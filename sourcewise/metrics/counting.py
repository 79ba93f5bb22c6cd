"""The scores that people publish, each with its signature; sacreBLEU, jiwer and rouge-score count them.

A `Scorer` counts one score against the references of a set. It keeps what it counts of every example, so that
intervals, paired tests and buckets need not read the texts again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sourcewise.errors import RequestError
from sourcewise.metrics.texts import HAN_LETTER, UNSPACED_LETTER
from sourcewise.runtime.extras import taken

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

References = Sequence[Sequence[str]]  # of every example its references, one or more
_Columns = list[
    list[Any]
]  # texts or None: the first reference of every example, the second, …, as sacreBLEU takes them

LONGEST_NGRAM = 4
BLEU_ORDERS = {"bleu_1": 1, "bleu_2": 2, "bleu_3": 3, "bleu_4": 4, "bleu": 4}
# Measured in every evaluation; the others where they are asked for, since they take longer.
USUAL = ("bleu", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "wer", "cer", "exact_match_pct")
ON_REQUEST = ("chrf_pp", "ter", "rouge_l")
SCORES = (*USUAL, *ON_REQUEST)

BleuTokenizer = Literal[
    "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "none", "spm", "flores101", "flores200", "spBLEU-1K"
]
Smoothing = Literal["exp", "floor", "add-k", "none"]
Words = Literal["spaces", "characters"]


@dataclass(frozen=True, slots=True)
class Counting:
    """How scores are counted: the keys of the section `evaluation` of a recipe, which describes them."""

    bleu_tokenize: BleuTokenizer = "auto"
    bleu_smooth: Smoothing = "exp"
    bleu_smooth_value: float | None = None
    lowercase: bool = False
    chrf_whitespace: bool = False
    ter_case_sensitive: bool = False
    ter_normalized: bool = False
    ter_asian: bool = False
    ter_no_punctuation: bool = False
    wer_words: Words = "spaces"
    rouge_stem: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Counting:
        """The counting of these options; what else they hold is not for it."""
        names = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in options.items() if name in names})


@dataclass
class Scorer:
    """One score against the references of a set.

    `metric` is sacreBLEU's, or one with the same methods: per-example statistics, and the score of their sum.
    """

    key: str
    metric: Metric
    _longer: Scorer | None = None  # BLEU, of which BLEU-1 to -3 take what they need
    _kept: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict, repr=False)

    @cached_property
    def signature(self) -> str:
        """What another person needs to get the same figure, in sacreBLEU's form."""
        return self.signed(str(self.metric.get_signature()))

    def signed(self, signature: str) -> str:
        """The metric's own signature with the order of n-grams, which sacreBLEU's lacks, where it is not 4."""
        order = BLEU_ORDERS.get(self.key, LONGEST_NGRAM)
        return signature if order == LONGEST_NGRAM else signature.replace("|smooth:", f"|order:{order}|smooth:")

    def statistics(self, outputs: Sequence[str]) -> np.ndarray:
        """(examples, parts): what is counted of every example, such as matching n-grams; their sums give the score."""
        if self._longer is not None:
            return self._longer.statistics(outputs)[:, _parts_of_order(BLEU_ORDERS[self.key])]
        texts = tuple(outputs)
        if texts not in self._kept:
            counted = self.metric._extract_corpus_statistics(list(texts), None)
            self._kept[texts] = np.array(counted, dtype=np.float64)
        return self._kept[texts]

    def know(self, outputs: Sequence[str], statistics: np.ndarray) -> None:
        """Take the statistics of these outputs as counted."""
        self._kept[tuple(outputs)] = statistics

    def of_sums(self, sums: np.ndarray) -> np.ndarray:
        """Sums of statistics (…, parts) → scores (…)."""
        flat = sums.reshape(-1, sums.shape[-1])
        return np.array([self._score_of(row.tolist()) for row in flat]).reshape(sums.shape[:-1])

    def score(self, outputs: Sequence[str]) -> float:
        """The score of the outputs, one of each example in order."""
        return self._score_of(self.statistics(outputs).sum(0).tolist())

    def _score_of(self, sums: list[float]) -> float:
        found = float(self.metric._compute_score_from_stats(sums).score)
        bounded = self.key in BLEU_ORDERS or self.key.startswith("chrf")  # the last bits may exceed 100
        return min(100.0, found) if bounded else found


def scorers(keys: Iterable[str], references: References, counting: Counting = Counting()) -> dict[str, Scorer]:
    """Key → scorer, for keys of SCORES; BLEU-1 to -4 count once.

    Raises RequestError if a tokenizer lacks its library or its model.
    """
    columns = _columns(references)
    found: dict[str, Scorer] = {}
    bleu: Scorer | None = None
    for key in keys:
        if key not in BLEU_ORDERS:
            found[key] = Scorer(key, _metric(key, columns, counting))
            continue
        bleu = bleu or Scorer("bleu", _bleu(columns, counting, LONGEST_NGRAM, None))
        order = BLEU_ORDERS[key]
        found[key] = Scorer(key, bleu.metric if order == LONGEST_NGRAM else _bleu(columns, counting, order, bleu), bleu)
    return found


def scorer(key: str, references: References, counting: Counting = Counting()) -> Scorer:
    """The scorer of one of SCORES. Raises RequestError if a tokenizer lacks its library or its model."""
    return scorers([key], references, counting)[key]


def as_references(texts: Sequence[str] | References) -> References:
    """One reference per example, or several, as several."""
    return [(each,) if isinstance(each, str) else tuple(each) for each in texts]


def bleu_tokenizer(references: Sequence[str]) -> str:
    """sacrebleu's tokenizer for these references: `zh` if mostly Han, `char` if mostly another unspaced script.

    Otherwise `13a`, sacrebleu's default. The signature names the tokenizer.
    """
    text = "".join("".join(r.split()) for r in references)
    if 2 * len(HAN_LETTER.findall(text)) > len(text):
        return "zh"
    return "char" if 2 * len(UNSPACED_LETTER.findall(text)) > len(text) else "13a"


def bleu_score(references: Sequence[str] | References, outputs: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU (0..100, cased) and its sacrebleu signature.

    BLEU is 0 if no output has four tokens, even if every output is exact: see `verdict.bleu_applies`.
    """
    counted = scorer("bleu", as_references(references))
    return counted.score(outputs), counted.signature


def chrf_score(references: Sequence[str] | References, outputs: Sequence[str]) -> float:
    """Corpus chrF2 (0..100) with sacrebleu's defaults: character 6-grams, recall weighted twice."""
    return scorer("chrf", as_references(references)).score(outputs)


def word_error_rate(
    references: Sequence[str] | References, outputs: Sequence[str], counting: Counting = Counting()
) -> float:
    """Substitutions, deletions and insertions per reference word (jiwer's alignment), as a share: 0.15, not 15.

    Can exceed 1. If every reference is empty: number of insertions.
    """
    return scorer("wer", as_references(references), counting).score(outputs)


def rouge_l(references: Sequence[str] | References, outputs: Sequence[str]) -> float:
    """F1 of the longest common subsequence of words, 0..100, averaged over examples (Lin 2004; rouge-score)."""
    return scorer("rouge_l", as_references(references)).score(outputs)


def check_installed(keys: Iterable[str | None]) -> None:
    """Raises RequestError if what counts one of these scores is not installed."""
    if "rouge_l" in keys:
        taken("rouge_score.rouge_scorer", "rouge", "rouge_l: ROUGE-L")


def not_installed(keys: Iterable[str]) -> str:
    """A line on the scores of `keys` that are left out since what counts them is not installed; empty if none is."""
    try:
        check_installed(keys)
    except RequestError as lacking:
        return f"{lacking}; it is left out"
    return ""


def _columns(references: References) -> _Columns:
    """References as sacreBLEU takes them: the first of every example, the second, …; None where there is none."""
    most = max(len(each) for each in references)
    return [[each[i] if i < len(each) else None for each in references] for i in range(most)]


def _parts_of_order(order: int) -> list[int]:
    """Of BLEU's statistics those of n-grams up to an order: lengths of both sides, matching n-grams, all n-grams."""
    return [0, 1, *(2 + i for i in range(order)), *(2 + LONGEST_NGRAM + i for i in range(order))]


def _metric(key: str, columns: _Columns, counting: Counting) -> Metric:
    """sacreBLEU's metric, or an adapted one, that holds the references."""
    from sourcewise.metrics import adapted

    if key in ("chrf", "chrf_pp"):
        from sacrebleu.metrics.chrf import CHRF

        options = {"lowercase": counting.lowercase, "whitespace": counting.chrf_whitespace}
        return CHRF(word_order={"chrf": 0, "chrf_pp": 2}[key], references=columns, **options)
    if key == "ter":
        from sacrebleu.metrics.ter import TER

        normalized, asian = counting.ter_normalized, counting.ter_asian
        return TER(normalized, counting.ter_no_punctuation, asian, counting.ter_case_sensitive, references=columns)
    if key == "rouge_l":
        check_installed([key])
        return adapted.RougeL(columns, counting.rouge_stem)
    if key == "exact_match_pct":
        return adapted.Exact(columns, counting.lowercase)
    kind = {"wer": adapted.WordErrors, "cer": adapted.CharacterErrors}[key]
    return kind(columns, counting.lowercase, counting.wer_words == "characters")


def _bleu(columns: _Columns, counting: Counting, order: int, longer: Scorer | None) -> Metric:
    """BLEU with n-grams up to `order`; one that takes its statistics from a longer one reads no references."""
    from sacrebleu.metrics.bleu import BLEU

    tokenize: str = counting.bleu_tokenize
    if tokenize == "auto":
        tokenize = bleu_tokenizer([text for column in columns for text in column if text is not None])
    else:
        _check_tokenizer(tokenize)
    found = BLEU(
        lowercase=counting.lowercase,
        force=True,  # no log line about tokenised periods
        tokenize=tokenize,
        smooth_method=counting.bleu_smooth,
        smooth_value=counting.bleu_smooth_value,
        max_ngram_order=order,
        references=columns if longer is None else None,
    )
    if longer is not None:
        found.num_refs = longer.metric.num_refs
    return found


def _check_tokenizer(name: str) -> None:
    """Raises RequestError if sacreBLEU lacks what this tokenizer needs; nothing is downloaded without a word."""
    if name in ("ja-mecab", "ko-mecab"):
        from sacrebleu.metrics.bleu import BLEU

        try:
            BLEU(tokenize=name)
        except (ImportError, RuntimeError):
            extra = f"pip install 'sourcewise[{name[:2]}]'"
            raise RequestError(f"bleu_tokenize {name}: the library that it needs is missing: {extra}") from None
    if name in ("spm", "flores101", "flores200", "spBLEU-1K"):
        from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS
        from sacrebleu.utils import SACREBLEU_DIR

        file = Path(SACREBLEU_DIR, "models", Path(SPM_MODELS[name]["url"]).name)
        if not file.exists():
            get = f"`sacrebleu --tokenize {name} REFERENCES -i OUTPUTS` downloads it"
            raise RequestError(f"bleu_tokenize {name}: its model {file} is not there; {get}")
