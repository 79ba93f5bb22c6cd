"""Run by torchrun in several processes: trains the recipes that are named, one after another."""

from __future__ import annotations

import sys

import torch

import sourcewise

if __name__ == "__main__":
    for path in sys.argv[1:]:
        torch.manual_seed(int(path != sys.argv[1]))  # whatever happened before must not matter
        sourcewise.train(path)
