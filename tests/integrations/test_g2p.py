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


def looked_at(made: g2p.G2P, *, trained: bool = False) -> tuple[Diagnosis, dict[str, Any], str]:
    """A few careful steps more of its training, watched, and an evaluation."""
    doctor, figures = watched(made, trained=trained)
    assert doctor.understood is not None
    return doctor.diagnosis, figures, doctor.understood.words


def watched(made: g2p.G2P, *, trained: bool) -> tuple[Any, dict[str, Any]]:
    words = pairs()
    optimizer = torch.optim.SGD(made.parameters(), lr=1e-4)
    doctor = sourcewise.doctor(made, optimizer, generate=lambda batch: made.generate(batch[0]), trained=trained)
    for at in range(0, len(words) - HELD_OUT - 24, 24):
        batch = g2p.batch(words[at : at + 24])
        logits = made(*batch)
        loss = F.cross_entropy(logits.flatten(0, 1), batch[1][:, 1:].flatten(), ignore_index=g2p.PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, batch)
    rest = words[-HELD_OUT:]
    return doctor, doctor.evaluate([g2p.batch(rest[at : at + 24]) for at in range(0, HELD_OUT, 24)])


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


@pytest.mark.parametrize(("fault", "cause"), [("", None), ("permuted", "SRC005"), ("zeroed", "WIR028")])
def test_a_finished_model_is_judged_at_once(fault: str, cause: str | None) -> None:
    diagnosis, _, _ = looked_at(model(fault), trained=True)
    assert (diagnosis.verdict, diagnosis.cause) == ("ill" if cause else "healthy", cause)


def test_what_each_phone_was_read_from() -> None:
    """A network without attention: each phone is read from the letters at its place."""
    doctor, _ = watched(model(), trained=True)
    said = [("abstract", "AE0 B S T R AE1 K T"), ("zebra", "Z IY1 B R AH0"), ("public", "P AH1 B L IH0 K")]
    abstract, zebra, public = doctor.trace(g2p.batch(said))
    assert [abs(place - own) <= 1 for own, place in enumerate(abstract.most[:8])].count(False) <= 1
    assert zebra.most[2] == 2 and zebra.most[0] == 0 and public.most[:3] == [0, 1, 2]  # b; z; p, u, b
    assert float(abstract.nats.max()) > 5 and abstract.nats.shape == (9, 9)
    assert str(zebra).splitlines()[0].startswith(f"{zebra.target[0]} read from {zebra.source[0]} at 0: ")
