"""What a script does with torch, watched in this process: whose modules are the model, and where its batches end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from sourcewise.integrations.script.hooks import Hooks
from sourcewise.integrations.script.report import Ended, answer_of
from sourcewise.integrations.script.watcher import Watcher
from tests.integrations.loops import EOS, PAD, SIZE, Apart, OfTransformer, Seq2SeqTransformer, batches, words

STEPS = 40


def watched(run: Callable[[], Any], steps: int = STEPS) -> tuple[dict[str, Any], Watcher]:
    """What is answered of a training that knows nothing of this."""

    def done() -> None:
        raise Ended

    watcher = Watcher(steps, done)
    hooks = Hooks(lambda: watcher)
    hooks.install()
    try:
        run()
    except Ended:
        pass
    finally:
        hooks.remove()
    return answer_of(watcher), watcher


def ill(answer: dict[str, Any]) -> list[str]:
    return [each["code"] for each in answer["diagnosis"]["findings"] if each["level"] != "note"]


@pytest.mark.parametrize("kind", [Apart, OfTransformer])
def test_a_healthy_loop_is_healthy_and_as_it_was(kind: Any) -> None:
    alone = kind().run(STEPS)
    losses: list[float] = []
    answer, _ = watched(lambda: losses.extend(kind().run(STEPS)), steps=0)
    assert losses == alone and not ill(answer)
    assert answer["steps"] == STEPS and answer["source_bits"] is not None and answer["passes"] == STEPS


@pytest.mark.parametrize("kind", [Apart, OfTransformer])
@pytest.mark.parametrize(
    ("fault", "codes"),
    [("state", {"WIR028", "WIR011"}), ("unoptimised", {"WIR003"}), ("softmax", {"WIR027"}), ("zeros", {"WIR026"})],
)
def test_a_cause_is_first(kind: Any, fault: str, codes: set[str]) -> None:
    answer, _ = watched(lambda: kind(fault).run(STEPS))
    assert answer["diagnosis"]["cause"] in codes, ill(answer)


def test_all_is_put_back() -> None:
    before = nn.Module.__call__, torch.autograd.backward, F.cross_entropy, F.nll_loss, _BaseDataLoaderIter.__next__
    watched(lambda: Apart().run(3))
    after = nn.Module.__call__, torch.autograd.backward, F.cross_entropy, F.nll_loss, _BaseDataLoaderIter.__next__
    assert before == after


def test_it_ends_between_two_steps() -> None:
    training = Apart()
    steps: list[Any] = []
    answer, _ = watched(lambda: training.run(STEPS, lambda *given: steps.append(given)), steps=7)
    assert answer["steps"] == 7 and len(steps) == 6  # the optimizers of the seventh have stepped
    assert {int(state["step"]) for each in training.optimizers for state in each.state.values()} == {7}


class Small(nn.Module):
    """Reverses words; `encode` and `decode` are called by hand, never the module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE, 24)
        self.encoder, self.decoder = nn.GRU(24, 24, batch_first=True), nn.GRU(24, 24, batch_first=True)
        self.out = nn.Linear(24, SIZE)

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.embedding(source))[1]  # type: ignore[no-any-return]

    def forward(self, source: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return self.out(self.decoder(self.embedding(read), self.encode(source))[0])  # type: ignore[no-any-return]


def small_loss(model: Small, source: torch.Tensor, target: torch.Tensor, *, by_hand: bool = False) -> torch.Tensor:
    if by_hand:
        state = model.encode(source)
        logits = model.out(model.decoder(model.embedding(target[:, :-1]), state)[0])
    else:
        logits = model(source, target[:, :-1])
    return F.cross_entropy(logits.reshape(-1, SIZE), target[:, 1:].reshape(-1), ignore_index=PAD)


def gathered(count: int, model: Small, optimizer: Any) -> None:
    for i, (source, target) in enumerate(batches(words(640))):
        (small_loss(model, source, target) / count).backward()
        if (i + 1) % count == 0:
            optimizer.step()
            optimizer.zero_grad()


def test_gradients_gathered_over_several_batches() -> None:
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    answer, watcher = watched(lambda: gathered(4, model, optimizer))
    assert not ill(answer) and answer["model"] == "Small"
    assert watcher.passes == STEPS and watcher.moves == STEPS // 4


def test_a_closure_that_makes_the_gradients_within_the_step() -> None:
    torch.manual_seed(0)
    model = Small()
    nn.init.zeros_(model.out.weight)
    nn.init.zeros_(model.embedding.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def run() -> None:
        for source, target in batches(words(320)):

            def closure(source: Any = source, target: Any = target) -> torch.Tensor:
                optimizer.zero_grad()
                loss = small_loss(model, source, target)
                loss.backward()
                return loss

            optimizer.step(closure)

    answer, _ = watched(run, steps=12)
    assert answer["steps"] == 12 and "WIR026" in ill(answer)


def test_a_model_whose_parts_are_called_by_hand() -> None:
    torch.manual_seed(0)
    model = Small()
    optimizer = torch.optim.Adam(model.out.parameters(), lr=5e-3)

    def run() -> None:
        for source, target in batches(words(640)):
            optimizer.zero_grad()
            small_loss(model, source, target, by_hand=True).backward()
            optimizer.step()

    answer, _ = watched(run)
    assert answer["model"] == "Small" and answer["diagnosis"]["cause"] == "WIR003"


def test_a_teacher_is_not_the_model() -> None:
    torch.manual_seed(0)
    model, teacher = Small(), Small()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def run() -> None:
        for source, target in batches(words(640)):
            hint = teacher(source, target[:, :-1]).detach()
            logits = model(source, target[:, :-1])
            loss = F.cross_entropy(logits.reshape(-1, SIZE), target[:, 1:].reshape(-1), ignore_index=PAD)
            optimizer.zero_grad()
            (loss + 0.0 * F.mse_loss(logits, hint)).backward()
            optimizer.step()

    answer, _ = watched(run)
    assert answer["model"] == "Small" and not ill(answer)


def test_a_critic_that_learns_in_steps_of_its_own() -> None:
    torch.manual_seed(0)
    model, critic = Small(), nn.Sequential(nn.Linear(SIZE, 4), nn.ReLU(), nn.Linear(4, 1))
    own, its = torch.optim.Adam(model.parameters(), 5e-3), torch.optim.Adam(critic.parameters(), 1e-3)

    def judged(said: torch.Tensor, right: float) -> torch.Tensor:
        logits = critic(said).mean(1)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, right))

    def run() -> None:
        for source, target in batches(words(960)):
            said = model(source, target[:, :-1]).softmax(-1).detach()
            its.zero_grad()
            judged(said, 0.0).backward()
            judged(F.one_hot(target[:, 1:], SIZE).float(), 1.0).backward()
            its.step()
            logits = model(source, target[:, :-1])
            loss = F.cross_entropy(logits.reshape(-1, SIZE), target[:, 1:].reshape(-1), ignore_index=PAD)
            own.zero_grad()
            (loss + 0.0 * judged(logits.softmax(-1), 1.0)).backward()
            own.step()

    answer, _ = watched(run)
    assert answer["model"] == "Small" and not ill(answer)
    assert any("Sequential: learns in steps of its own" in each for each in answer["diagnosis"]["not_checked"])
    assert answer["losses"][0] > 2 and answer["source_bits"] is not None


def test_no_optimizer_of_torch() -> None:
    torch.manual_seed(0)
    model = Small()

    def run() -> None:
        for source, target in batches(words(640)):
            small_loss(model, source, target).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.5 * p.grad if p.grad is not None else 0
                    p.grad = None

    answer, _ = watched(run)
    assert answer["steps"] == STEPS and answer["losses"][1] < answer["losses"][0] and not ill(answer)


def test_an_optimizer_that_never_steps_is_no_diagnosis() -> None:
    model = Small()
    optimizer = torch.optim.Adam(model.parameters())

    def run() -> None:
        for source, target in batches(words(160)):
            small_loss(model, source, target).backward()

    answer, _ = watched(run)
    assert optimizer and answer["passes"] == 10 and answer["moves"] == 0 and "diagnosis" not in answer


def test_batches_of_a_loader_that_runs_ahead_and_held_out_ones() -> None:
    torch.manual_seed(0)
    model = Seq2SeqTransformer(32)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)

    def loss_of(src: torch.Tensor, tgt: torch.Tensor) -> torch.Tensor:
        read, labels = tgt[:-1], tgt[1:]
        later = torch.triu(torch.full((len(read), len(read)), float("-inf")), 1)
        nothing = torch.zeros(len(src), len(src), dtype=torch.bool)
        logits = model(src, read, nothing, later, (src == PAD).T, (read == PAD).T)
        return F.cross_entropy(logits.reshape(-1, SIZE), labels.reshape(-1), ignore_index=PAD)

    def ahead(loader: Any) -> Any:
        iterator = iter(loader)
        now = next(iterator)
        for following in iterator:
            yield now
            now = following
        yield now

    train: Any = DataLoader(list(batches(words(480), time_first=True)), batch_size=None)  # type: ignore[arg-type]
    valid: Any = DataLoader(list(batches(words(64, 1), time_first=True)), batch_size=None)  # type: ignore[arg-type]

    def run() -> None:
        for _ in range(2):
            model.train()
            for batch in ahead(train):
                optimizer.zero_grad()
                loss_of(*batch).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                for batch in valid:
                    loss_of(*batch)

    answer, watcher = watched(run)
    assert answer["held_out"] and answer["source_bits"] is not None and not ill(answer)
    assert watcher.doctor is not None and watcher.doctor.understood is not None
    assert watcher.doctor.understood.words.startswith("source is 0") and EOS


def test_an_error_of_ours_is_no_error_of_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> Any:
        raise RuntimeError("of ours")

    monkeypatch.setattr("sourcewise.integrations.script.watcher.roots_of", broken)
    training = Apart()
    answer, _ = watched(lambda: training.run(12))
    assert any("of ours" in each for each in answer["problems"])
