"""SuPAIR: scenes understood with sum-product networks (Stelzner, Peharz & Kersting, ICML 2019)."""

import os
import sys
from importlib import import_module

__version__ = "0.1.0"
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever it or keras.json says
elif (backend := sys.modules["keras"].config.backend()) != "tensorflow":
    raise ImportError(f"supair needs Keras with TensorFlow, not {backend}; import supair first")

# Names are imported when they are asked for, as TensorFlow takes seconds.
_NAMES = {
    "config": "AirConfig Convergence ModelConfig SpnConfig TrainingConfig WarmUp "
    "PAPER_MODELS SUPAIR_RECIPES background_spn object_spn ConfigError TrainingError",
    "scenes": "InMemoryScenes",
    "model": "SuPAIR",
    "air": "AIR",
    "training": "train",
    "detect.load": "load",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
