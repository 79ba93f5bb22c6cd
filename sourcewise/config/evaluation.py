"""Options of evaluations: which scores are measured, and how they are counted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sourcewise.config.options import Options
from sourcewise.metrics.counting import ON_REQUEST, BleuTokenizer, Counting, Smoothing, Words


class EvaluationConfig(Options):
    """How outputs are measured, in training, by `evaluate` and in comparisons alike; the signatures say it."""

    metrics: list[Literal["chrf_pp", "ter", "rouge_l"]] = Field(
        default_factory=list, description="scores measured beside the usual ones: chrf_pp (chrF++), ter, rouge_l"
    )
    bleu_tokenize: BleuTokenizer = Field(
        "auto", description="sacreBLEU's tokenizer; auto: zh for Han, char for other scripts without spaces, else 13a"
    )
    bleu_smooth: Smoothing = Field("exp", description="sacreBLEU's smoothing of n-gram orders without a match")
    bleu_smooth_value: float | None = Field(
        None, gt=0, description="of floor (default: 0.1) and add-k (default: 1): what is counted or added"
    )
    lowercase: bool = Field(False, description="case does not matter: BLEU, chrF, WER, CER, exact match")
    chrf_whitespace: bool = Field(False, description="chrF: spaces are characters, too")
    ter_case_sensitive: bool = Field(False, description="TER: case matters")
    ter_normalized: bool = Field(False, description="TER: punctuation is split off first, as in Tercom")
    ter_asian: bool = Field(False, description="TER: with ter_normalized, Han and kana are split into characters")
    ter_no_punctuation: bool = Field(False, description="TER: without punctuation")
    wer_words: Words = Field(
        "spaces",
        description="WER: words stand between spaces, as in jiwer; characters: those of unspaced scripts are words",
    )
    rouge_stem: bool = Field(False, description="ROUGE-L: English words are stemmed")

    @model_validator(mode="after")
    def _options_go_together(self) -> EvaluationConfig:
        if self.bleu_smooth_value is not None and self.bleu_smooth not in ("floor", "add-k"):
            raise ValueError(f"bleu_smooth_value goes with bleu_smooth floor or add-k, not with {self.bleu_smooth}")
        if self.ter_asian and not (self.ter_normalized or self.ter_no_punctuation):
            raise ValueError("ter_asian goes with ter_normalized or ter_no_punctuation; alone it changes nothing")
        return self

    @property
    def counting(self) -> Counting:
        """The same as the metrics take it."""
        return Counting.of(self.model_dump())

    def with_metric(self, *keys: str | None) -> EvaluationConfig:
        """These options, with those of `keys` measured that are measured on request alone."""
        wanted = [*self.metrics, *(key for key in keys if key in ON_REQUEST)]
        return self.model_copy(update={"metrics": list(dict.fromkeys(wanted))})
