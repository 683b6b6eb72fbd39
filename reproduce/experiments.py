"""The experiments: what can be trained, and what the paper published about it (Tables 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from supair.config import ModelConfig, paper_model


class Published(NamedTuple):
    """A row of Table 2."""

    accuracy: float  # count accuracy on the test set, in [0, 1]
    elbo: float  # nats a scene


TITLES = {
    "multi_mnist": "Multi-MNIST",
    "sprites": "Sprites",
    "noisy_mnist": "Noisy-MNIST",
    "grid_mnist": "Grid-MNIST",
    "supair": "SuPAIR",
}
MODELS = ("supair",)
RECIPES = ("paper",)

TABLE_2 = {
    ("supair", "multi_mnist"): Published(0.983, 4923),
    ("supair", "sprites"): Published(0.992, 5022),
    ("supair", "noisy_mnist"): Published(0.938, 1047),
    ("supair", "grid_mnist"): Published(0.975, 3564),
}

TABLE_1 = {
    "supair": {
        "Inference network": 2_836_477,
        "Object model": 286_560,
        "Background model": 90_108,
        "Baselines": 0,
        "Total": 3_213_145,
    }
}


@dataclass(frozen=True)
class Experiment:
    """One run of one model on one data set: everything the run's directory depends on."""

    model: str
    dataset: str
    recipe: str
    seed: int

    @property
    def path(self) -> str:
        """Where the run lives below the runs directory."""
        return f"{self.model}/{self.dataset}/{self.recipe}/seed{self.seed}"

    def model_config(self) -> ModelConfig:
        return paper_model(self.dataset)
