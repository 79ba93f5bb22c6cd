"""Options of generation, and the recipe: everything that defines a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sourcewise.config.data import DataConfig
from sourcewise.config.evaluation import EvaluationConfig
from sourcewise.config.model import ModelConfig
from sourcewise.config.options import Count, Options, Positive, Rate, Seed, Share
from sourcewise.config.training import TrainConfig


class GenerationConfig(Options):
    """Options of search and sampling."""

    beams: Annotated[int, Field(gt=0, le=1000)] = Field(4, description="hypotheses kept per source; 1 is greedy")
    max_new_tokens: Positive = Field(128, description="longest output, end of text included")
    min_new_tokens: Count = Field(0, description="the end of text is suppressed before this many tokens")
    length_penalty: float = Field(1.0, ge=-5, le=5, description="score = log-probability / length^this")
    early_stopping: bool | Literal["never"] = Field(
        False,
        description="end a search once `beams` outputs have ended (true), once no other can get better at its present "
        "length (false), or at any length (never)",
    )
    suppress: list[str] = Field(default_factory=list, description="words that outputs may not contain")
    force: list[str] = Field(default_factory=list, description="words that every output has to contain; beams above 1")
    target_prefix: str = Field("", description="text that every output begins with; it is not counted or scored")
    stop: list[str] = Field(default_factory=list, description="an output ends with the first of these texts in it")
    mbr: Literal["none", "chrf", "bleu", "comet"] = Field(
        "none", description="choose the candidate that is most like the others by this score (minimum Bayes risk)"
    )
    mbr_candidates: Annotated[int, Field(gt=1, le=1000)] = Field(
        32, description="samples among which mbr chooses with sample; in a search the beams are the candidates"
    )
    no_repeat_ngram: Count = Field(0, description="no n-gram of this size may occur twice; 0: off")
    encoder_no_repeat_ngram: Count = Field(0, description="no n-gram of this size of the source may occur; 0: off")
    repetition_penalty: float = Field(1.0, gt=0, description="earlier output tokens get less likely by this factor")
    encoder_repetition_penalty: float = Field(1.0, gt=0, description="tokens of the source get likelier by this factor")
    sample: bool = Field(False, description="draw from the distribution instead of searching")
    temperature: float = Field(1.0, gt=0, description="divides the logits when sampling")
    top_k: Count = Field(0, description="sample among the k likeliest tokens; 0: all")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="sample within this probability mass")
    min_p: Share = Field(0.0, description="sample tokens with at least this share of the largest probability; 0: off")
    typical_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="sample the most typical tokens of this probability mass; 1: off"
    )
    epsilon_cutoff: Rate = Field(0.0, description="sample tokens of at least this probability; 0: off")
    eta_cutoff: Rate = Field(0.0, description="the same, with a lower bound where many tokens are likely; 0: off")
    seed: Seed = Field(0, description="seed of sampling")
    batch_tokens: Positive = Field(8192, description="memory positions × beams per batch")

    @model_validator(mode="after")
    def _room_to_speak(self) -> GenerationConfig:
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}")
        return self

    @field_validator("suppress", "force", "stop", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        """A text alone is a list of it."""
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _texts_go_together(self) -> GenerationConfig:
        for name in ("suppress", "force", "stop"):
            if any((not text.strip() and name != "stop") or not text for text in getattr(self, name)):
                raise ValueError(f"{name} has an empty text")
        if self.force and (self.sample or self.beams == 1):
            raise ValueError("force is for a beam search: set beams above 1, without sample")
        if self.mbr != "none" and not self.sample and self.beams == 1:
            raise ValueError("mbr chooses among several outputs: set beams above 1, or sample")
        return self


class Recipe(Options):
    """Everything that defines a run."""

    name: str = Field(
        "run", pattern=r"^\w[\w.-]*$", description="folder of the run under output: letters, digits, . _ -"
    )
    output: str = Field("runs", description="folder that holds the runs")
    seed: Seed = Field(0, description="seed of weights, order, dropout and augmentation")
    data: DataConfig = Field(default_factory=DataConfig, description="data sets and tokenizer")
    model: ModelConfig = Field(default_factory=ModelConfig, description="the network")
    train: TrainConfig = Field(default_factory=TrainConfig, description="training")
    generation: GenerationConfig = Field(default_factory=GenerationConfig, description="search and sampling")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="how outputs are measured")
    license: str = Field("", description="licence of weights and data for the model card, such as cc-by-4.0")

    @property
    def measuring(self) -> EvaluationConfig:
        """The options of evaluations, with the figure that chooses the best checkpoint measured."""
        return self.evaluation.with_metric(self.train.best)

    @model_validator(mode="after")
    def _quantised_weights_do_not_learn(self) -> Recipe:
        if self.model.quantization != "none" and not self.train.lora.rank:
            told = "such weights cannot learn themselves; set train.lora.rank, too"
            raise ValueError(f"model.quantization {self.model.quantization}: {told}")
        return self

    @model_validator(mode="after")
    def _metrics_to_average(self) -> Recipe:
        valid = self.data.sets("valid")
        if self.train.best == "tasks_mean" and len(valid) == 1 and valid[0].metric is None:
            raise ValueError("train.best tasks_mean is the mean of the tasks' metrics; give data.valid its metric")
        return self
