"""JoeyNMT's YAML → a recipe. Layouts of versions 1 and 2 are read: keys of both are looked for."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from sourcewise.config.files import checked, set_option
from sourcewise.errors import RequestError
from sourcewise.importing.keys import Imported, Theirs

LEVELS = {"word": "words", "bpe": "subwords", "char": "characters"}
BEST = {"bleu": "bleu", "chrf": "chrf", "sequence_accuracy": "exact_match_pct"}
NOAM_WARMUP = 4000  # JoeyNMT's default
SIDES = ("src", "trg")
NUMBER = (int, float)


def imported(config: Path, output: Path) -> Imported:
    """A recipe that trains what a configuration of JoeyNMT trains, as nearly as there are options for it.

    Relative paths of the configuration start from the folder where it is used, as JoeyNMT reads them; tables that have
    to be written stand beside `output`. Raises RequestError for a file that is no such configuration.
    """
    theirs = Theirs(_read(config), str(config))
    tables = _data(theirs, output)
    _model(theirs)
    _training(theirs)
    _schedule(theirs)
    _search(theirs)
    theirs.leftover()
    tree: dict[str, Any] = {}
    for key, value in theirs.ours.items():
        set_option(tree, key, value)
    checked(tree, str(config))
    return Imported(tree, theirs.told, tables)


def _read(config: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{config}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{config}: is no YAML: {' '.join(str(error).split())[:200]}") from None
    sections = ("data", "model", "training")
    missing = [name for name in sections if not isinstance(tree, dict) or not isinstance(tree.get(name), dict)]
    if missing:
        raise RequestError(
            f"{config}: has no section {missing[0]}; a configuration of JoeyNMT has {', '.join(sections)}"
        )
    return dict(tree)


def _data(theirs: Theirs, output: Path) -> dict[str, tuple[str, str]]:
    """Sets, tokenizer and lengths. Gives the tables to write."""
    kind = theirs.get("data.dataset_type", default="plain")
    codes = [theirs.get(f"data.{side}.lang", f"data.{side}", kind=str) for side in SIDES]
    if None in codes or kind not in ("plain", "tsv", "huggingface"):
        problem = (
            f"data.dataset_type: {kind!r}" if None not in codes else "data.src.lang and data.trg.lang name the files"
        )
        raise RequestError(f"{theirs.where}: {problem}; plain, tsv and huggingface are read")
    tables: dict[str, tuple[str, str]] = {}
    for use, name in (("train", "data.train"), ("valid", "data.dev"), ("test", "data.test")):
        path = theirs.get(name, kind=(str, type(None)))
        if not path:
            continue
        if kind == "huggingface":
            theirs.tell(name, f"name the set yourself: --data.{use}.pairs hub:{path}, with its columns and split")
            continue
        if kind == "tsv":
            theirs.ours |= {f"data.{use}.pairs": f"{path}.tsv", f"data.{use}.source": codes[0]}
            theirs.ours[f"data.{use}.target"] = codes[1]
            continue
        table = output.with_name(f"{output.stem}.{use}.jsonl")
        tables[str(table)] = (f"{path}.{codes[0]}", f"{path}.{codes[1]}")
        theirs.ours[f"data.{use}.pairs"] = str(table)
    _texts(theirs)
    return tables


def _texts(theirs: Theirs) -> None:
    """How texts are read: case, lengths, units."""
    cased = [theirs.get(f"data.{side}.lowercase", "data.lowercase", default=False) for side in SIDES]
    if cased[0] == cased[1]:
        theirs.ours |= {f"{key.rpartition('.')[0]}.lowercase": True for key in _sets(theirs) if cased[0]}
    else:
        theirs.tell(
            "data.src.lowercase" if cased[0] else "data.trg.lowercase", "both sides are lower-cased here, or none"
        )
    for side, ours in zip(SIDES, ("data.max_source", "data.max_target"), strict=True):
        longest = theirs.get(f"data.{side}.max_length", "data.max_sent_length", default=-1, kind=int)
        if longest > 0:
            theirs.ours[ours] = longest + 1  # the end of text counts here
            theirs.told.append(f"{ours} {longest + 1}: longer ones are left out by JoeyNMT, and cut here")
    units = [theirs.get(f"data.{side}.level", "data.level", default="word") for side in SIDES]
    if units[0] != units[1] or units[0] not in LEVELS:
        raise RequestError(
            f"{theirs.where}: data.src.level {units[0]!r} and data.trg.level {units[1]!r}: one of them for both"
        )
    theirs.ours["data.unit"] = LEVELS[units[0]]
    limits = [theirs.get(f"data.{side}.voc_limit", f"data.{side}_voc_limit", kind=int) for side in SIDES]
    if known := [limit for limit in limits if limit and limit > 0]:
        theirs.ours["data.vocabulary"] = max(16, *known)
    for side in SIDES:
        theirs.off("texts are used as they are", f"data.{side}.normalize", f"data.{side}.tokenizer_cfg.pretokenizer")
        theirs.off("no text is too short", f"data.{side}.min_length", values=(None, 0, 1))
        theirs.off("no such limit", f"data.{side}.voc_min_freq", f"data.{side}_voc_min_freq", values=(None, 0, 1))
    theirs.off("all examples are used", "data.sample_train_subset", "data.sample_dev_subset")
    _tokenizer(theirs)


def _sets(theirs: Theirs) -> list[str]:
    return [key for key in theirs.ours if re.fullmatch(r"data\.(train|valid|test)\.pairs", key)]


def _tokenizer(theirs: Theirs) -> None:
    """A SentencePiece model that both sides share is used; everything else is learned anew."""
    models = [theirs.get(f"data.{side}.tokenizer_cfg.model_file", kind=str) for side in SIDES]
    if models[0] and models[0] == models[1]:
        theirs.ours["data.tokenizer"] = models[0]
    for name in [
        name for name in sorted(theirs.rest) if re.match(r"data\.(src|trg)[._](voc_file|vocab|tokenizer)", name)
    ]:
        used = models[0] and models[0] == models[1] and ("tokenizer_type" in name or "voc" in name)
        theirs.rest.discard(name) if used else theirs.tell(
            name, "one tokenizer for both sides is learned from the texts"
        )


def _model(theirs: Theirs) -> None:
    """The network; one shape for both sides, that of the encoder, but for the number of layers."""
    kind = theirs.get("model.encoder.type", default="recurrent")
    if theirs.get("model.decoder.type", default=kind) != kind or kind not in ("transformer", "recurrent"):
        raise RequestError(
            f"{theirs.where}: model.encoder.type {kind!r}: transformer or recurrent for both sides is read"
        )
    theirs.carry("model.d_model", "model.encoder.hidden_size")
    theirs.carry("model.dropout", "model.encoder.dropout")
    theirs.carry("model.encoder_layers", "model.encoder.num_layers")
    theirs.carry("model.decoder_layers", "model.decoder.num_layers")
    for side in ("encoder", "decoder"):
        width = theirs.get(f"model.{side}.embeddings.embedding_dim")
        if width not in (None, theirs.ours.get("model.d_model")):
            theirs.tell(f"model.{side}.embeddings.embedding_dim", "embeddings are as wide as the network here")
        theirs.off("embeddings are trained with the rest", f"model.{side}.embeddings.freeze")
        theirs.rest.discard(f"model.{side}.embeddings.scale")
    frozen = [side for side in ("encoder", "decoder") if theirs.get(f"model.{side}.freeze", default=False)]
    if frozen:
        theirs.ours["train.freeze"] = frozen
    for name in ("hidden_size", "dropout", "ff_size", "num_heads", "rnn_type", "activation"):
        if theirs.get(f"model.decoder.{name}") not in (None, theirs.values.get(f"model.encoder.{name}")):
            theirs.tell(f"model.decoder.{name}", "as the encoder's here")
    _transformer(theirs) if kind == "transformer" else _recurrent(theirs)
    scheme = theirs.get("model.initializer", default="xavier")
    if str(scheme).startswith("xavier"):
        theirs.ours["model.initialization"] = "xavier"
    else:
        theirs.tell("model.initializer", "the family's own initialization")
    for name in [name for name in sorted(theirs.rest) if re.search(r"^model\.\w*(init|gain|lstm_forget)", name)]:
        theirs.tell(name, "as model.initialization says")
    tied = [theirs.get(f"model.tied_{name}", default=False) for name in ("softmax", "embeddings")]
    theirs.ours["model.tied"] = bool(tied[0])
    if not tied[1]:
        theirs.told.append(
            "model.tied_embeddings False: sources and targets share a vocabulary and its embeddings here"
        )


def _transformer(theirs: Theirs) -> None:
    theirs.ours["model.family"] = "t5"
    theirs.carry("model.d_ff", "model.encoder.ff_size")
    theirs.carry("model.heads", "model.encoder.num_heads")
    theirs.carry("model.activation", "model.encoder.activation")
    theirs.told.append(
        "model.encoder.type transformer: positions are relative here (T5's), and norms stand before a layer"
    )
    for side in ("encoder", "decoder"):
        theirs.off("norms stand before a layer", f"model.{side}.layer_norm", values=(None, "pre"))


def _recurrent(theirs: Theirs) -> None:
    theirs.ours |= {"model.family": "rnn", "model.attention": "bahdanau"}
    theirs.ours["model.cell"] = theirs.get("model.encoder.rnn_type", default="lstm")
    theirs.off("its attention is Bahdanau's here", "model.decoder.attention", values=(None, "bahdanau"))
    theirs.off("the encoder reads both ways here", "model.encoder.bidirectional", values=(None, True))
    for name in ("input_feeding", "init_hidden", "hidden_dropout"):
        if f"model.decoder.{name}" in theirs.rest:
            theirs.tell(f"model.decoder.{name}", "the decoder is as docs/decisions/016 describes it")


def _training(theirs: Theirs) -> None:
    """Steps, batches, optimizer, checkpoints."""
    theirs.carry("seed", "random_seed", "training.random_seed")
    folder = theirs.get("model_dir", "training.model_dir", kind=str)
    if folder:
        path = PurePosixPath(folder)
        theirs.ours |= {"output": str(path.parent), "name": path.name}
    theirs.rest.discard("name")  # a title: the run is called as its folder
    theirs.carry("train.epochs", "training.epochs")
    if theirs.carry("train.steps", "training.updates") and "train.epochs" in theirs.ours:
        theirs.told.append("training.epochs and training.updates: what comes first ends it there, train.steps here")
    theirs.carry("train.accumulate", "training.batch_multiplier")
    theirs.carry("train.label_smoothing", "training.label_smoothing")
    theirs.carry("train.weight_decay", "training.weight_decay")
    theirs.carry("train.log_every", "training.logging_freq")
    theirs.carry("train.evaluate_every", "training.validation_freq")
    theirs.ours["train.clip"] = theirs.get("training.clip_grad_norm", default=0.0)
    theirs.off("gradients are clipped by their norm here: train.clip", "training.clip_grad_val")
    betas = theirs.get("training.adam_betas", default=[0.9, 0.999], kind=list)
    theirs.ours |= dict(zip(("train.beta1", "train.beta2"), betas, strict=False))
    theirs.off("the optimizer is AdamW here", "training.optimizer", values=("adam", "adamw"))
    _batches(theirs)
    theirs.off("each target token counts alike here", "training.normalization", values=("tokens",))
    theirs.off("examples are shuffled", "training.shuffle", values=(None, True))
    theirs.off("the loss is cross-entropy", "training.loss", values=(None, "crossentropy"))
    theirs.off("weights of JoeyNMT are not read", "training.load_model", "load_model")
    device = theirs.get("use_cuda", "training.use_cuda")
    if device is not None:
        theirs.ours["train.device"] = "auto" if device else "cpu"
    half = theirs.get("fp16", "training.fp16", default=False)
    theirs.ours["train.precision"] = "bf16" if half else "fp32"
    if half:
        theirs.told.append("fp16 True: bf16 here")
    _checkpoints(theirs)


def _batches(theirs: Theirs) -> None:
    size = theirs.get("training.batch_size", kind=int)
    by_tokens = theirs.get("training.batch_type", default="sentence") == "token"
    if size and by_tokens:
        theirs.ours["train.batch_tokens"] = 2 * size
        theirs.told.append(f"training.batch_size {size}: tokens of one side there; of both sides here: {2 * size}")
    elif size:
        longest = theirs.ours.get("data.max_source", 512) + theirs.ours.get("data.max_target", 256)
        theirs.ours |= {"train.batch_size": size, "train.batch_tokens": max(4096, size * longest)}


def _checkpoints(theirs: Theirs) -> None:
    metrics = theirs.get("testing.eval_metrics", "training.eval_metric", default="bleu")
    figure = metrics[0] if isinstance(metrics, list) and metrics else metrics
    watched = theirs.get("training.early_stopping_metric", default="eval_metric")
    if watched in ("loss", "ppl"):
        theirs.ours["train.best"] = "loss"
    elif figure in BEST:
        theirs.ours["train.best"] = BEST[figure]
    else:
        theirs.told.append(
            f"eval_metric {figure!r}: is not measured here; the best checkpoint is that of the best BLEU"
        )
    for name in ("keep_last_ckpts", "keep_best_ckpts", "overwrite", "print_valid_sents"):
        theirs.rest.discard(f"training.{name}")  # best and last are kept, samples are in the report
    for name in ("best_ckpt", "scheduler", "optimizer", "iter_state"):
        theirs.off("`--resume` goes on exactly", f"training.reset_{name}")


def _schedule(theirs: Theirs) -> None:
    """The learning rate over time."""
    kind = theirs.get("training.scheduling", default=None)
    rate = theirs.get("training.learning_rate", default=3e-4, kind=NUMBER)
    warmup = theirs.get("training.learning_rate_warmup", default=NOAM_WARMUP, kind=int)
    factor = theirs.get("training.learning_rate_factor", default=1.0, kind=NUMBER)
    if kind == "noam":  # factor · width^-½ · min(step^-½, step · warmup^-1½): its peak is at the end of the warm-up
        width = theirs.ours.get("model.d_model", 256)
        rate = float(f"{factor * width**-0.5 * warmup**-0.5:.6g}")
        theirs.ours |= {"train.schedule": "inverse_sqrt", "train.warmup_steps": warmup}
    elif kind == "warmupinversesquareroot":
        theirs.ours |= {"train.schedule": "inverse_sqrt", "train.warmup_steps": warmup}
    else:
        theirs.ours |= {"train.schedule": "constant", "train.warmup_steps": 0}
        if kind:
            theirs.tell("training.scheduling", "the rate is constant here; train.schedule has cosine and inverse_sqrt")
    theirs.ours["train.learning_rate"] = rate
    for name in ("patience", "decrease_factor", "learning_rate_min", "learning_rate_decay"):
        if f"training.{name}" in theirs.rest:
            theirs.tell(
                f"training.{name}", "there is no such schedule; train.patience counts evaluations until the end"
            )


def _search(theirs: Theirs) -> None:
    """Search and measures."""
    theirs.carry("generation.beams", "testing.beam_size")
    penalty = theirs.get("testing.beam_alpha", "testing.alpha", default=0.0, kind=NUMBER)
    theirs.ours["generation.length_penalty"] = max(0.0, float(penalty))
    if penalty > 0:
        theirs.told.append(f"testing.beam_alpha {penalty}: of ((5 + length) / 6) there, of the length here")
    longest = theirs.get("testing.max_output_length", "training.max_output_length", default=-1, kind=(int, type(None)))
    if longest and longest > 0:
        theirs.ours["generation.max_new_tokens"] = longest
    if (least := theirs.get("testing.min_output_length", default=0, kind=int)) > 0:
        theirs.ours["generation.min_new_tokens"] = least
    if (size := theirs.get("testing.no_repeat_ngram_size", default=-1, kind=int)) > 0:
        theirs.ours["generation.no_repeat_ngram"] = size
    if (strength := theirs.get("testing.repetition_penalty", default=-1, kind=NUMBER)) > 0:
        theirs.ours["generation.repetition_penalty"] = strength
    theirs.carry("evaluation.bleu_tokenize", "testing.sacrebleu_cfg.tokenize")
    theirs.carry("evaluation.lowercase", "testing.sacrebleu_cfg.lowercase")
    theirs.carry("evaluation.chrf_whitespace", "testing.sacrebleu_cfg.whitespace")
    theirs.off("ask for them: `sourcewise generate --n-best`", "testing.n_best", values=(None, 1))
    theirs.off("`sourcewise generate --json --scores` has them", "testing.return_prob", "testing.return_attention")
    for name in ("batch_size", "batch_type", "generate_unk"):
        theirs.rest.discard(f"testing.{name}")
    theirs.rest.discard("joeynmt_version")
