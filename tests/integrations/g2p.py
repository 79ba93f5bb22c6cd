"""The network that g2p-en ships, from letters to phones, in torch modules: trained by others, on CMUdict.

Its weights are read from the installed package's numpy file, its equations are those of its `g2p.py`. The package
itself is never imported: that would need nltk and its data.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
PAD, END, START, STOP = 0, 2, 2, 3  # of letters; of phones
_SAID = """
AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2
F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH
"""
PHONES = ["<pad>", "<unk>", "<s>", "</s>", *_SAID.split()]


def folder() -> Path | None:
    """Where the package lies; None where it is not installed."""
    found = importlib.util.find_spec("g2p_en")
    return None if found is None or found.origin is None else Path(found.origin).parent


class Encoder(nn.Module):
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.emb, self.gru = _embedding(weights["enc_emb"]), _gru(weights, "enc")

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        """(batch, time) → the state (1, batch, 256) behind the last letter of each."""
        packed = nn.utils.rnn.pack_padded_sequence(self.emb(letters), lengths, batch_first=True, enforce_sorted=False)
        return self.gru(packed)[1]  # type: ignore[no-any-return]


class Decoder(nn.Module):
    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.emb, self.gru = _embedding(weights["dec_emb"]), _gru(weights, "dec")
        self.fc = nn.Linear(weights["fc_w"].shape[1], len(PHONES))
        self.fc.load_state_dict({"weight": _of(weights["fc_w"]), "bias": _of(weights["fc_b"])})

    def forward(self, phones: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, time) → logits (batch, time, phones), and the state."""
        out, state = self.gru(self.emb(phones), state)
        return self.fc(out), state


class G2P(nn.Module):
    """`zeroed`: the decoder begins with zeros; `flip`: letters are read from the last to the first."""

    def __init__(self, file: Path, *, zeroed: bool = False, flip: bool = False) -> None:
        super().__init__()
        with np.load(file) as stored:  # arrays alone: nothing is unpickled
            weights = {name: stored[name] for name in stored.files}
        self.encoder, self.decoder = Encoder(weights), Decoder(weights)
        self.zeroed, self.flip = zeroed, flip

    def encode(self, src: Tensor) -> Tensor:
        lengths = (src != PAD).sum(1).cpu()
        if self.flip:
            words = [torch.cat((row[: n - 1].flip(0), row[n - 1 :])) for row, n in zip(src, lengths, strict=True)]
            src = torch.stack(words)
        state: Tensor = self.encoder(src, lengths)
        return torch.zeros_like(state) if self.zeroed else state

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        """Logits for trg[:, 1:], the true phones before each."""
        logits: Tensor = self.decoder(trg[:, :-1], self.encode(src))[0]
        return logits

    @torch.no_grad()
    def generate(self, src: Tensor, most: int = 20) -> Tensor:
        """Greedily, as the package's `predict`."""
        state, token = self.encode(src), torch.full((len(src), 1), START)
        said = []
        for _ in range(most):
            logits, state = self.decoder(token, state)
            token = logits[:, -1:].argmax(-1)
            said.append(token)
        return torch.cat(said, 1)


def words(found: Path) -> list[tuple[str, str]]:
    """Words and their phones, of the package's own table of homographs: the reading as a verb, say."""
    rows = [line.split("|") for line in (found / "homographs.en").read_text("utf-8").splitlines() if "|" in line]
    rows = [row for row in rows if len(row) == 4 and not row[0].startswith("#")]
    known = set(PHONES)
    return [(r[0].lower(), r[1]) for r in rows if r[0].isalpha() and set(r[1].split()) <= known]


def batch(pairs: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Letters with </s> behind, phones between <s> and </s>, both padded with zeros."""
    letters = [torch.tensor([*(LETTERS.index(c) for c in word), END]) for word, _ in pairs]
    phones = [torch.tensor([START, *(PHONES.index(p) for p in said.split()), STOP]) for _, said in pairs]
    pad = nn.utils.rnn.pad_sequence
    return pad(letters, batch_first=True), pad(phones, batch_first=True)


def _embedding(table: np.ndarray) -> nn.Embedding:
    return nn.Embedding.from_pretrained(_of(table), freeze=False)


def _gru(weights: dict[str, np.ndarray], side: str) -> nn.GRU:
    made = nn.GRU(*weights[f"{side}_emb"].shape[1:], weights[f"{side}_w_hh"].shape[1], batch_first=True)
    made.load_state_dict({f"{n}_l0": _of(weights[f"{side}_{s}"]) for n, s in NAMES})
    return made


NAMES = (("weight_ih", "w_ih"), ("weight_hh", "w_hh"), ("bias_ih", "b_ih"), ("bias_hh", "b_hh"))


def _of(table: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(table, dtype=np.float32))
