"""Every option of a recipe, typed, checked and documented once.

A recipe is a YAML file with the sections below; `--section.key value` on the command line sets the same
keys. Nothing here imports torch, so that reading a recipe is instant.
"""

from __future__ import annotations

from sourcewise.config.compare import CompareConfig
from sourcewise.config.data import ChatConfig, DataConfig, DatasetConfig
from sourcewise.config.evaluation import EvaluationConfig
from sourcewise.config.model import BridgeConfig, FeatureEncoderConfig, ModelConfig
from sourcewise.config.options import Options
from sourcewise.config.recipe import GenerationConfig, Recipe
from sourcewise.config.training import (
    AugmentConfig,
    LoraConfig,
    SubwordSamplingConfig,
    TextNoiseConfig,
    TrainConfig,
    UnfreezeConfig,
)

__all__ = [
    "AugmentConfig",
    "BridgeConfig",
    "ChatConfig",
    "CompareConfig",
    "DataConfig",
    "DatasetConfig",
    "EvaluationConfig",
    "FeatureEncoderConfig",
    "GenerationConfig",
    "LoraConfig",
    "ModelConfig",
    "Options",
    "Recipe",
    "SubwordSamplingConfig",
    "TextNoiseConfig",
    "TrainConfig",
    "UnfreezeConfig",
]
