"""SuPAIR: scenes understood with sum-product networks (Stelzner, Peharz & Kersting, ICML 2019)."""

from supair.config import (
    ConfigError,
    ModelConfig,
    SpnConfig,
    TrainingConfig,
    WarmUp,
    background_spn,
    object_spn,
    paper_model,
    robust_model,
)
from supair.model import Elbo, Evaluation, SuPAIR
from supair.scenes import InMemoryScenes
from supair.training import Convergence, Run, TrainingError, train

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
    "object_spn",
    "paper_model",
    "robust_model",
    "train",
]
