"""Trainings of other hosts are the same to the last digit with the doctor in: Lightning, accelerate, DDP, FSDP2."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader

import sourcewise
from tests.integrations.loops import PAD, SIZE, AttnDecoderRNN, EncoderRNN, Seq2SeqTransformer, batches, words

STEPS = 12
Losses = list[float]


class Lit(nn.Module):
    """What the hosts train: attention, dropout, and an optimizer that lacks the encoder where `ill`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder, self.dropout = EncoderRNN(16), AttnDecoderRNN(16), nn.Dropout(0.2)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        memory, state = self.encoder(source)
        said, _, _ = self.decoder(self.dropout(memory), state, target)
        return said

    def loss(self, batch: Any) -> torch.Tensor:
        return nll(self(*batch), batch[1])


def nll(said: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.nll_loss(said.reshape(-1, SIZE), target.reshape(-1), ignore_index=PAD)


def loader(count: int, seed: int, *, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(list(batches(words(count, seed), begin=False)), batch_size=None, shuffle=shuffle)  # type: ignore[arg-type]


def codes(found: Any) -> list[str]:
    return [each.code for each in found.findings if each.level != "note"]


def lightning_run(folder: Path, callbacks: list[Any]) -> tuple[Losses, dict[str, float]]:
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.losses = Lit(), []

        def training_step(self, batch: Any, place: int) -> torch.Tensor:
            loss = self.body.loss(batch)
            self.losses.append(loss.item())
            return loss

        def validation_step(self, batch: Any, place: int) -> None:
            self.log("valid_loss", self.body.loss(batch))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.body.decoder.parameters(), lr=5e-3)

    module = Module()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(
        max_steps=STEPS,
        val_check_interval=6,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        default_root_dir=folder,
        **quiet,  # type: ignore[arg-type]
    )
    trainer.fit(module, loader(400, 0, shuffle=True), loader(64, 1))
    return module.losses, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.slow
def test_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    from sourcewise.integrations.lightning import SourcewiseCallback

    callback = SourcewiseCallback()
    alone, figures = lightning_run(tmp_path, [])
    watched, more = lightning_run(tmp_path, [callback])
    assert alone == watched and figures["valid_loss"] == more["valid_loss"]
    assert codes(callback.diagnosis) == ["WIR003"] and "sourcewise_source_bits" in more
    assert "encoder" in callback.diagnosis.findings[0].evidence


def accelerated(watch: bool) -> tuple[Losses, Any]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = Lit()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    model, optimizer, train = accelerator.prepare(model, optimizer, loader(400, 0, shuffle=True))
    doctor = sourcewise.doctor(model, optimizer) if watch else None
    losses = []
    for batch in list(train)[:STEPS]:
        loss = model.loss(batch)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if doctor is not None:
            doctor.step(loss, batch)
    return losses, doctor


def test_accelerate() -> None:
    pytest.importorskip("accelerate")
    (alone, _), (watched, doctor) = accelerated(False), accelerated(True)
    assert alone == watched and not codes(doctor.diagnosis)
    assert doctor.evaluate(loader(64, 1))["source_bits"] > 0


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def of_rank(place: int, port: int, folder: str) -> None:
    """Both kinds of training, with and without the doctor, in one of two processes."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", rank=place, world_size=2)
    try:
        found = {kind: [spread(kind, place, watch) for watch in (False, True)] for kind in ("ddp", "fsdp")}
        torch.save(found, Path(folder) / f"{place}.pt")
    finally:
        distributed.destroy_process_group()


def spread(kind: str, place: int, watch: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    model: Any = Seq2SeqTransformer(32)
    if kind == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (2,))
        for layer in (*model.transformer.encoder.layers, *model.transformer.decoder.layers, model):
            fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if "src_tok_emb" not in n], lr=2e-3)
    doctor = sourcewise.doctor(model, optimizer) if watch else None
    losses = []
    for src, tgt in list(batches(words(400, place), time_first=True))[:STEPS]:
        read = tgt[:-1]
        later = torch.ones(len(read), len(read), dtype=torch.bool).triu(1)
        nothing = torch.zeros(len(src), len(src), dtype=torch.bool)
        logits = model(src, read, nothing, later, (src == PAD).T, (read == PAD).T)
        loss = nn.functional.cross_entropy(logits.reshape(-1, SIZE), tgt[1:].reshape(-1), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if doctor is not None:
            doctor.step(loss, (src, tgt))
    figures = doctor.evaluate(list(batches(words(64, 9), time_first=True))) if doctor is not None else {}
    said = [] if doctor is None else codes(doctor.diagnosis)
    missing = [] if doctor is None else doctor.diagnosis.not_checked
    return {"losses": losses, "codes": said, "not checked": missing, "bits": figures.get("source_bits")}


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(of_rank, (free_port(), str(tmp_path)), nprocs=2)
    for place in (0, 1):
        found = torch.load(tmp_path / f"{place}.pt")
        for kind, (alone, watched) in found.items():
            assert alone["losses"] == watched["losses"], (kind, place)
            assert watched["codes"] == (["WIR003"] if place == 0 else []), (kind, place)
            assert not any("Error" in each for each in watched["not checked"]), watched["not checked"]
    assert found["ddp"][1]["bits"] is None  # of the second process, which does not look
    first = torch.load(tmp_path / "0.pt")
    assert first["ddp"][1]["bits"] is not None
    assert any("each process holds but a part of the model" in each for each in first["fsdp"][1]["not checked"])
