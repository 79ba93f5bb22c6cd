"""Options of the training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from sourcewise.config.options import Count, Options, Positive, Rate, RunFigure, Share

Part = Literal["encoder", "decoder", "embedding", "bridge", "features"]


class AugmentConfig(Options):
    """Augmentation of training features, drawn anew each epoch (SpecAugment, Park et al. 2019)."""

    time_masks: Count = Field(0, description="spans of frames set to the mean")
    time_width: Positive = Field(10, description="longest masked span, in frames")
    frequency_masks: Count = Field(0, description="bands of dimensions set to the mean")
    frequency_width: Positive = Field(8, description="widest masked band, in dimensions")
    speed: Rate = Field(0.0, description="resample time by a factor within 1 ± this")
    noise: float = Field(0.0, ge=0, description="Gaussian noise, in standard deviations of each dimension")


class TextNoiseConfig(Options):
    """Noise on source texts in training, drawn anew each epoch (Lample et al. 2018)."""

    drop: Rate = Field(0.0, description="share of the source tokens that are dropped")
    mask: Rate = Field(0.0, description="share of the source tokens replaced by <unk>")
    swap: Rate = Field(0.0, description="share of the source tokens swapped with the next")


class SubwordSamplingConfig(Options):
    """Each epoch cuts the words of training texts into other pieces (Kudo 2018; Provilkov et al. 2020)."""

    alpha: float | None = Field(
        None, gt=0, le=1, description="for unigram tokenizers: 1 draws as their model says, near 0 all alike; none: off"
    )
    dropout: Rate = Field(0.0, description="for BPE tokenizers: share of the merges that are left out; 0: off")
    best: Positive = Field(16, ge=2, le=512, description="segmentations of a word that are drawn from")
    targets: bool = Field(True, description="targets as well as sources")

    @property
    def active(self) -> bool:
        """Whether anything is drawn."""
        return bool(self.alpha or self.dropout)


class UnfreezeConfig(Options):
    """Gradual unfreezing (Howard & Ruder 2018): the epoch from which each part is trained; default: the first."""

    embedding: float | None = Field(None, ge=0, description="epoch from which the embedding learns")
    encoder: float | None = Field(None, ge=0, description="epoch from which the encoder learns")
    decoder: float | None = Field(None, ge=0, description="epoch from which the decoder learns")
    bridge: float | None = Field(None, ge=0, description="epoch from which the bridge learns")
    features: float | None = Field(None, ge=0, description="epoch from which the feature encoder learns")
    rate: float = Field(1.0, gt=0, description="factor on the learning rate of the parts named here")

    @property
    def begins(self) -> dict[str, float]:
        """Part → epoch, of the parts that are named."""
        return {part: epoch for part, epoch in self.model_dump(exclude={"rate"}).items() if epoch is not None}


class LoraConfig(Options):
    """Low-rank adapters (LoRA, Hu et al. 2021): the pretrained weights stay as they are."""

    rank: Count = Field(0, description="rank of the adapters; 0: none, all weights are trained")
    alpha: float | None = Field(None, gt=0, description="their scale is alpha / rank (default: twice the rank)")
    dropout: Rate = Field(0.0, description="dropout of what the adapters read")
    targets: list[str] = Field(
        default_factory=lambda: ["all-linear"],
        min_length=1,
        description="ends of the names of the adapted modules as in transformers (q,v), all-linear, or a pattern",
    )
    save: list[Literal["bridge", "features"]] = Field(
        ["bridge", "features"],
        description="parts that are trained whole, and saved with the adapters; all others stay as they are",
    )

    @property
    def strength(self) -> float:
        """`alpha`, or its default."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    @field_validator("targets", "save", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """Accepts `q,v` as a list; a pattern may have commas."""
        if not isinstance(value, str):
            return value
        return [value] if set(value) & set("\\^$*+?()[]{}|") else [w.strip() for w in value.split(",") if w.strip()]


class TrainConfig(Options):
    """Options of the training."""

    epochs: Positive = Field(10, description="passes over the training set (steps, if given, wins)")
    steps: Positive | None = Field(None, description="optimizer steps")
    batch_tokens: Positive = Field(4096, description="memory positions + target tokens per batch, with padding")
    batch_size: Positive | None = Field(None, description="at most this many examples per batch")
    accumulate: Positive = Field(1, description="batches per step, weighted by their target tokens")
    parts: Positive | None = Field(
        None, description="parts of each batch, for threads and processes (default: one for each at the start)"
    )
    learning_rate: float = Field(1e-3, ge=0, description="peak learning rate")
    scale_updates: bool = Field(
        False, description="scale updates by each tensor's root mean square, as in T5's training; rate ~1e-2"
    )
    schedule: Literal["cosine", "inverse_sqrt", "constant"] = Field("cosine", description="after the warm-up")
    warmup_steps: Count = Field(200, description="steps of linear warm-up")
    final_rate: Share = Field(0.02, description="share of the peak rate left at the end of the cosine")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled decay, of matrices only")
    beta1: Rate = Field(0.9, description="AdamW's first-moment decay")
    beta2: Rate = Field(0.98, description="AdamW's second-moment decay")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 switches clipping off")
    label_smoothing: Rate = Field(0.0, description="share of the target probability spread over the vocabulary")
    ctc_weight: Share = Field(0.0, description="share of an auxiliary CTC loss on the encoder output")
    scheduled_sampling: Literal["none", "linear", "exponential", "inverse_sigmoid"] = Field(
        "none", description="feed the decoder its own predictions, with a share that grows in this way"
    )
    sampling_half: float = Field(0.5, gt=0, description="share of the training after which that share is one half")
    sampling_floor: Share = Field(0.0, description="least share of reference tokens among its inputs")
    token_weights: Literal["none", "inverse_frequency", "effective_number"] = Field(
        "none", description="weight rare target tokens more in the loss, by one of these measures"
    )
    effective_beta: Annotated[float, Field(gt=0, lt=1)] = Field(0.999, description="β of effective_number")
    focal: float = Field(0.0, ge=0, le=10, description="γ of the focal loss: likely tokens count less; 0: off")
    resample_below: Share = Field(
        0.0, description="oversample examples whose target has a token that fewer than this share of targets have"
    )
    guided_attention: float = Field(0.0, ge=0, description="weight of the loss on attention off the diagonal; 0: off")
    guided_width: float = Field(0.2, gt=0, description="width g of the diagonal, as a share of the length")
    attention_mass: float = Field(0.0, ge=0, description="weight of the loss on attention off the source; 0: off")
    contrastive: float = Field(0.0, ge=0, description="weight of the loss that contrasts sources; 0: off")
    contrastive_margin: float = Field(1.0, gt=0, description="margin of that loss, in nats per target token")
    r_drop: float = Field(
        0.0, ge=0, description="weight of R-Drop: two passes with other units dropped shall agree; 0: off"
    )
    word_dropout: Rate = Field(0.0, description="share of the decoder's input words replaced by <unk>")
    precision: Literal["bf16", "fp32"] = Field("bf16", description="of the arithmetic; master weights are fp32")
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="augmentation of training features")
    text_noise: TextNoiseConfig = Field(default_factory=TextNoiseConfig, description="noise on training texts")
    subword_sampling: SubwordSamplingConfig = Field(
        default_factory=SubwordSamplingConfig, description="segmentation of training texts, drawn anew each epoch"
    )
    unfreeze: UnfreezeConfig = Field(default_factory=UnfreezeConfig, description="gradual unfreezing")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="adapters instead of all weights")
    freeze: list[Part] = Field(default_factory=list, description="parts that are not trained")
    preflight: bool = Field(True, description="check data and wiring before the first step; stop on an error")
    track: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default_factory=list, description="trackers that are given figures and findings, too, such as tensorboard,wandb"
    )
    log_every: Positive = Field(20, description="steps between lines of metrics.jsonl")
    evaluate_every: Positive | None = Field(None, description="steps between evaluations (default: once per epoch)")
    evaluate_examples: Positive = Field(200, description="validation examples generated while training")
    save_every: Positive | None = Field(
        None, description="steps between resumable states (default: at each evaluation)"
    )
    best: RunFigure = Field(
        "bleu",
        description="the figure that picks checkpoints/best, then the loss; tasks_mean: the mean of the tasks' own",
    )
    patience: Count = Field(
        0, description="stop after so many evaluations without a better figure (train.best, then the loss); 0: never"
    )
    min_delta: float = Field(
        0.0, ge=0, description="by how much that figure has to be better to count for patience; above 0 the loss is not"
    )
    average: Count = Field(0, description="average the weights of the last K evaluations at the end; 0 or 1: off")
    threads: Annotated[int, Field(gt=0, le=1024)] | None = Field(None, description="CPU threads (default: every core)")
    shard: Positive = Field(
        1, description="processes that hold the weights together, a shard each; 1: each process holds them whole"
    )
    checkpointing: Literal["none", "light", "blocks"] = Field(
        "none",
        description="compute again in the backward pass, to save memory: activations (light), or whole blocks, a third "
        "more arithmetic",
    )
    compile: bool = Field(False, description="compile each block by torch.compile, on an accelerator")
    deterministic: bool = Field(
        False, description="on an accelerator the same sums in the same order, for an exact resume; slower"
    )
    timeout: float = Field(600.0, ge=5, description="seconds that processes wait for one that does not answer")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1 or mps")

    @field_validator("freeze", "track", mode="before")
    @classmethod
    def _several_words(cls, value: Any) -> Any:
        """Accepts `encoder` or `encoder,bridge` as a list."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
