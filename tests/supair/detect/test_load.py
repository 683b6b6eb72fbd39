"""Models from folders of weights."""

import json

import numpy as np
import pytest
import tiny

import data
import supair
from supair.config import ConfigError, TrainingConfig, TrainingError, resolve
from supair.detect.images import Preparation
from supair.detect.load import load_model
from supair.extensions.exact import ExactSuPAIR
from supair.model import SuPAIR
from supair.run import write_weights


@pytest.mark.parametrize("model_class", [SuPAIR, ExactSuPAIR])
def test_a_saved_model_comes_back_unless_its_configuration_is_damaged(model_class, tmp_path):
    model = model_class(tiny.MODEL, seed=3)
    preparation = {"side": 12, "fit": "tile", "overlap": 4, "black": 0.1, "inverted": True}
    identity = model_class.__name__, tiny.MODEL, TrainingConfig(seed=3)
    settings = resolve(*identity, {"preparation": preparation})
    write_weights(model, tmp_path, settings)
    loaded, prepared = load_model(tmp_path)
    assert type(loaded) is model_class and prepared == Preparation(**preparation)
    for variable, same in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_allclose(variable, same, atol=1e-3)
    for changes in (
        {"model": {"class": "SuPAIR", "num_steps": "two"}},
        {"model": {"class": "AIR"}},
        {"training": {}},
        {"preparation": {"side": 50}},
        {"preparation": {"side": 12, "turn": 2}},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**settings, **changes}))
        with pytest.raises(TrainingError, match="config.json"):
            load_model(tmp_path)


def test_images_in_memory_and_on_the_disk_give_the_same_objects(tmp_path, pytestconfig):
    scenes = data.make("multi_mnist", 1, (1, 20))["test"].images
    np.save(tmp_path / "scenes.npy", scenes)
    detector = supair.load(pytestconfig.rootpath / "reproduce" / "pretrained" / "multi_mnist")
    found = detector.detect(scenes[..., np.newaxis])
    assert found.counts.tolist() == detector.model(scenes / np.float32(255)).count.numpy().tolist()
    for other in (detector.detect(tmp_path / "scenes.npy"), detector.detect(255 - scenes)):
        assert other.counts.tolist() == found.counts.tolist()
        np.testing.assert_allclose(np.concatenate(other.boxes), np.concatenate(found.boxes), atol=1)
    scores = np.concatenate(found.scores)
    assert len(scores) == sum(found.counts) and 0 < scores.min() <= scores.max() <= 1
    with pytest.raises(ConfigError, match="image 1"):
        detector.detect([scenes[0], np.full([50, 50], np.nan)])


@pytest.mark.parametrize("dataset", data.DATASETS)
def test_pretrained_weights_count_scenes_they_have_not_seen(dataset, pytestconfig):
    folder = pytestconfig.rootpath / "reproduce" / "pretrained" / dataset
    model, preparation = load_model(folder)
    assert preparation == Preparation(side=50)
    test = data.make(dataset, 1, (1, 1000))["test"]
    counts = model(test.images / np.float32(test.white)).count
    made_by = json.loads((folder / "run.json").read_text())
    assert np.mean(counts == test.counts) > made_by["accuracy"] - 0.02
