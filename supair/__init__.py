"""SuPAIR: scenes understood with sum-product networks (Stelzner, Peharz & Kersting, ICML 2019)."""

from supair.config import ConfigError, ModelConfig, SpnConfig, TrainingConfig, background_spn, object_spn, paper_model
from supair.model import Elbo, Evaluation, SuPAIR
from supair.scenes import InMemoryScenes
from supair.training import Convergence, Run, TrainingError

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
    "background_spn",
    "object_spn",
    "paper_model",
]
