"""Our own recipes, trainings, runs and models as what the rules are given; the rules know none of these."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sourcewise.config import DataConfig, Recipe, TrainConfig
from sourcewise.data.batches import Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.mixtures import looked_at
from sourcewise.data.noise.features import Augmenter
from sourcewise.data.profiles.profile import like, profile_of
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.asked import pads_on_the_left
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.likelihood import Likelihood
from sourcewise.diagnosis.measures.first_step import Optimizer, Stepped
from sourcewise.diagnosis.measures.freshness import looks_trained
from sourcewise.diagnosis.measures.laid import Laid
from sourcewise.diagnosis.measures.tied import apart_in_file
from sourcewise.diagnosis.measures.turned import measure_likelihood
from sourcewise.diagnosis.moved import Moved
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.trained import Trained
from sourcewise.diagnosis.wiring import Start, Summed, Wiring, one_batch
from sourcewise.generation.model import Model
from sourcewise.model.borrowed import borrowed
from sourcewise.model.families.transformer import Transformer
from sourcewise.model.inputs.source_encoder import encoder_of
from sourcewise.model.network import Seq2Seq
from sourcewise.model.parts import OTHER, ParameterInfo
from sourcewise.model.weights.checkpoint import find_folder, model_folder
from sourcewise.training.freezing import freeze
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import LEAST_RMS, MasterAdamW
from sourcewise.training.setup import TrainingSetup

LIMITS = ("max_source", "max_target", "max_frames")
WEIGHED = ("guided_attention", "attention_mass", "contrastive")  # losses beside the main one


def course_of(lines: Sequence[Mapping[str, Any]], recipe: Recipe | None) -> Course:
    """The course of a run, by the lines of its log."""
    return Course.read(lines, plan_of(recipe) if recipe is not None else None)


def plan_of(recipe: Recipe, examples: ExampleSet | None = None) -> Plan:
    """How a recipe trains; the steps of so many epochs are known where the `examples` are."""
    train, model = recipe.train, recipe.model
    steps, epochs = planned(recipe, examples) if examples is not None else (train.steps or 0, train.epochs)
    taken = [("smoothing", "label_smoothing"), ("word_dropout", "word_dropout"), *(("weight", k) for k in WEIGHED)]
    settings = [(kind, f"train.{key}", float(getattr(train, key))) for kind, key in taken]
    return Plan(
        steps=steps,
        epochs=epochs,
        warmup=train.warmup_steps,
        fresh=not model.weights,
        loaded=("features",) if model.feature_encoder.weights or model.source_encoder.name else (),
        rate=train.learning_rate,
        weight_decay=train.weight_decay,
        standing="" if train.learning_rate else "train.learning_rate is 0: no weight will ever change",
        clip=train.clip,
        dropout=("model.dropout", model.dropout),
        taken=[*settings, ("dropout", "model.attention_dropout", model.attention_dropout)],
        first_moment=("train.beta1", train.beta1),
        fed_back=train.scheduled_sampling != "none",
        past=("encoder",) if model.route == "bypass" else (),
        best=train.best,
    )


def planned(recipe: Recipe, examples: ExampleSet) -> tuple[int, float]:
    """How many steps and epochs a training has; steps with padding left out: at least so many."""
    train = recipe.train
    tokens = int(examples.source_lengths.sum() + examples.target_lengths.sum())
    batches = max(tokens / train.batch_tokens, len(examples) / (train.batch_size or len(examples)))
    epoch = max(1.0, batches / train.accumulate) * examples.per_pass
    if train.steps:
        return train.steps, train.steps / epoch
    return max(1, math.ceil(epoch * train.epochs)), float(train.epochs)


def before(setup: TrainingSetup) -> tuple[Pairs | Wiring | Beside, ...]:
    """What can be looked at before the first step of a training."""
    plan = plan_of(setup.recipe, setup.train)
    pairs = pairs_of(setup, plan)
    return pairs, wiring_of(setup, plan), *held_beside(pairs)


def held_beside(pairs: Pairs) -> list[Beside]:
    """The sets that are not trained on, each beside the profile of the training set of its task."""
    sets = pairs.held_sets()
    profiles = [profile_of(part.dataset) for part in pairs.train.parts if not part.drawn] if sets else []
    found = [(like(profiles, each), each) for each in sets]
    return [Beside(profile, each) for profile, each in found if profile is not None]


def pairs_of(setup: TrainingSetup, plan: Plan) -> Pairs:
    """The sets of a training that is about to begin."""
    recipe, bridge = setup.recipe, setup.network.bridge
    data, noise = recipe.data, recipe.train.text_noise
    limits = {name: getattr(data, name) for name in LIMITS} | {"max_new_tokens": recipe.generation.max_new_tokens}
    of_sets = [config.limit for config in data.sets("train") if config.limit]
    columns = {config.source for config in data.sets("train") if config.source}
    scale, augmenter = None, None
    if bridge is not None:
        mean, deviation = bridge.mean.detach().cpu(), bridge.deviation.detach().cpu()
        scale = (mean.double().numpy(), deviation.double().numpy())
        config = recipe.train.augment.model_copy(update={"speed": 0.0})
        augmenter = Augmenter(config, mean.numpy(), deviation.numpy())
    return Pairs(
        looked_at(setup.train),
        setup.valid,
        setup.test,
        plan=plan,
        limits=limits,
        limited=f"data.train.limit is {', '.join(map(str, of_sets))}" if of_sets else "",
        whole_words=whole_words(data),
        scale=scale,
        kept=(1 - noise.drop) * (1 - noise.mask) if not setup.network.dims else None,
        augmenter=augmenter if augmenter is not None and augmenter.active else None,
        column=", ".join(sorted(columns)),
    )


def whole_words(data: DataConfig) -> bool:
    """Whether a tokenizer that was made for this data has words, not pieces of them."""
    return data.unit == "words" and not data.tokenizer


def wiring_of(setup: TrainingSetup, plan: Plan) -> Wiring:
    """The network of a training that is about to begin, and its first step."""
    network, train = setup.network, setup.recipe.train
    unfreeze = train.unfreeze.model_dump(exclude={"rate"})
    never = {part for part, epoch in unfreeze.items() if epoch and epoch >= plan.epochs}
    return Wiring(
        network,
        one_batch(setup.train),
        plan,
        setup.train,
        optimizer=partial(_optimizer, setup, never),
        learning=partial(_learning, network),
        summed=(None, _training_loss(setup)),
        **_of_network(network, setup.tokenizer),
    )


def _optimizer(setup: TrainingSetup, never: Collection[str]) -> Optimizer:
    """What the training steps; parts that `never` thaw learn nothing."""
    network, train = setup.network, setup.recipe.train
    pretrained = {id(p) for p in encoder.parameters()} if (encoder := encoder_of(network)) else set()
    chosen = network.parameters() if network.adapters is not None else ()  # what adapters stand beside, and
    learns = {id(p): p.requires_grad or id(p) in pretrained for p in network.parameters()}
    learns |= {id(p): True for p in chosen}
    freeze(network, train.freeze)
    options = train.model_copy(update={"word_dropout": 0.0})
    objective = Objective(network, options, setup.tokenizer.unk_id).to(network.device).eval()
    adam = MasterAdamW(objective, train, torch.float32, network.parts(), borrowed(network).values())
    groups = {id(master): group for group in adam.adamw.param_groups for master in group["params"]}
    pairs = zip(adam.parameters, adam.masters, strict=True)
    group_of = {id(p): groups[id(master)] for p, master in pairs if id(master) in groups}
    known = {id(info.parameter): info for info in network.parts()}

    def stepped(name: str, parameter: torch.nn.Parameter) -> Stepped:
        info = known.get(id(parameter)) or ParameterInfo(name, parameter, OTHER, None)
        learned, group = learns.get(id(parameter), True), group_of.get(id(parameter))
        if group is None:
            return Stepped(info, learned, info.part in never)
        size = float(parameter.detach().norm()) / math.sqrt(parameter.numel())
        rate = train.learning_rate * (max(LEAST_RMS, size) if train.scale_updates else 1.0)
        return Stepped(info, learned, info.part in never, rate, float(group["weight_decay"]), float(group["eps"]))

    weights = [stepped(name, parameter) for name, parameter in objective.named_parameters()]
    return Optimizer(weights, objective, train.clip)


def _learning(network: Seq2Seq, batch: Batch, rate: float) -> Iterator[float]:
    """Steps on one batch, as training takes them: its loss before each, in nats per target token."""
    options = TrainConfig(learning_rate=rate, weight_decay=0.0)
    objective = Objective(network, options).eval()
    lent = borrowed(network).values()
    adam, norm = MasterAdamW(objective, options, torch.float32, borrowed=lent), 0.0
    while math.isfinite(norm):
        minimised, _ = objective(batch)
        yield float(minimised.detach()) / batch.target_tokens
        if not minimised.requires_grad:
            return
        adam.add(torch.autograd.grad(minimised / batch.target_tokens, adam.parameters, allow_unused=True))
        norm = float(adam.step(rate))
        adam.zero_grad()


def after(model: Model, encoded: ExampleSet, from_scratch: bool) -> tuple[Wiring, Trained, Likelihood, Moved]:
    """What can be looked at of a trained network, on a set; `from_scratch`: its own run drew it."""
    network: Any = model.network
    network.eval()
    batch, trained = one_batch(encoded), looks_trained(network)
    likelihood, moved = measure_likelihood(network, encoded, trained), Moved(network, encoded, trained)
    laid = None
    if batch.source.features is None and network.positions is not None and pads_on_the_left(model.name):
        laid = Laid("tokenizer_config.json", "left", "right")
    given = _of_network(network, model.tokenizer)
    tied = apart_in_file(model_folder(find_folder(model.name))) if Path(model.name or "-").expanduser().is_dir() else ""
    wiring = Wiring(network, batch, laid=laid, tied=tied, untrained=not trained, from_scratch=from_scratch, **given)
    return wiring, Trained(network, encoded, batch), likelihood, moved


def _of_network(network: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    """What is known of any network and its tokenizer."""
    bypass = "model.route bypass" if network.route == "bypass" else ""
    config = network.body.config if hasattr(network, "body") else network.model.config
    width = getattr(config, "d_model", None) or getattr(config, "hidden_size", None)
    return {"start": start_of(network, tokenizer), "begins": tokenizer.begins, "bypass": bypass, "width": width}


def start_of(network: Any, tokenizer: Tokenizer) -> Start:
    """What is known of the token that a network of ours, or a stranger's of which there is no more, begins with."""
    token, body = network.start_id, getattr(network, "body", None)
    configured = None if body is None else int(body.config.start_id)
    if not 0 <= token < tokenizer.size or token in tokenizer.added:
        return Start("", configured)  # what was added, such as a language, may well begin a target
    text, odd = tokenizer.decode([token]).strip(), ""
    if type(body) is Transformer and token != network.pad_id and token in (network.eos_id, tokenizer.unk_id):
        name = "end of text" if token == network.eos_id else "unknown token"
        odd = f"the {name}; a T5 begins with its padding (id {network.pad_id})"
    return Start(text, configured, odd=odd)


def _training_loss(setup: TrainingSetup) -> Summed:
    """A batch's cross-entropy as the training sums it, without what is drawn or weighed."""
    plain = {"label_smoothing": 0.0, "ctc_weight": 0.0, "focal": 0.0, "word_dropout": 0.0}
    options = setup.recipe.train.model_copy(update=plain)
    objective = Objective(setup.network, options, setup.tokenizer.unk_id)
    return lambda batch: objective(batch)[1]
