"""A model, scenes and a run small enough for tests."""

import numpy as np

from supair.config import ModelConfig, TrainingConfig, background_spn, object_spn
from supair.scenes import InMemoryScenes

MODEL = ModelConfig(
    scene_size=12,
    patch_size=6,
    num_steps=2,
    lstm_units=8,
    hidden_units=5,
    object=object_spn(num_components=3, num_sums=2, repetitions=2),
    background=background_spn(num_components=2),
)
TRAINING = TrainingConfig(seed=3, batch_size=8, log_every=3, averaging=2.0)


def scenes(size: int = 40, seed: int = 0) -> InMemoryScenes:
    """Scenes with 0 or 1 white square of 4 x 4 pixels."""
    rng = np.random.default_rng(seed)
    images, boxes = np.zeros([size, 12, 12], np.uint8), np.zeros([size, 1, 4], np.float32)
    counts = rng.integers(0, 2, size)
    for image, box, count in zip(images, boxes, counts):
        if count:
            left, top = rng.integers(0, 8, 2)
            image[top : top + 4, left : left + 4] = 255
            box[0] = left, top, 4, 4
    return InMemoryScenes(images, counts, boxes)


def train(directory, epochs, config=TRAINING, model=MODEL, data=None, trained=None, **options):
    """Five steps an epoch, unless the data are others; returns the trained model and the rows."""
    from supair.model import SuPAIR
    from supair.training import train

    model = trained or SuPAIR(model, config.seed)
    data = data or {"train": scenes(), "test": scenes(20, 1)}
    options = {"compiled": False, "identity": {"scenes": "squares"}, **options}
    return model, train(directory, model, data, config, epochs, **options)
