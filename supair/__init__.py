"""SuPAIR: scenes understood with sum-product networks (Stelzner, Peharz & Kersting, ICML 2019)."""

import os
import sys
from importlib import import_module

__version__ = "0.1.0"
if "keras" not in sys.modules:
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever it or keras.json says
elif (backend := sys.modules["keras"].config.backend()) != "tensorflow":
    raise ImportError(f"supair needs Keras with TensorFlow, not {backend}; import supair first")

# Names are imported when they are asked for, so that configurations and command lines come
# without TensorFlow, which takes seconds.
_MODULES = {
    "AIR": "air",
    "AirConfig": "config",
    "ConfigError": "config",
    "Convergence": "config",
    "InMemoryScenes": "scenes",
    "ModelConfig": "config",
    "PAPER_MODELS": "config",
    "SUPAIR_RECIPES": "config",
    "SpnConfig": "config",
    "SuPAIR": "model",
    "TrainingConfig": "config",
    "TrainingError": "config",
    "WarmUp": "config",
    "background_spn": "config",
    "object_spn": "config",
    "train": "training",
}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
