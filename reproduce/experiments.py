"""The experiments: what can be trained, and what the paper published about it (Tables 1 and 2, Figure 5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from data import SIZES
from supair.air import AIR
from supair.config import (
    AIR_EPOCHS,
    AirConfig,
    ModelConfig,
    TrainingConfig,
    air_training,
    paper_model,
    robust_air,
    robust_model,
    robust_training,
    table1_air,
)
from supair.model import SuPAIR
from supair.training import Convergence

RECIPES = ("paper", "robust")  # as the paper trains, and so that more seeds learn


class Model(NamedTuple):
    """One of the models that the paper compares."""

    title: str
    build: type  # called with a configuration and a seed
    recipes: dict[str, Callable[[str], ModelConfig | AirConfig]]  # configurations by the data set's name
    training: dict[str, Callable[[int], TrainingConfig]]  # by the recipe, and the seed
    convergence: Convergence  # when a run counts as converged
    # For estimates of time: the epoch at which a run usually has converged, and the GFLOP of a large matrix product
    # that take as long as a training step (benchmark.py on two CPU cores).
    usual_epochs: int
    step_gflop: float


def _supair(title: str, step_gflop: float, robust: bool = False, fields: dict | None = None, **changes) -> Model:
    """A variant of SuPAIR: other arguments of `paper_model`, or other fields of what it gives."""
    recipes = {"paper": lambda dataset: dataclasses.replace(paper_model(dataset, **changes), **(fields or {}))}
    if robust:
        recipes["robust"] = lambda dataset: dataclasses.replace(robust_model(dataset), **(fields or {}))
    training = {"paper": lambda seed: TrainingConfig(seed=seed), "robust": robust_training}
    return Model(title, SuPAIR, recipes, training, Convergence(), 45, step_gflop)


def _air(title: str, recipes: dict[str, Callable[[str], AirConfig]]) -> Model:
    training = dict.fromkeys(recipes, air_training)
    return Model(title, AIR, recipes, training, Convergence(window=10, max_epochs=AIR_EPOCHS), 60, 5.0)


MODELS = {
    "supair": _supair("SuPAIR", 18.0, robust=True),
    "supair_no_background": _supair("SuPAIR w/o bg", 15.5, background=False),
    "supair_poon_domingos": _supair("SuPAIR, Poon-Domingos", 25.0, structure="poon_domingos"),
    "supair_exact": _supair("SuPAIR, exact", 22.0, robust=True, fields={"downsampling": "exact"}),
    "supair_upper_left": _supair("SuPAIR, begins upper left", 18.0, fields={"position_bias": -3.0}),
    "supair_per_step": _supair("SuPAIR, SPN per step", 22.0, fields={"object_models": "per_step"}),
    "supair_mixture": _supair("SuPAIR, mixture of SPNs", 40.0, fields={"object_models": "mixture"}),
    "air": _air("AIR", {"paper": lambda dataset: AirConfig(), "robust": lambda dataset: robust_air()}),
    "air_linear": _air("AIR, linear heads", {"paper": lambda dataset: table1_air()}),
}
TITLES = {
    "multi_mnist": "Multi-MNIST",
    "sprites": "Sprites",
    "noisy_mnist": "Noisy-MNIST",
    "grid_mnist": "Grid-MNIST",
    "multi_mnist_3": "Multi-MNIST, 0-3 digits, N_max 4",
    "multi_mnist_80": "80 × 80 pixels, 0-4 digits, N_max 6",
    **{name: model.title for name, model in MODELS.items()},
}
PAPER_SEEDS = (0, 1, 2, 3, 4)  # five runs of everything, as in the paper


def title(model: str, recipe: str) -> str:
    """A model's name with its recipe's, if that is not the paper's."""
    return TITLES[model] if recipe == "paper" else f"{TITLES[model]}, {recipe}"


class Published(NamedTuple):
    """A row of Table 2."""

    accuracy: float  # count accuracy on the test set, in [0, 1]
    elbo: float  # nats a scene


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

# Count accuracy where the curves of Figure 5 end: SuPAIR's as in Table 2, the others read off the figure.
FIGURE_5_ENDS = {
    **{key: published.accuracy for key, published in TABLE_2.items() if key[0] == "supair"},
    ("supair_no_background", "multi_mnist"): 0.97,
    ("supair_no_background", "sprites"): 0.97,
    ("supair_no_background", "noisy_mnist"): 0.0,
    ("supair_no_background", "grid_mnist"): 0.0,
    ("air", "multi_mnist"): 0.94,
    ("air", "sprites"): 0.92,
    ("air", "noisy_mnist"): 0.0,
    ("air", "grid_mnist"): 0.0,
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

    @property
    def title(self) -> str:
        return f"{title(self.model, self.recipe)}, {TITLES[self.dataset]}, seed {self.seed}"

    def model_config(self) -> ModelConfig | AirConfig:
        return MODELS[self.model].recipes[self.recipe](self.dataset)

    def training_config(self) -> TrainingConfig:
        return MODELS[self.model].training[self.recipe](self.seed)

    @property
    def steps_per_epoch(self) -> int:
        return SIZES[self.dataset][0] // self.training_config().batch_size

    def build(self, config: ModelConfig | AirConfig | None = None) -> SuPAIR | AIR:
        """The model with its initial weights, by default in the experiment's own configuration."""
        return MODELS[self.model].build(config or self.model_config(), self.seed)
