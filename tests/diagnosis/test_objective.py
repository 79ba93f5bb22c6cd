"""What a loss takes outputs for, where a model has learned nearly all: most labels are all but certain."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sourcewise.diagnosis.measures.objective import said_by


@pytest.mark.parametrize("sure", [0.0, 8.0, 16.0, 30.0])
@pytest.mark.parametrize("kind", ["logits", "log-probabilities"])
def test_labels_that_are_all_but_certain(sure: float, kind: str) -> None:
    torch.manual_seed(0)
    labels = torch.randint(0, 20, (8, 6))
    out = torch.randn(8, 6, 20)
    out[1:] += sure * F.one_hot(labels[1:], 20)  # all but the first row
    out = (out if kind == "logits" else torch.log_softmax(out, -1)).requires_grad_()
    loss = F.cross_entropy if kind == "logits" else F.nll_loss
    loss(out.reshape(-1, 20), labels.reshape(-1)).backward()
    assert out.grad is not None
    said = said_by(out.detach(), out.grad)
    assert said is not None and said.form == kind
    assert torch.equal(said.labels[said.counts], labels[said.counts])
