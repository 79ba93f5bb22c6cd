"""Source bits of other people's loops: each natural call gives the figure of its definition, or says why not."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sourcewise
from sourcewise.errors import RequestError

BATCH, SLOTS, TIME, WORDS = 5, 7, 6, 11
SOS, EOS, PAD = 1, 2, 0


def words(rows: int, width: int, seed: int) -> Tensor:
    return torch.randint(4, WORDS, (rows, width), generator=torch.Generator().manual_seed(seed))


def sources() -> Tensor:
    return words(BATCH, SLOTS, 0)


def targets(start: bool = True, padded: bool = False) -> Tensor:
    """(batch, time): a start token, words, an end; of other lengths with padding."""
    out = words(BATCH, TIME, 1)
    out[:, -1] = EOS
    if start:
        out[:, 0] = SOS
    for i in range(BATCH) if padded else ():
        end = 3 + i % 3
        out[i, end] = EOS
        out[i, end + 1 :] = PAD
    return out


class Core(nn.Module):
    """Reads a source as its mean word, and the word before: (batch, time) → (batch, time, vocabulary)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.read, self.said, self.drop = nn.Embedding(WORDS, 16), nn.Embedding(WORDS, 16), nn.Dropout(0.5)
        self.out = nn.Linear(16, WORDS)

    def forward(self, src: Tensor, fed: Tensor) -> Tensor:
        places = torch.arange(1, src.shape[1] + 1)[None, :, None]
        memory = (self.read(src) * places).mean(1, keepdim=True)
        return self.out(self.drop(torch.tanh(memory + self.said(fed))))  # type: ignore[no-any-return]


class Seq2Seq(nn.Module):
    """As the tutorials on GitHub have it: (time, batch), a first output of zeros, forcing by lot."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core()

    def forward(self, src: Tensor, trg: Tensor, teacher_forcing_ratio: float = 0.5) -> Tensor:
        outputs = torch.zeros(*trg.shape, WORDS)
        fed = trg[0]
        for t in range(1, len(trg)):
            outputs[t] = self.core(src.t(), fed[:, None])[:, 0]
            forced = torch.rand(()) < teacher_forcing_ratio
            fed = trg[t] if forced else outputs[t].argmax(-1)
        return outputs


def nats(core: Core, src: Tensor, fed: Tensor, labels: Tensor) -> float:
    """By the definition."""
    core.eval()
    with torch.no_grad():
        return float(F.cross_entropy(core(src, fed).flatten(0, 1), labels.flatten(), ignore_index=-100))


@pytest.fixture
def warned() -> Any:
    with pytest.warns(UserWarning, match="source_bits: ") as seen:
        yield seen


@pytest.mark.parametrize("how", ["dict", "tuple", "object"])
def test_time_first_with_a_first_row_of_zeros_and_forcing(how: str, warned: Any) -> None:
    model, src, trg = Seq2Seq().train(), sources(), targets()
    given: Any = {"src": src.t(), "trg": trg.t()}
    batch = {"dict": given, "tuple": (src.t(), trg.t()), "object": SimpleNamespace(**given)}[how]
    found = sourcewise.source_bits(model, batch)
    assert found.loss == pytest.approx(nats(model.core, src, trg[:, :-1], trg[:, 1:]), rel=1e-5)
    assert found.tokens.tolist() == [TIME - 1] * BATCH and found.bits != 0 and model.training
    assert "(time, batch)" in found.understood and "forcing 1" in found.understood and "zeros" in found.understood


class Fed(nn.Module):
    """As a Transformer: the whole target in, an output for each of its tokens."""

    def __init__(self, time_first: bool = False) -> None:
        super().__init__()
        self.core, self.time_first = Core(), time_first

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None) -> Tensor:
        if self.time_first:
            return self.core(src.t(), tgt.t()).transpose(0, 1)
        return self.core(src, tgt)  # type: ignore[no-any-return]


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("names", [("src", "tgt"), ("source", "target"), ("inputs", "targets")])
def test_a_transformer_is_fed_the_whole_target(names: tuple[str, str], time_first: bool, warned: Any) -> None:
    model, src, trg = Fed(time_first), sources(), targets()
    laid = [side.t() if time_first else side for side in (src, trg)]
    found = sourcewise.source_bits(model, dict(zip(names, laid, strict=True)))
    assert found.loss == pytest.approx(nats(model.core, src, trg[:, :-1], trg[:, 1:]), rel=1e-5)
    assert "output t is compared with target t + 1" in found.understood


@pytest.mark.parametrize("time_first", [False, True])
def test_as_many_examples_as_tokens(time_first: bool, warned: Any) -> None:
    model, src, trg = Fed(time_first), words(TIME, TIME, 0), targets()
    trg = torch.cat((trg, trg[:1]))
    laid = [side.t() if time_first else side for side in (src, trg)]
    found = sourcewise.source_bits(model, tuple(laid))
    assert found.loss == pytest.approx(nats(model.core, src, trg[:, :-1], trg[:, 1:]), rel=1e-5)


def test_which_side_is_the_batch_may_not_be_told() -> None:
    with pytest.raises(RequestError, match="cannot be told"):
        sourcewise.source_bits(Fed(), (words(6, 6, 0), words(6, 6, 1)))


class Encoder(nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, src: Tensor) -> tuple[Tensor, Tensor]:
        return self.core.read(src), src


class Decoder(nn.Module):
    """PyTorch's tutorial: begins by itself, gives log-probabilities, a state and attention."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, outputs: Tensor, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor, None]:
        fed = torch.cat((torch.full((len(target), 1), SOS), target[:, :-1]), 1)
        return F.log_softmax(self.core(hidden, fed), -1), hidden, None


def test_an_encoder_and_a_decoder(warned: Any) -> None:
    core, src, trg = Core(), sources(), targets(start=False, padded=True)
    fed = torch.cat((torch.full((BATCH, 1), SOS), trg[:, :-1]), 1)
    found = sourcewise.source_bits((Encoder(core), Decoder(core)), (src, trg))
    labels = trg.masked_fill(trg == PAD, -100)
    assert found.loss == pytest.approx(nats(core, src, fed, labels), rel=1e-5)
    assert found.tokens.sum() == int((labels != -100).sum()) and "padding: not counted" in found.understood


class Annotated(nn.Module):
    """Hidden states out, a generator beside, masks in."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Core()
        self.generator = nn.Sequential(self.core.out, nn.LogSoftmax(-1))

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor, tgt_mask: Tensor) -> Tensor:
        assert src_mask.shape == (BATCH, 1, SLOTS) and tgt_mask is not None
        memory = (self.core.read(src) * src_mask.transpose(1, 2) * torch.arange(1, SLOTS + 1)[None, :, None]).mean(1)
        return torch.tanh(memory[:, None] + self.core.said(tgt))


def test_the_annotated_transformer(warned: Any) -> None:
    model, src, trg = Annotated(), sources(), targets()
    masks = {"src_mask": torch.ones(BATCH, 1, SLOTS), "tgt_mask": torch.ones(BATCH, TIME - 1, TIME - 1).tril()}
    batch = SimpleNamespace(src=src, tgt=trg[:, :-1], tgt_y=trg[:, 1:], **masks)
    found = sourcewise.source_bits(model, batch)
    assert found.loss == pytest.approx(nats(model.core, src, trg[:, :-1], trg[:, 1:]), rel=1e-5)


def test_a_transformer_of_torch(warned: Any) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(WORDS, 16, padding_idx=PAD)
            self.body = nn.Transformer(16, 2, 1, 1, 32)
            self.head = nn.Linear(16, WORDS)

        def forward(self, src: Tensor, trg: Tensor) -> Tensor:
            mask = nn.Transformer.generate_square_subsequent_mask(len(trg))
            return self.head(self.body(self.table(src), self.table(trg), tgt_mask=mask))  # type: ignore[no-any-return]

    model, src, trg = Own(), sources(), targets(padded=True)
    found = sourcewise.source_bits(model, {"src": src.t(), "trg": trg.t()})
    model.eval()
    logits = model(src.t(), trg.t()[:-1]).flatten(0, 1)
    expected = F.cross_entropy(logits, trg.t()[1:].flatten(), ignore_index=PAD)
    assert found.loss == pytest.approx(float(expected), rel=1e-4)


def test_a_decoder_that_sees_ahead_is_told() -> None:
    class Leaky(Fed):
        def forward(self, src: Tensor, tgt: Tensor) -> Tensor:  # type: ignore[override]
            return self.core(src, tgt) + self.core(src, tgt).mean(1, keepdim=True)  # type: ignore[no-any-return]

    with pytest.raises(RequestError, match="sees what it is to say"):
        sourcewise.source_bits(Leaky(), (sources(), targets()))


def test_forcing_that_is_drawn_or_absent_is_told() -> None:
    class Drawn(Seq2Seq):
        def forward(self, src: Tensor, trg: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(src, trg, 0.5)

    class Free(Seq2Seq):
        def forward(self, src: Tensor, trg: Tensor) -> Tensor:  # type: ignore[override]
            return self.core(src.t(), torch.full_like(trg, SOS).t()).transpose(0, 1)

    torch.manual_seed(0)
    with pytest.raises(RequestError, match="two calls give different outputs"):
        sourcewise.source_bits(Drawn(), (sources().t(), targets().t()))
    with pytest.raises(RequestError, match="ratio is to be 1"):
        sourcewise.source_bits(Free(), (sources().t(), targets().t()))


@pytest.mark.parametrize("batch", [[1], (1, 2, 3), {"text": 1}, {"src": 1, "trg": 2}, "text"])
def test_what_is_not_understood_is_told(batch: Any) -> None:
    with pytest.raises(RequestError, match="source_bits: "):
        sourcewise.source_bits(Fed(), batch)


def test_a_step_by_step_decoder_is_told() -> None:
    class Step(nn.Module):
        def forward(self, word: Tensor, hidden: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
            return memory

    with pytest.raises(RequestError, match=r"wants memory, which the batch lacks; understood: model\(src, trg\)"):
        sourcewise.source_bits(Step(), (sources(), targets()))


@pytest.mark.parametrize("of", [lambda x: x.softmax(-1), lambda x: x.softmax(-1).half(), lambda x: -x.log_softmax(-1)])
def test_probabilities_are_no_logits(of: Any) -> None:
    core = Core().eval()
    batch = {"source": sources(), "labels": targets()}

    def model(given: dict[str, Tensor]) -> Tensor:
        return of(core(given["source"], given["labels"].roll(1, 1)))  # type: ignore[no-any-return]

    with pytest.raises(RequestError, match=r"probabilities .*logits"):
        sourcewise.source_bits(model, batch)


def test_log_probabilities_and_logits_give_the_same() -> None:
    core = Core().eval()
    batch = {"source": sources(), "labels": targets()}
    found = [
        sourcewise.source_bits(lambda given, of=of: of(core(given["source"], given["labels"].roll(1, 1))), batch)
        for of in (lambda x: x, lambda x: x.log_softmax(-1), lambda x: 3 + x)
    ]
    assert found[0].loss == pytest.approx(found[1].loss) == pytest.approx(found[2].loss)
    assert found[0].understood == ""


def test_time_first_under_the_name_of_labels_is_told() -> None:
    core = Core().eval()
    src, trg = words(TIME, TIME, 0), torch.cat((targets(), targets()[:1]))

    def model(given: dict[str, Tensor]) -> Tensor:
        return core(given["source"].t(), given["labels"].t().roll(1, 1)).transpose(0, 1)

    with pytest.raises(RequestError, match=r"\(time, batch\)"):
        sourcewise.source_bits(model, {"source": src.t(), "labels": trg.t()})


@pytest.mark.parametrize("pad", [0, 9])
def test_padding_among_labels_is_left_out_and_told(pad: int, warned: Any) -> None:
    core = Core().eval()
    core.pad_token_id = pad
    trg = targets(start=False, padded=True)
    trg = trg.where(trg != 9, 8).where(trg != PAD, pad) if pad else trg

    def call(given: dict[str, Tensor]) -> Tensor:
        return core(given["source"], given["labels"].roll(1, 1))  # type: ignore[no-any-return]

    model: Any = type("Function", (), {"__call__": lambda self, given: call(given), "pad_token_id": pad})()
    found = sourcewise.source_bits(model, {"source": sources(), "labels": trg})
    masked = trg.masked_fill(trg == pad, -100)
    assert found.tokens.sum() == int((masked != -100).sum()) < trg.numel()
    assert found.loss == pytest.approx(nats(core, sources(), trg.roll(1, 1), masked), rel=1e-5)


def test_an_end_that_is_the_padding_counts_once(warned: Any) -> None:
    trg = targets(start=False, padded=True)
    trg = trg.where(trg != EOS, PAD)
    trg[:, -1] = PAD
    found = sourcewise.source_bits(lambda given: torch.zeros(*trg.shape, WORDS), {"source": sources(), "labels": trg})
    assert found.tokens.tolist() == [4, 5, 6, 4, 5] and found.loss == pytest.approx(math.log(WORDS))


def test_ends_that_may_be_padding_are_told(warned: Any) -> None:
    trg = targets(start=False)
    trg[:3, -3:] = 10
    found = sourcewise.source_bits(lambda given: torch.zeros(*trg.shape, WORDS), {"source": sources(), "labels": trg})
    assert found.tokens.sum() == trg.numel() and "if they are padding, give -100" in found.understood


def test_decoder_inputs_that_are_the_labels_are_told() -> None:
    trg = targets()
    batch = {"input_ids": sources(), "labels": trg, "decoder_input_ids": trg}
    with pytest.raises(RequestError, match="decoder_input_ids are the labels"):
        sourcewise.source_bits(lambda given: torch.zeros(*trg.shape, WORDS), batch)


def test_hidden_states_are_no_logits() -> None:
    batch = {"source": sources(), "labels": targets()}
    with pytest.raises(RequestError, match="labels reach 10, but outputs have 4"):
        sourcewise.source_bits(lambda given: torch.zeros(BATCH, TIME, 4), batch)
