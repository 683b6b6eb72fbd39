"""What can be trained, and what the paper published about it (Tables 1 and 2, Figure 5).

Imports no TensorFlow.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data import DATASETS, SIZES
from supair import config as presets
from supair.run import read_configuration, read_rows, require_configuration

PAPER_SEEDS = (0, 1, 2, 3, 4)  # five runs of everything, as in the paper
RECIPES = ("paper", "robust")
DATA_SEED = 0  # all runs see the same scenes


class Model(NamedTuple):
    """One of the models that are compared; the defaults are SuPAIR's."""

    title: str
    recipes: Mapping[str, presets.TrainingConfig] = presets.SUPAIR_RECIPES
    changes: Mapping[str, Any] = {}  # to the configuration; a mapping changes a part of it
    class_name: str = "model.SuPAIR"  # in the package supair
    configurations: Mapping[str, Any] = presets.PAPER_MODELS  # by data set
    convergence: presets.Convergence = presets.Convergence()


_PAPER = {"paper": presets.SUPAIR_RECIPES["paper"]}
_RECTANGLES = {
    "object": {"structure": "poon_domingos"},
    "background": {"structure": "poon_domingos", "depth": 2},
}
_AIR = {
    "recipes": presets.AIR_RECIPES,
    "class_name": "air.AIR",
    "configurations": dict.fromkeys(DATASETS, presets.AirConfig()),
    "convergence": presets.Convergence(window=10, max_epochs=presets.AIR_EPOCHS),
}
MODELS = {
    "supair": Model("SuPAIR"),
    "supair_no_background": Model("SuPAIR w/o bg", changes={"background": None}),
    "supair_poon_domingos": Model("SuPAIR, Poon-Domingos", _PAPER, _RECTANGLES),
    "supair_exact": Model("SuPAIR, exact", class_name="extensions.exact.ExactSuPAIR"),
    "air": Model("AIR", **_AIR),
    "air_linear": Model("AIR, linear heads", changes={"head_units": 0}, **_AIR),
}
TITLES = {
    "multi_mnist": "Multi-MNIST",
    "sprites": "Sprites",
    "noisy_mnist": "Noisy-MNIST",
    "grid_mnist": "Grid-MNIST",
    "multi_mnist_3": "Multi-MNIST, 0-3 digits, N_max 4",
    "multi_mnist_80": "80 × 80 pixels, 0-4 digits, N_max 6",
    **{name: model.title for name, model in MODELS.items()},
    "best_view": "SuPAIR, best view",
}


class Published(NamedTuple):
    """What Table 2 says of a model on a data set."""

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
# Count accuracy where the curves of Figure 5 end, by `DATASETS`, read off it.
FIGURE_5_ENDS = {
    "supair": (0.983, 0.992, 0.937, 0.966),
    "supair_no_background": (0.976, 0.976, 0.0, 0.0),
    "air": (0.94, 0.92, 0.0, 0.0),
}
# Trained parameters of each part.
TABLE_1_PARTS = ("Inference network", "Object model", "Background model", "Baselines", "Total")
TABLE_1 = {
    "supair": (2_836_477, 286_560, 90_108, 0, 3_213_145),
    "air": (2_879_488, 344_884, 0, 2_879_745, 6_104_117),
}


def title(model: str, recipe: str) -> str:
    """A model's name, with its recipe's if that is not the paper's."""
    name = TITLES.get(model, model)  # a recorded one may be gone
    return name if recipe == "paper" else f"{name}, {recipe}"


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    parts = {name: value for name, value in changes.items() if isinstance(value, Mapping)}
    parts = {name: _changed(getattr(config, name), value) for name, value in parts.items()}
    return dataclasses.replace(config, **{**changes, **parts})


@dataclass(frozen=True)
class Experiment:
    """One run of one model on one data set: everything that its folder depends on."""

    model: str
    dataset: str
    recipe: str
    seed: int

    @property
    def path(self) -> str:
        """Where the run is, below the folder of all runs."""
        return f"{self.model}/{self.dataset}/{self.recipe}/seed{self.seed}"

    @property
    def title(self) -> str:
        return f"{title(self.model, self.recipe)}, {TITLES[self.dataset]}, seed {self.seed}"

    @property
    def steps_per_epoch(self) -> int:
        return SIZES[self.dataset][0] // self.training_config().batch_size

    def model_config(self) -> presets.ModelConfig | presets.AirConfig:
        model = MODELS[self.model]
        return _changed(model.configurations[self.dataset], model.changes)

    def training_config(self) -> presets.TrainingConfig:
        return dataclasses.replace(MODELS[self.model].recipes[self.recipe], seed=self.seed)

    def identity(self, checksum: str) -> dict[str, Any]:
        """What `config.json` holds beside the configurations; `checksum` is the data's."""
        names = {"model": self.model, "dataset": self.dataset, "recipe": self.recipe}
        return {"experiment": names, "data": {"seed": DATA_SEED, "checksum": checksum}}

    def configuration(self, checksum: str) -> dict[str, Any]:
        """What the run's `config.json` holds."""
        name = MODELS[self.model].class_name.rpartition(".")[2]
        how = self.model_config(), self.training_config(), self.identity(checksum)
        return presets.resolve(name, *how)

    def read_rows(self, runs: Path, with_tensors: bool = False) -> list[dict[str, Any]]:
        """The log of the run below `runs`, as `supair.run.read_rows` gives it.

        Raises:
          TrainingError: if it is damaged, or another run's (its data's checksum is not compared).
        """
        folder = runs / self.path
        if rows := read_rows(folder, with_tensors):
            checksum = read_configuration(folder).get("data", {}).get("checksum")
            require_configuration(folder, self.configuration(checksum))
        return rows

    @property
    def weights(self) -> Path:
        """Where trained weights of one seed are, below the folder `pretrained`."""
        return Path(self.model.removeprefix("supair"), self.dataset)

    def build(self) -> Any:
        """The model with its initial weights."""
        module, _, name = f"supair.{MODELS[self.model].class_name}".rpartition(".")
        return getattr(importlib.import_module(module), name)(self.model_config(), self.seed)
