"""Generation in a program that has threads of its own: workers are forked beside them, and come to an end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sourcewise
from tests.commands import ENVIRONMENT
from tests.training.recipes import recipe

PROGRAM = """
import logging, sys, threading
import torch
import sourcewise

torch.set_num_threads(2)
model = sourcewise.load(sys.argv[1])
texts = ["ba do ki", "lu me", "no ba", "do do ki lu"] * 40
alone = model.generate(texts, beams=1, max_new_tokens=8)
done, lock = threading.Event(), threading.Lock()

def busy(number):
    own = torch.randn(64, 64, requires_grad=True)
    while not done.is_set():
        with lock:
            logging.getLogger("host").warning("%s", float((own @ own).sum().detach()))
        (own @ own).sum().backward()
        done.wait(0.002)

logging.basicConfig(stream=open("/dev/null", "w"))
threads = [threading.Thread(target=busy, args=(i,)) for i in range(3)]
for thread in threads:
    thread.start()
try:
    beside = [model.generate(texts, beams=1, max_new_tokens=8) for _ in range(2)]
    measured = sourcewise.evaluate(model, sys.argv[2]).metrics["examples"]
finally:
    done.set()
    for thread in threads:
        thread.join()
print("same" if all(each == alone for each in beside) and measured == 24 else "other")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
def test_generation_beside_busy_threads_ends_and_says_the_same(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=2, train__evaluate_every=2))
    words = [sys.executable, "-c", PROGRAM, str(run.folder), str(tmp_path / "valid.tsv")]
    done = subprocess.run(words, env=ENVIRONMENT, text=True, capture_output=True, timeout=120)
    assert done.stdout.strip() == "same", done.stderr
