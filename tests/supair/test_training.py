"""The step against hand-worked values, and runs that are stopped and go on."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny
from safetensors.numpy import load_file
from tqdm import tqdm

from supair import ConfigError, Convergence, TrainingError, WarmUp, training
from supair.config import AIR_RECIPES, AirConfig, AirWarmUp, Annealing
from supair.evaluation import sample_noise
from supair.model import SuPAIR
from supair.run import read_rows
from supair.scenes import InMemoryScenes
from supair.training import Optimizer, make_train_steps

NO_AVERAGES = dataclasses.replace(tiny.TRAINING, averaging=None)


def curve(rows):
    """The log without what depends on the clock."""
    return [{name: row[name] for name in row if name != "train_seconds"} for row in rows]


def newest(directory):
    return max((directory / "checkpoints").iterdir()).read_bytes()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run's folder, of an odd name, after three epochs, and after one."""
    folder = tmp_path_factory.mktemp("run") / "a [b]*? back\\slash ümläut"
    tiny.train(folder / "run", 1)
    shutil.copytree(folder / "run", folder / "after_an_epoch")
    tiny.train(folder / "run", 3)
    return folder / "run", folder / "after_an_epoch"


@pytest.fixture
def after_an_epoch(undisturbed, tmp_path):
    return shutil.copytree(undisturbed[1], tmp_path / "run")


def require_undisturbed(directory, undisturbed):
    """The same log, and the same state to the last bit."""
    assert curve(read_rows(directory)) == curve(read_rows(undisturbed[0]))
    assert states_of(directory) == states_of(undisturbed[0])


def states_of(directory):
    files = sorted((directory / "checkpoints").iterdir())
    return [{name: array.tobytes() for name, array in load_file(f).items()} for f in files]


def disturb_steps(monkeypatch, disturbed):
    """Call `disturbed(steps, images, noise, number)` in the place of the training steps."""

    def make(*arguments):
        return functools.partial(disturbed, make_train_steps(*arguments))

    monkeypatch.setattr(training, "make_train_steps", make)


def test_the_log_has_a_row_every_few_steps_and_a_whole_one_at_every_epochs_end(undisturbed):
    rows = read_rows(undisturbed[0])
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10, 12, 15]  # 5 steps an epoch
    assert [row["epoch"] for row in rows if "elbo" in row] == [1, 2, 3]
    assert [row["step"] for row in rows if "examples" in row] == [3, 5, 10, 15]
    last = rows[-1]
    assert last["accuracy"] == sum(last["confusion"][n][n] for n in range(2)) / 20
    assert sum(last["elbo_terms"].values()) == pytest.approx(last["elbo"])
    assert last["provenance"]["threads"] >= 1
    seconds = [row["train_seconds"] for row in rows]
    assert seconds == sorted(seconds) and seconds[0] > 0
    config = json.loads((undisturbed[0] / "config.json").read_text())
    assert config["model"]["num_steps"] == 2 and config["training"]["seed"] == 3
    assert config["model"]["class"] == "SuPAIR" and config["scenes"] == "squares"
    assert list((undisturbed[0] / "tensorboard").iterdir())


def test_one_seed_is_one_curve_and_another_seed_another(undisturbed, tmp_path):
    tiny.train(tmp_path / "same", 3)
    require_undisturbed(tmp_path / "same", undisturbed)
    other = dataclasses.replace(tiny.TRAINING, seed=4)
    _, rows = tiny.train(tmp_path / "other", 1, other)
    assert rows[0]["train_elbo"] != read_rows(undisturbed[0])[0]["train_elbo"]


@pytest.mark.parametrize("step", [4, 14])
def test_a_run_interrupted_goes_on_from_its_last_epoch(undisturbed, tmp_path, monkeypatch, step):
    """With the same model, as in a notebook, even if it was the first epoch."""
    model, made = SuPAIR(tiny.MODEL, 3), []

    def interrupted(steps, images, noise, number):
        made.extend(range(int(number)))
        if len(made) >= step:
            raise KeyboardInterrupt
        return steps(images, noise, number)

    disturb_steps(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path, 3, trained=model)
    assert len([row for row in read_rows(tmp_path) if "elbo" in row]) == (step - 1) // 5
    monkeypatch.undo()
    tiny.train(tmp_path, 3, trained=model)
    require_undisturbed(tmp_path, undisturbed)


def test_other_hardware_or_versions_are_allowed_told_and_logged(after_an_epoch, capsys):
    tf_version = read_rows(after_an_epoch)[-1]["provenance"]["tensorflow"]
    for epochs, version in ((2, "1.0"), (3, "1.0"), (4, tf_version)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tensorflow.__version__", version)
            tiny.train(after_an_epoch, epochs)
    assert capsys.readouterr().err.count("'tensorflow'") == 2  # to 1.0, and back
    ends = [row["provenance"]["tensorflow"] for row in read_rows(after_an_epoch) if "elbo" in row]
    assert ends == [tf_version, "1.0", "1.0", tf_version]


def test_the_time_in_which_a_process_stood_still_does_not_count():
    """Calls of 2 seconds, but for one of an hour; nothing else is cut, however it varies."""

    class Measured:
        def quick(self, examples=True):
            return {"accuracy": 0.5}

        full = quick

    config, order = dataclasses.replace(tiny.TRAINING, log_every=10), np.zeros([40, 8], int)
    for taken, counted in (([2, 3600, 2, 3], 9), ([2, 9, 2, 3], 16), ([0.01, 0.9, 0.01, 0], 0.92)):
        calls = iter(taken)
        steps = lambda step, order, calls=calls: (np.zeros(len(order)), next(calls))  # noqa: E731
        start, bar = {"step": 0, "train_seconds": 100.0}, tqdm(disable=True)
        rows = training.train_epoch(steps, Measured(), config, order, start, bar)
        assert rows[0]["train_seconds"] == 100 + taken[0]
        assert rows[-1]["train_seconds"] == pytest.approx(100 + counted)
        left_out = rows[-1].get("seconds_left_out", 0)
        assert left_out == pytest.approx(sum(taken) - counted)


def test_rows_without_their_checkpoint_are_written_again(undisturbed, after_an_epoch):
    """As after a crash between the log and the checkpoint, and in the middle of a row."""
    whole = (undisturbed[0] / "log.jsonl").read_text().splitlines(keepends=True)
    with open(after_an_epoch / "log.jsonl", "a") as file:
        file.write("".join(whole[2:4]) + whole[4][:20])
    assert read_rows(after_an_epoch)[-1]["step"] == 5
    tiny.train(after_an_epoch, 3)
    require_undisturbed(after_an_epoch, undisturbed)


def test_a_finished_run_is_left_alone(after_an_epoch, monkeypatch):
    before = newest(after_an_epoch)
    monkeypatch.setattr(training, "make_train_steps", None)  # not to be called
    model, rows = tiny.train(after_an_epoch, 1)
    assert newest(after_an_epoch) == before
    assert rows == read_rows(after_an_epoch)
    assert not np.array_equal(model.inference.kernel, SuPAIR(tiny.MODEL, 3).inference.kernel)


def test_the_compiled_step_equals_the_uncompiled_one(undisturbed, tmp_path):
    _, rows = tiny.train(tmp_path, 1, compiled=True)
    for row, expected in zip(rows, read_rows(undisturbed[0])):
        assert row["train_elbo"] == pytest.approx(expected["train_elbo"], rel=1e-4)
        assert row.get("elbo", 0) == pytest.approx(expected.get("elbo", 0), rel=1e-4)


def test_every_part_has_its_learning_rate_and_falls_to_it_in_a_warm_up():
    """Under gradients of one, every step of Adam is as long as the learning rate."""
    rates = {"inference": 1e-2, "object": 2e-2, "background": 4e-2}
    warm_up = WarmUp(initial_learning_rate_factor=3.0, steps=4)
    config = dataclasses.replace(NO_AVERAGES, learning_rates=rates, warm_up=warm_up)
    model = SuPAIR(tiny.MODEL, 3)
    optimizer, found = Optimizer(model, config, 5), []
    for _ in range(6):
        before = {part: variables[0].numpy() for part, variables in model.variables_by_part.items()}
        optimizer.apply([tf.ones_like(variable) for variable in model.trainable_variables])
        moved = {part: before[part] - model.variables_by_part[part][0].numpy() for part in rates}
        found.append([np.mean(moved[part]) / rates[part] for part in rates])
    expected = np.repeat([[3.0], [2.5], [2.0], [1.5], [1.0], [1.0]], 3, axis=1)
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    with pytest.raises(ConfigError, match="background"):
        few = {"inference": 1, "object": 1}
        Optimizer(model, dataclasses.replace(config, learning_rates=few), 5)


def test_annealing_raises_the_rates_of_the_spns_and_lowers_all_at_the_end():
    annealing = Annealing(2, {"object": 4.0}, rise=(0.25, 0.5), fall_from=0.5, last_factor=0.1)
    rates = {"inference": 0.5, "object": 2.0}
    config = dataclasses.replace(NO_AVERAGES, learning_rates=rates, annealing=annealing)
    steps = [0, 2, 3, 4, 6, 8, 9]  # of eight in two epochs
    for part, rates in (
        ("inference", [0.5, 0.5, 0.5, 0.5, 0.25, 0.05, 0.05]),
        ("object", [2.0, 2.0, 4.0, 8.0, 4.0, 0.8, 0.8]),
    ):
        rate = training.LearningRate(config, part, steps_per_epoch=4)
        np.testing.assert_allclose([rate(step) for step in steps], rates, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 2.0])
def test_the_models_weights_are_averages_of_those_that_adam_moves(eta):
    """Adam's take the steps of a run without averages; with eta = 0 these are plain means."""
    scenes, moved = tiny.scenes(), []
    for averaging in (None, eta):
        model = SuPAIR(tiny.MODEL, 3)
        config = dataclasses.replace(tiny.TRAINING, averaging=averaging, warm_up=None)
        optimizer = Optimizer(model, config, 5)
        steps = make_train_steps(model, optimizer, config, scenes.white, compiled=False)
        for step in range(4):
            images = tf.constant(scenes.images[step * 8 : step * 8 + 8][np.newaxis])
            steps(images, sample_noise(4, 2, 3, step, 8)[np.newaxis], tf.constant(1))
            if averaging is None:
                moved.append([variable.numpy() for variable in model.trainable_variables])
    for weight, average, *values in zip(optimizer.weights, model.trainable_variables, *moved):
        np.testing.assert_allclose(weight, values[-1], rtol=1e-6)
        shares = [1, 1, 1, 1] if eta == 0 else [1 * 2, 2 * 3, 3 * 4, 4 * 5]  # s (s + 1)
        expected = np.average(values, axis=0, weights=shares)
        np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(average, weight)


def test_airs_warm_up_has_noise_of_its_own_and_ends(tmp_path):
    from supair.air import AIR

    config = AirConfig(12, 6, lstm_units=8, hidden_units=6, head_units=3, what_size=2)
    changes = {"batch_size": 8, "log_every": 3, "warm_up": AirWarmUp(steps=7)}
    recipe = dataclasses.replace(AIR_RECIPES["robust"], **changes)
    _, rows = tiny.train(tmp_path, 2, recipe, trained=AIR(config))
    assert [row["step"] for row in rows] == [3, 5, 6, 9, 10]
    assert set(rows[-1]["elbo_terms"]) == {"likelihood", "count", "where", "what"}


def test_weights_that_are_not_finite_end_a_run(after_an_epoch, monkeypatch):
    before = newest(after_an_epoch)
    model = SuPAIR(tiny.MODEL, 3)

    def spoil_elbos(steps, *arguments):
        return np.nan * steps(*arguments)

    def spoil_weights(steps, *arguments):
        elbos = steps(*arguments)
        model.inference.bias.assign(np.nan * model.inference.bias)
        return elbos

    for spoiled in (spoil_elbos, spoil_weights):
        disturb_steps(monkeypatch, spoiled)
        with pytest.raises(TrainingError, match="not finite"):
            tiny.train(after_an_epoch, 2, trained=model)
        assert newest(after_an_epoch) == before and read_rows(after_an_epoch)[-1]["step"] == 5


def test_a_collapse_is_told_when_it_happens_and_at_the_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("supair.metrics.collapse", lambda confusion: "all empty")
    _, rows = tiny.train(tmp_path, 3)
    assert [row["collapse"] for row in rows if "elbo" in row] == ["all empty"] * 3
    told = [line for line in capsys.readouterr().err.split("warning: ") if "all empty" in line]
    assert len(told) == 2 and "step 5;" in told[0] and "end, step 15;" in told[1]
    assert all(line.count("warm-up") == 1 for line in told)  # as this recipe has none


def test_scenes_that_do_not_fit_are_refused(tmp_path):
    wrong = {"train": InMemoryScenes(np.zeros([40, 13, 13], np.uint8)), "test": tiny.scenes()}
    with pytest.raises(ConfigError, match="12 x 12"):
        tiny.train(tmp_path, 1, data=wrong)
    few = {"train": tiny.scenes(5), "test": tiny.scenes(5)}
    with pytest.raises(ConfigError, match="batch of 8.*found 5"):
        tiny.train(tmp_path, 1, data=few)
    config = dataclasses.replace(tiny.TRAINING, steps_per_epoch=4)  # for which they are enough
    _, rows = tiny.train(tmp_path, 2, config, data=few)
    assert [row["step"] for row in rows] == [3, 4, 6, 8]


def test_an_epoch_is_one_pass_in_order_or_a_fixed_number_of_batches():
    order = training.epoch_order(tiny.TRAINING, 43, 7)
    np.testing.assert_array_equal(order, np.arange(40).reshape(5, 8))
    config = dataclasses.replace(tiny.TRAINING, steps_per_epoch=2)
    order = training.epoch_order(config, 6, 0)
    assert order.shape == (2, 8)
    flat = order.reshape(-1).tolist()  # two whole passes and a part of a third, each permuted
    assert sorted(flat[:6]) == sorted(flat[6:12]) == list(range(6)) and flat[:6] != flat[6:12]
    np.testing.assert_array_equal(order, training.epoch_order(config, 6, 0))
    assert not np.array_equal(order, training.epoch_order(config, 6, 1))


def test_training_goes_on_to_convergence(tmp_path):
    """At least as many epochs as asked for, until the criterion is met or the bound reached."""
    met, never = Convergence(1, 1e9), Convergence(1, -1e9, max_epochs=3)
    for convergence, epochs in ((met, 2), (met, 2), (never, 3)):  # it needs two
        assert tiny.train(tmp_path, 1, convergence=convergence)[1][-1]["epoch"] == epochs


def test_convergence_by_hand():
    convergence = Convergence(window=2, gain=0.1, max_epochs=9)
    elbos = [0, 10, 20, 30, 31, 32, 33]
    assert not convergence.reached(elbos[:3])  # too short to tell
    assert not convergence.reached(elbos[:4])  # 25 against 5
    assert convergence.reached(elbos)  # 32.5 against 30.5, 6 % of what was gained since 0
    assert convergence.reached([elbo - 5000 for elbo in elbos])  # densities have no natural zero
    assert convergence.last_epoch(elbos, 1) == 7 and convergence.last_epoch(elbos[:6], 1) is None
