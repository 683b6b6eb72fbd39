"""The experiments: what can be trained, and what the paper published about it (Tables 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from supair.air import AIR
from supair.config import AIR_EPOCHS, AirConfig, ModelConfig, TrainingConfig, air_training, paper_model
from supair.model import SuPAIR
from supair.training import Convergence


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
    "air": "AIR",
}
MODELS = {"supair": SuPAIR, "air": AIR}
RECIPES = ("paper",)

# When a run counts as converged. AIR's bound spans some 100 nats where SuPAIR's spans thousands.
CONVERGENCE = {"supair": Convergence(), "air": Convergence(window=10, gain=1.0, max_epochs=AIR_EPOCHS)}

# A training step takes about as long as this many GFLOP of a large matrix product (benchmark.py on two CPU cores).
STEP_GFLOP = {"supair": 18.0, "air": 4.5}

TABLE_2 = {
    ("supair", "multi_mnist"): Published(0.983, 4923),
    ("supair", "sprites"): Published(0.992, 5022),
    ("supair", "noisy_mnist"): Published(0.938, 1047),
    ("supair", "grid_mnist"): Published(0.975, 3564),
    ("air", "multi_mnist"): Published(0.947, 615),
    ("air", "sprites"): Published(0.959, 685),
    ("air", "noisy_mnist"): Published(0.0, 232),
    ("air", "grid_mnist"): Published(0.0, 228),
}

TABLE_1 = {
    "supair": {
        "Inference network": 2_836_477,
        "Object model": 286_560,
        "Background model": 90_108,
        "Baselines": 0,
        "Total": 3_213_145,
    },
    "air": {
        "Inference network": 2_879_488,
        "Object model": 344_884,
        "Background model": 0,
        "Baselines": 2_879_745,
        "Total": 6_104_117,
    },
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

    def model_config(self) -> ModelConfig | AirConfig:
        return AirConfig() if self.model == "air" else paper_model(self.dataset)

    def training_config(self) -> TrainingConfig:
        return air_training(self.seed) if self.model == "air" else TrainingConfig(seed=self.seed)

    def build(self, config: ModelConfig | AirConfig | None = None) -> SuPAIR | AIR:
        """The model with its initial weights, by default in the experiment's own configuration."""
        return MODELS[self.model](config or self.model_config(), self.seed)
