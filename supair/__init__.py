"""SuPAIR: scenes understood with sum-product networks (Stelzner, Peharz & Kersting, ICML 2019)."""

import os
import sys

if sys.argv[0] == "-m":  # `python -m supair`: TensorFlow's start-up messages do not belong on a user's screen
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from supair.config import (
    ConfigError,
    ModelConfig,
    SpnConfig,
    TrainingConfig,
    TrainingError,
    WarmUp,
    background_spn,
    object_spn,
    paper_model,
    robust_model,
    robust_training,
)
from supair.distribution import choose_strategy
from supair.model import Elbo, Evaluation, SuPAIR
from supair.scenes import InMemoryScenes
from supair.training import Convergence, Run, train

__all__ = [
    "ConfigError",
    "Convergence",
    "Elbo",
    "Evaluation",
    "InMemoryScenes",
    "ModelConfig",
    "Run",
    "SpnConfig",
    "SuPAIR",
    "TrainingConfig",
    "TrainingError",
    "WarmUp",
    "background_spn",
    "choose_strategy",
    "object_spn",
    "paper_model",
    "robust_model",
    "robust_training",
    "train",
]
