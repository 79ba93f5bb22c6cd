"""A trained model that nobody here made: the GRU that the package g2p-en ships, from letters to phones.

The package needs nltk and more that no other test does, so it is not among the development extras:
`pip install --no-deps g2p-en==2.1.0` brings its weights.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import sourcewise
from sourcewise.diagnosis.answer import Diagnosis
from tests.integrations import g2p

FOLDER = g2p.folder()
pytestmark = pytest.mark.skipif(FOLDER is None, reason="no trained weights: pip install --no-deps g2p-en==2.1.0")
HELD_OUT = 96


def model(fault: str = "") -> g2p.G2P:
    assert FOLDER is not None
    made = g2p.G2P(FOLDER / "checkpoint20.npz", zeroed=fault == "zeroed", flip=fault == "backwards")
    if fault == "permuted":
        with torch.no_grad():
            rows = made.encoder.emb.weight
            rows[3:] = rows[3:][torch.randperm(26, generator=torch.Generator().manual_seed(0))]
    return made


def pairs() -> list[tuple[str, str]]:
    assert FOLDER is not None
    return g2p.words(FOLDER)


def looked_at(made: g2p.G2P) -> tuple[Diagnosis, dict[str, Any], str]:
    """A few careful steps more of its training, watched, and an evaluation."""
    words = pairs()
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-4)
    doctor = sourcewise.doctor(made, optimizer, generate=lambda batch: made.generate(batch[0]))
    for at in range(0, len(words) - HELD_OUT - 24, 24):
        batch = g2p.batch(words[at : at + 24])
        logits = made(*batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch[1][:, 1:].flatten(), ignore_index=g2p.PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, batch)
    rest = words[-HELD_OUT:]
    figures = doctor.evaluate([g2p.batch(rest[at : at + 24]) for at in range(0, HELD_OUT, 24)])
    assert doctor.understood is not None
    return doctor.diagnosis, figures, doctor.understood.words


def test_it_is_the_packages_own() -> None:
    """As its `predict`, computed by its own numpy functions."""
    assert FOLDER is not None
    made, found = model(), FOLDER / "g2p.py"
    source = found.read_text("utf-8")
    namespace: dict[str, Any] = {"np": __import__("numpy")}
    functions = source[source.index("    def sigmoid") : source.index("    def __call__")]
    exec("class Own:\n" + functions, namespace)
    own = namespace["Own"]()
    stored = namespace["np"].load(FOLDER / "checkpoint20.npz")
    vars(own).update({name: stored[name] for name in stored.files})
    own.g2idx, own.idx2p = {g: i for i, g in enumerate(g2p.LETTERS)}, dict(enumerate(g2p.PHONES))
    for word in ("activationist", "zebra", "abstract", "encoder"):
        said = made.generate(g2p.batch([(word, "")])[0])[0].tolist()
        ids = said[: said.index(g2p.STOP)] if g2p.STOP in said else said
        assert [g2p.PHONES[i] for i in ids] == own.predict(word)


def test_it_reads_its_source_and_is_healthy() -> None:
    diagnosis, figures, words = looked_at(model())
    assert diagnosis.verdict == "healthy" and not [f for f in diagnosis.findings if f.level != "note"]
    assert figures["source_bits"] > 5 and figures["loss"] < 0.5 and figures["unique_pct"] > 85
    assert words.startswith("source is 0") and "labels are 1[:, 1:]" in words and "padding is 0, not counted" in words
    assert sourcewise.source_bits(model(), g2p.batch(pairs()[:HELD_OUT])).bits == pytest.approx(7.5, abs=0.1)


def test_a_state_that_is_zeroed_is_named() -> None:
    diagnosis, figures, _ = looked_at(model("zeroed"))
    assert diagnosis.cause == "WIR028" and figures["source_bits"] == 0


def test_letters_that_are_read_backwards_are_named() -> None:
    diagnosis, figures, _ = looked_at(model("backwards"))
    assert diagnosis.verdict == "ill" and diagnosis.cause == "SRC004"
    assert figures["loss"] > 5


def test_permuted_rows_are_named() -> None:
    """As a note first: after eleven steps nobody can say whether a training has just begun on something new."""
    diagnosis, figures, _ = looked_at(model("permuted"))
    assert diagnosis.verdict == "undecided" and diagnosis.findings[0].code == "SRC005"
    assert figures["loss"] > 9


def test_what_each_phone_was_read_from() -> None:
    """Another letter changes the phones from its place on, hardly those before."""
    made, word = model(), "abstract"
    said = g2p.batch([(word, "AE0 B S T R AE1 K T")])[1]
    with torch.no_grad():
        usual = torch.log_softmax(made(g2p.batch([(word, "")])[0], said), -1)
        moved = []
        for place in (1, 6):  # b, c
            other = word[:place] + "m" + word[place + 1 :]
            logs = torch.log_softmax(made(g2p.batch([(other, "")])[0], said), -1)
            moved.append((usual - logs).gather(-1, said[:, 1:, None])[0, :, 0])
    assert int(moved[0].argmax()) in (0, 1, 2) and int(moved[1].argmax()) in (5, 6, 7)
