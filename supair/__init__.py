"""SuPAIR: scenes understood with sum-product networks (Stelzner, Peharz & Kersting, ICML 2019)."""

from importlib import import_module

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
    "load": "detect.load",
    "object_spn": "config",
    "train": "training",
}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
