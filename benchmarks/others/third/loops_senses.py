"""Plain loops over pictures, sounds and signs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from others.case import Cases
from others.tasks import PAD
from others.tutorial import padded
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from third_parts import senses

CASES = Cases()


@CASES.fault(
    "pictures-not-scaled-in-validation",
    "loop",
    origin="yunjey/pytorch-tutorial#100 (“same captions: check input normalization”), MichalBusta/DeepTextSpotter#19",
    what="training pictures are scaled and normalised; the validation loader gives them as they are, 0 to 255",
    expected="validation inputs are on another scale than those of the training",
    accepts="new:inputs-unlike-training",
)
def pictures_not_scaled(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Captions by convolutions and an LSTM that attends; two optimizers."""
    train, valid = senses.pictures(1500, seed), senses.pictures(96, seed + 1000)

    def scaled(images: Any) -> Any:
        return (images / 255 - 0.45) / 0.4

    def collate(rows: Any, transform: Any) -> dict[str, Any]:
        return {
            "image": transform(torch.stack([image for image, _ in rows])),
            "caption": padded([senses.ids(text) for _, text in rows]),
        }

    torch.manual_seed(seed)
    encoder, decoder = senses.CaptionEncoder(64), senses.CaptionDecoder(len(senses.WORDS), 64)
    optimizers = (torch.optim.Adam(encoder.parameters(), 1e-3), torch.optim.Adam(decoder.parameters(), 3e-3))
    doctor, losses = watch((encoder, decoder), optimizers), []
    for rows in senses.shuffled(train, 300, 32, seed):
        batch = collate(rows, scaled)
        logits = decoder(encoder(batch["image"]), batch["caption"][:, :-1])
        loss = senses.masked_loss(logits, batch["caption"][:, 1:])
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, batch)
    encoder.eval()
    decoder.eval()
    loader = [collate(valid[i : i + 32], (lambda images: images) if broken else scaled) for i in range(0, 96, 32)]
    doctor.evaluate(loader)
    said = []
    for batch in loader:
        with torch.no_grad():
            columns = encoder(batch["image"])
        said += senses.greedy(lambda read, columns=columns: decoder(columns, read), len(columns), 10)
    return losses, senses.exact(said, valid)


@CASES.fault(
    "lengths-subsampled-twice",
    "loop",
    origin="NVIDIA-NeMo/Speech#16224, espnet/espnet#3037 and #6600: lengths behind the subsampling that are too small",
    what="the loader divides the lengths by four, as the convolutions do, and the model divides them again",
    expected="most of each memory is masked as padding: masks are too short",
    accepts="new:mask-hides-source",
)
def lengths_subsampled_twice(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Speech: convolutions, a Transformer, CTC and attention together."""
    rows = senses.clips(1400, seed, word=16)
    train, valid = rows[:-96], rows[-96:]

    def collate(rows: Any) -> dict[str, Any]:
        features, lengths, tokens = senses.framed(rows)
        return {"xs_pad": features, "ilens": lengths // 4 if broken else lengths, "ys_pad": tokens}

    torch.manual_seed(seed)
    model = senses.SpeechTransformer(16, len(senses.WORDS))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    ctc = nn.CTCLoss(blank=PAD, zero_infinity=True)
    doctor, losses = watch(model, optimizer), []
    for chosen in senses.shuffled(train, 400, 16, seed):
        batch = collate(chosen)
        tokens = batch["ys_pad"]
        logits, states, lengths = model(batch["xs_pad"], batch["ilens"], tokens[:, :-1])
        counts = (tokens != PAD).sum(1) - 2
        aligned = ctc(states.log_softmax(-1).transpose(0, 1), tokens[:, 1:], lengths, counts)
        loss = 0.7 * senses.masked_loss(logits, tokens[:, 1:]) + 0.3 * aligned
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, batch)
    model.eval()
    loader = [collate(valid[i : i + 32]) for i in range(0, 96, 32)]
    doctor.evaluate(loader)
    said = []
    for batch in loader:
        with torch.no_grad():
            memory, lengths = model.encode(batch["xs_pad"], batch["ilens"])
        said += senses.greedy(lambda read, m=memory, n=lengths: model.decode(m, n, read), len(memory), 7)
    return losses, senses.exact(said, valid)


@CASES.fault(
    "plateau-the-wrong-way",
    "loop",
    origin="FunctionLab/selene#115: mode='max' kept from an AUROC when the loss was tracked; md-mohaiminul/ViS4mer#4",
    what="the scheduler waits for the validation loss to rise (mode='max'): each epoch it falls, the rate is cut",
    expected="the learning rate has been cut to nothing, before the loss came to rest",
    accepts="new:rate-cut-early",
)
def plateau_the_wrong_way(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Signs: GRUs with attention over frame features."""
    rows = senses.clips(1100, seed, dims=24, word=6)
    train, valid = rows[:-96], rows[-96:]
    torch.manual_seed(seed)
    model = senses.SignTranslator(24, len(senses.WORDS))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max" if broken else "min", factor=0.2, patience=0
    )
    doctor, losses = watch(model, optimizer), []
    loader = [senses.framed(valid[i : i + 32]) for i in range(0, 96, 32)]
    for epoch in range(16):
        model.train()
        for chosen in senses.shuffled(train, 31, 32, seed + 100 * epoch):
            sgn, sgn_lengths, txt = senses.framed(chosen)
            loss = senses.masked_loss(model(sgn, sgn_lengths, txt[:, :-1]), txt[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            doctor.step(loss, {"sgn": sgn, "sgn_lengths": sgn_lengths, "txt": txt})
        model.eval()
        with torch.no_grad():
            valid_loss = sum(float(senses.masked_loss(model(a, n, b[:, :-1]), b[:, 1:])) for a, n, b in loader)
        scheduler.step(valid_loss)
    doctor.evaluate([{"sgn": a, "sgn_lengths": n, "txt": b} for a, n, b in loader])
    said = []
    for frames, lengths, _ in loader:
        said += senses.greedy(lambda read, f=frames, n=lengths: model(f, n, read), len(frames), 7)
    return losses, senses.exact(said, valid)
