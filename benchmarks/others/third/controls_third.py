"""Healthy habits that look odd: schedules by hand, two optimizers, curricula, frozen parts, tiny and noisy sets."""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import adapters, models, tasks, trainers, tutorial
from others.case import Cases
from others.hosts import Fitted, Judged, Planned
from others.tasks import PAD, numbers, split
from others.tutorial import Lang, padded, share_right
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from third_parts import lit, nets, plans, senses

CASES = Cases()


def prepared(seed: int, count: int, low: int, high: int) -> tuple[Any, Any, tuple[Lang, Lang]]:
    """Training and validation pairs, and both vocabularies."""
    pairs = numbers(count, seed, low, high)
    return *split(pairs), (Lang(pairs, 0), Lang(pairs, 1))


@CASES.control("noam-by-hand-all-tied", "loop", "The Annotated Transformer: NoamOpt, smoothed KL loss, three-way tying")
def noam_by_hand_all_tied(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """One vocabulary for both sides, one matrix for three places, the rate by a formula, the KL loss of smoothing."""
    pairs = numbers(2100, seed)
    lang = Lang([(f"{a} {b}", "") for a, b in pairs], 0)
    train, valid = split(pairs)
    torch.manual_seed(seed)
    model = nets.ScratchTransformer(len(lang), len(lang))
    nn.init.normal_(model.src_embed.weight, std=64**-0.5)
    model.tgt_embed.weight = model.src_embed.weight
    model.generator.weight = model.src_embed.weight
    optimizer = torch.optim.Adam(model.parameters(), lr=0, betas=(0.9, 0.98), eps=1e-9)
    doctor, losses = watch(model, optimizer), []
    for step, (src, tgt) in enumerate(tutorial.forever(train, (lang, lang), 500, seed), 1):
        rate = 0.7 * 64**-0.5 * min(step**-0.5, step * 60**-1.5)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logs = F.log_softmax(model(src, tgt[:, :-1]), dim=-1).flatten(0, 1)
        wanted = tgt[:, 1:].flatten()
        smooth = torch.full_like(logs, 0.1 / (len(lang) - 2)).scatter_(1, wanted[:, None], 0.9)
        smooth[:, PAD] = 0
        smooth[wanted == PAD] = 0
        loss = F.kl_div(logs, smooth, reduction="sum") / (wanted != PAD).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        doctor.step(loss, (src, tgt))
    doctor.evaluate(tutorial.batches(valid, (lang, lang), 32, 0))
    source = padded([lang.ids(a) for a, _ in valid])
    return losses, share_right(senses.greedy(lambda read: model(source, read), len(valid), 8), valid, lang)


class Zorp(nn.Module):
    """Parts with names that say nothing."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.foo, self.bar = nn.Embedding(a, 64, sparse=True), nn.Embedding(b, 64, sparse=True)
        self.thing1, self.thing2 = nn.GRU(64, 64, batch_first=True), nn.GRU(64, 64, batch_first=True)
        self.glue, self.last = nn.Linear(64, 64), nn.Linear(128, b)

    def forward(self, x: Any, y: Any) -> Any:
        """Logits (batch, time, size)."""
        keys, state = self.thing1(self.foo(x))
        said, _ = self.thing2(self.bar(y), state)
        scores = (said @ self.glue(keys).transpose(1, 2)).masked_fill((x == PAD)[:, None], -1e9)
        return self.last(torch.cat((said, scores.softmax(-1) @ keys), -1))


@CASES.control("sparse-and-dense-optimizers", "loop", "PyTorch's docs: SparseAdam for sparse embeddings beside Adam")
def sparse_and_dense(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Two optimizers over one module, odd names, a batch as a dict of one's own words."""
    train, valid, langs = prepared(seed, 2100, 2, 5)
    torch.manual_seed(seed)
    model = Zorp(len(langs[0]), len(langs[1]))
    sparse = [model.foo.weight, model.bar.weight]
    rest = [weight for name, weight in model.named_parameters() if name.split(".")[0] not in ("foo", "bar")]
    optimizers = (torch.optim.SparseAdam(sparse, 5e-3), torch.optim.Adam(rest, 3e-3))
    doctor, losses = watch(model, optimizers), []
    for q, a in tutorial.forever(train, langs, 400, seed):
        loss = senses.masked_loss(model(q, a[:, :-1]), a[:, 1:])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, {"question": q, "answer": a})
    doctor.evaluate([{"question": q, "answer": a} for q, a in tutorial.batches(valid, langs, 32, 0)])
    source = padded([langs[0].ids(a) for a, _ in valid])
    return losses, share_right(senses.greedy(lambda read: model(source, read), len(valid), 8), valid, langs[1])


@CASES.control("curriculum-and-own-outputs", "loop", "bentrevett/pytorch-seq2seq's teacher forcing ratio; curricula")
def curriculum_and_own_outputs(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Short pairs first; half of the batches, later on, are read from the model's own outputs."""
    train, valid, langs = prepared(seed, 2100, 2, 5)
    torch.manual_seed(seed)
    encoder, decoder = tutorial.EncoderRNN(len(langs[0])), tutorial.AttnDecoderRNN(len(langs[1]))
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(weights, 3e-3)
    draw, doctor, losses = random.Random(seed), watch((encoder, decoder), optimizer), []
    for longest, steps in ((3, 100), (4, 100), (5, 300)):
        short = [pair for pair in train if len(pair[0].split()) <= longest]
        for source, target in tutorial.forever(short, langs, steps, seed + longest):
            outputs, state = encoder(source)
            token, said = target[:, :1], []
            forced = longest < 5 or draw.random() < 0.5
            for i in range(1, target.shape[1]):
                logits, state = decoder.step(token, state, outputs, source == PAD)
                said.append(logits)
                token = target[:, i : i + 1] if forced else logits.argmax(-1)
            loss = senses.masked_loss(torch.cat(said, 1), target[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            losses.append(loss.item())
            doctor.step(loss, (source, target))
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = padded([langs[0].ids(a) for a, _ in valid])
    return losses, share_right(tutorial.greedy_rnn(encoder, decoder, source), valid, langs[1])


@CASES.control("half-precision-accumulated-averaged", "loop", "autocast(bfloat16), two batches a step, EMA weights")
def half_precision_accumulated(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """The signs of a small clip set; what is used in the end is the average of the weights."""
    rows = senses.clips(1300, seed, dims=24, word=6)
    train, valid = rows[:-96], rows[-96:]
    torch.manual_seed(seed)
    model = senses.SignTranslator(24, len(senses.WORDS))
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    doctor, losses = watch(model, optimizer), []
    for step, chosen in enumerate(senses.shuffled(train, 500, 16, seed), 1):
        sgn, lengths, txt = senses.framed(chosen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = senses.masked_loss(model(sgn, lengths, txt[:, :-1]), txt[:, 1:]) / 2
        loss.backward()
        if step % 2 == 0:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for kept, weight in zip(average.parameters(), model.parameters(), strict=True):
                    kept.lerp_(weight, 0.05)
        losses.append(float(loss))
        doctor.step(loss, (sgn, lengths, txt))
    doctor.evaluate([senses.framed(valid[i : i + 32]) for i in range(0, 96, 32)])
    frames, lengths, _ = senses.framed(valid)
    said = senses.greedy(lambda read: average(frames, lengths, read), len(valid), 7)
    return losses, senses.exact(said, valid)


@CASES.control("three-answers-for-all", "trainer", "T5 as a classifier: many texts, few labels as text (GLUE in T5)")
def three_answers_for_all(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """Which of three kinds a number is; a few answers cover all sources."""
    kinds = ["round", "odd number", "even number"]
    words = tasks.vocabulary("round", "odd", "even", "number")
    tokenizer = tasks.word_tokenizer(words)

    def kind(text: str) -> str:
        last = tasks.GERMAN.index(text.split()[-1])
        return kinds[0] if last == 0 else kinds[1 if last % 2 else 2]

    pairs = [(a, kind(a)) for a, _ in numbers(1500, seed)]
    train, valid = (trainers.encoded(each, tokenizer) for each in split(pairs))
    made = trainers.trainer(folder, models.t5(len(words), seed), tokenizer, train, valid, max_steps=200)
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


@CASES.control("two-hundred-pairs", "trainer", "fine-tuning on a very small set, many epochs, early layers as they are")
def two_hundred_pairs(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """A checkpoint, two hundred pairs, thirty epochs, label smoothing."""
    model, tokenizer, train, valid = adapters.t5_checkpoint(seed)
    rows = trainers.encoded(train[:200], tokenizer), trainers.encoded(valid, tokenizer)
    options = {"max_steps": 180, "learning_rate": 2e-3, "label_smoothing_factor": 0.1, "weight_decay": 0.01}
    made = trainers.trainer(folder, model, tokenizer, *rows, **options)
    return trainers.Trained(made, lambda: trainers.exact(made, rows[1]))


@CASES.control("encoder-kept-as-it-is", "trainer", "fine-tuning with a frozen encoder: fewer weights, same sources")
def encoder_kept(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """A checkpoint whose encoder knows the sources; its decoder learns French, by LoRA of peft on the decoder alone."""
    from peft import LoraConfig, get_peft_model

    base, tokenizer, *pairs = adapters.t5_checkpoint(seed)
    torch.manual_seed(seed)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=r".*decoder.*\.(q|k|v|o|wi|wo)", task_type="SEQ_2_SEQ_LM")
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    options = {"max_steps": 240, "learning_rate": 1e-2, "label_names": ["labels"]}
    made = trainers.trainer(folder, get_peft_model(base, lora), tokenizer, train, valid, **options)
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


class ByHand(lit.Translator):
    """Manual optimization: the encoder moves at half the rate, every batch, gradients clipped by value."""

    def __init__(self, net: Any, configure: Any) -> None:
        super().__init__(net, configure)
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        """Backward and steps by hand."""
        src, tgt = batch
        loss = senses.masked_loss(self(src, tgt[:, :-1]), tgt[:, 1:])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="value")
            optimizer.step()
        self.losses.append(float(loss.detach()))


@CASES.control("two-optimizers-by-hand", "lightning", "Lightning's docs: manual optimization with several optimizers")
def two_optimizers_by_hand(broken: bool, seed: int, folder: Path) -> Fitted:
    """A convolutional pair in a LightningModule."""
    train, valid, langs = prepared(seed, 1600, 2, 5)

    def configure(module: Any) -> Any:
        named = list(module.net.named_parameters())
        slow = [weight for name, weight in named if name.startswith(("source", "encoder"))]
        fast = [weight for name, weight in named if not name.startswith(("source", "encoder"))]
        return [torch.optim.Adam(slow, 1e-3), torch.optim.Adam(fast, 2e-3)]

    torch.manual_seed(seed)
    net = nets.ConvSeq2Seq(len(langs[0]), len(langs[1]))
    return lit.fitted(folder, ByHand(net, configure), (train, valid), langs, 8)


@CASES.control("noisy-references", "recipe", "crowd-sourced sets: one training target in eight is another one's")
def noisy_references(broken: bool, seed: int, folder: Path) -> Planned:
    """Signed digits; an eighth of the training texts are wrong, and some clips come twice."""
    draw, sets = random.Random(seed), {}
    for split_, count, offset in (("train", 1300, 0), ("valid", 96, 5000)):
        rows = senses.clips(count, seed + offset)
        names = [f"{split_}{i:04}" for i in range(count)]
        features = plans.save(folder / split_, names, [frames for frames, _ in rows])
        texts = [text for _, text in rows]
        if split_ == "train":
            texts = [draw.choice(texts) if draw.random() < 0.125 else text for text in texts]
        table = list(zip(names, texts, strict=True))
        if split_ == "train":
            table += draw.sample(table, 60)
        manifest = plans.tsv(folder / f"{split_}.tsv", ("id", "text"), table)
        sets[split_] = {"manifest": manifest, "features": features}
    recipe = plans.signs(folder, seed, sets["train"], sets["valid"], steps=500, label_smoothing=0.1)
    return Planned(recipe, plans.measured())


@CASES.control("many-ways-to-say-it", "diagnose", "a finished BART on a set where sources come again, in other words")
def many_ways_to_say_it(broken: bool, seed: int, folder: Path) -> Judged:
    """A checkpoint that is right, on a set of sixty sources of which some come twice."""
    from transformers import BartForConditionalGeneration

    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pairs = [*valid[:50], *valid[:10]]
    data = plans.tsv(folder / "test.tsv", ("source", "target"), pairs)

    def figure() -> float:
        opened = BartForConditionalGeneration.from_pretrained(folder / "model")
        right = 0
        batch = tokenizer([a for a, _ in pairs], padding=True, return_tensors="pt")
        said = trainers.said(opened, {key: batch[key] for key in ("input_ids", "attention_mask")})
        right = sum(a == tokenizer(text_target=b)["input_ids"][:-1] for a, (_, b) in zip(said, pairs, strict=True))
        return right / len(pairs)

    return Judged(folder / "model", Path(data), figure)
