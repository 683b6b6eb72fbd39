import dataclasses
import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
import tiny

from supair import ConfigError, InMemoryScenes, SuPAIR, TrainingError, WarmUp, train
from supair.evaluation import sample_noise
from supair.files import read_log
from supair.training import Convergence, Interrupted, Optimizer, make_train_steps

VOLATILE = {"train_seconds"}


def curve(directory):
    """The log without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in read_log(directory / "log.jsonl")]


def weights(run):
    return [variable.numpy() for variable in (*run.model.variables, *run.optimizer.variables)]


def after_steps(monkeypatch, action):
    """Do something after every call of the training steps, but not after the one that only compiles."""

    def make(*arguments):
        steps = make_train_steps(*arguments)

        def steps_and_action(images, noise, first, last):
            elbos = steps(images, noise, first, last)
            if last > first:
                action()
            return elbos

        return steps_and_action

    monkeypatch.setattr("supair.training.make_train_steps", make)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The directory of a run as it was after an epoch, that of the run after three, and its weights then."""
    folder = tmp_path_factory.mktemp("run")
    with tiny.run(folder / "run") as run:
        run.train(1)  # saves it, so that its directory can be copied
        shutil.copytree(folder / "run", folder / "after_an_epoch")
        run.train(3)
        return folder / "after_an_epoch", folder / "run", weights(run)


@pytest.fixture
def undisturbed(both):
    """The directory of a run of three epochs, and its weights."""
    return both[1:]


@pytest.fixture
def after_an_epoch(both, tmp_path):
    """The directory of a run of one epoch, a copy for every test."""
    return shutil.copytree(both[0], tmp_path / "run")


def test_log_has_the_promised_lines(undisturbed):
    lines = read_log(undisturbed[0] / "log.jsonl")
    # 5 steps an epoch, a line every 3 steps and at the end of every epoch
    assert [line["step"] for line in lines] == [3, 5, 6, 9, 10, 12, 15]
    assert [line["epoch"] for line in lines if "test_elbo" in line] == [1, 2, 3]
    last = lines[-1]
    assert sum(map(sum, last["test_confusion"])) == 20
    assert last["test_accuracy"] == pytest.approx(sum(last["test_confusion"][n][n] for n in range(2)) / 20)
    assert sum(last["test_elbo_terms"].values()) == pytest.approx(last["test_elbo"])
    seconds = [line["train_seconds"] for line in lines]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert list((undisturbed[0] / "tensorboard").glob("events*"))
    config = json.loads((undisturbed[0] / "config.json").read_text())
    assert config["model"]["num_steps"] == 2 and config["training"]["seed"] == 3 and config["scenes"] == "squares"


def test_same_seed_same_curve_and_other_seed_other_curve(undisturbed, tmp_path):
    with tiny.run(tmp_path / "same") as run:
        run.train(3)
    assert curve(tmp_path / "same") == curve(undisturbed[0])
    for ours, expected in zip(weights(run), undisturbed[1]):
        np.testing.assert_array_equal(ours, expected)
    with tiny.run(tmp_path / "other", dataclasses.replace(tiny.TRAINING, seed=4)) as run:
        run.train(1)
    assert curve(tmp_path / "other")[0] != curve(undisturbed[0])[0]


def test_resumed_after_an_epoch_equals_undisturbed(undisturbed, after_an_epoch):
    with tiny.run(after_an_epoch) as run:
        run.train(3)
    assert curve(after_an_epoch) == curve(undisturbed[0])
    for ours, expected in zip(weights(run), undisturbed[1]):
        np.testing.assert_array_equal(ours, expected)


def test_interrupted_and_resumed_equals_undisturbed(undisturbed, tmp_path, monkeypatch):
    """A signal after any step: the state is saved there, and the rest of the curve is the same."""
    monkeypatch.setattr("supair.training.STEPS_PER_CALL", {"CPU": 1, "GPU": 1})
    seconds = 0.0
    for stop in (4, 5, 11):
        with tiny.run(tmp_path) as run:

            def interrupt(run=run, stop=stop):
                if run.step == stop:
                    os.kill(os.getpid(), signal.SIGINT)

            after_steps(monkeypatch, interrupt)
            with pytest.raises(Interrupted) as interrupt:
                run.train(3)
            assert interrupt.value.signum == signal.SIGINT and run.step == stop
            assert float(run._clock) > seconds
            seconds = float(run._clock)
    after_steps(monkeypatch, lambda: None)
    with tiny.run(tmp_path) as run:
        assert run.step == 11 and float(run._clock) == seconds
        run.train(3)
    assert curve(tmp_path) == curve(undisturbed[0])
    for ours, expected in zip(weights(run), undisturbed[1]):
        np.testing.assert_array_equal(ours, expected)


def test_an_interruption_can_be_passed_between_processes():
    import pickle

    passed = pickle.loads(pickle.dumps(Interrupted("stopped at step 5", signal.SIGTERM)))
    assert str(passed) == "stopped at step 5" and passed.signum == signal.SIGTERM


def test_crash_after_the_log_line_but_before_the_checkpoint(undisturbed, after_an_epoch, monkeypatch):
    """Log lines beyond the checkpoint, and a line cut off, are dropped and written again."""
    with tiny.run(after_an_epoch) as run:
        run.train(2)
        monkeypatch.setattr(run, "save", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run.train(3)
    with open(after_an_epoch / "log.jsonl", "a") as file:
        file.write('{"step": 16, "ep')
    with tiny.run(after_an_epoch) as run:
        assert run.step == 10 and curve(after_an_epoch)[-1]["step"] == 10
        run.train(3)
    assert curve(after_an_epoch) == curve(undisturbed[0])


def test_finished_run_does_nothing(after_an_epoch, monkeypatch):
    with tiny.run(after_an_epoch) as run:
        before = (after_an_epoch / "log.jsonl").read_bytes()
        monkeypatch.setattr("supair.training._Group", None)  # not to be called
        run.train(1)
    assert (after_an_epoch / "log.jsonl").read_bytes() == before


def test_compiled_training_step_equals_uncompiled(undisturbed, tmp_path):
    with tiny.run(tmp_path, compiled=True) as run:
        run.train(1)
    for ours, expected in zip(curve(tmp_path), curve(undisturbed[0])):
        assert ours["train_elbo"] == pytest.approx(expected["train_elbo"], rel=1e-4)
        if "test_elbo" in ours:
            assert ours["test_elbo"] == pytest.approx(expected["test_elbo"], rel=1e-4)


def test_one_step_is_adam_on_the_negative_mean_elbo():
    """By hand, with m and v at zero, the first step after a warm-up: the training knows how far it is."""
    model, scenes = SuPAIR(dataclasses.replace(tiny.MODEL, warm_up=WarmUp(steps=4)), 3), tiny.scenes()
    optimizer = Optimizer(model, dataclasses.replace(tiny.TRAINING, averaging=None))
    optimizer.iterations.assign(4)
    before = [variable.numpy() for variable in model.trainable_variables]
    images, noise = scenes.images[:16], sample_noise(model, 3, 0, 8)
    with tf.GradientTape() as tape:
        elbo = model.evaluate_elbo(scenes.read(8, 16), noise).elbo.total
        loss = -tf.reduce_mean(elbo)
    gradients = tape.gradient(loss, model.trainable_variables)
    steps = make_train_steps(model, optimizer, 8, scenes.white, compiled=False)
    found = steps(tf.constant(images), np.stack([[noise]] * 2), tf.constant(1), tf.constant(2)).numpy()
    assert found[1, 0] == pytest.approx(-float(loss), rel=1e-5) and optimizer.step == 5
    for variable, old, gradient in zip(model.trainable_variables, before, gradients):
        gradient = np.asarray(gradient, np.float64)
        rate = 1e-3 * np.sqrt(1 - 0.999**5) / (1 - 0.9**5)
        expected = -rate * 0.1 * gradient / (np.sqrt(0.001) * np.abs(gradient) + 1e-8)
        np.testing.assert_allclose(variable.numpy() - old, expected, atol=2e-6, err_msg=variable.path)


def test_the_learning_rate_falls_to_its_value_in_a_warm_up():
    """Under gradients of one, every step of Adam is as long as the learning rate."""
    model = SuPAIR(dataclasses.replace(tiny.MODEL, warm_up=WarmUp(early_rate=3.0, steps=4)), 3)
    optimizer = Optimizer(model, dataclasses.replace(tiny.TRAINING, learning_rate=1e-2, averaging=None))
    variable, found = model.trainable_variables[0], []
    for _ in range(6):
        before = variable.numpy()
        optimizer.apply([tf.ones_like(other) for other in model.trainable_variables])
        found.append(np.mean(before - variable.numpy()))
    np.testing.assert_allclose(found, [0.03, 0.025, 0.02, 0.015, 0.01, 0.01], rtol=1e-3)


def test_training_improves_the_bound(tmp_path):
    with tiny.run(tmp_path) as run:
        run.train(40)
    elbos = [line["train_elbo"] for line in curve(tmp_path)]
    assert np.mean(elbos[-5:]) > np.mean(elbos[:5]) + 20


@pytest.mark.parametrize("eta", [0.0, 2.0])
def test_the_models_weights_are_averages(eta):
    """Those that Adam moves take the steps of a run without averaging; with eta = 0 the average is the plain mean."""
    scenes, moved = tiny.scenes(), []
    noise = [np.stack([[sample_noise(SuPAIR(tiny.MODEL, 3), 3, step, 8)]]) for step in range(4)]
    for averaging in (None, eta):
        model = SuPAIR(tiny.MODEL, 3)
        optimizer = Optimizer(model, dataclasses.replace(tiny.TRAINING, averaging=averaging))
        steps = make_train_steps(model, optimizer, 8, scenes.white, compiled=False)
        for step in range(4):
            steps(tf.constant(scenes.images[step * 8 : step * 8 + 8]), noise[step], tf.constant(0), tf.constant(1))
            if averaging is None:
                moved.append([variable.numpy().astype(float) for variable in model.trainable_variables])
    for weight, average, *values in zip(optimizer.weights, model.trainable_variables, *moved):
        np.testing.assert_allclose(weight, values[-1], rtol=1e-6)
        expected = values[0].copy()
        for number, value in enumerate(values[1:], 2):
            expected += (eta + 1) / (eta + number) * (value - expected)
        np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)
        shares = np.array([1, 1, 1, 1] if eta == 0 else [1 * 2, 2 * 3, 3 * 4, 4 * 5])  # s (s + 1) for eta = 2
        np.testing.assert_allclose(average, np.average(values, axis=0, weights=shares), rtol=1e-4, atol=1e-6)
    assert not np.array_equal(average, weight)


def test_weights_given_to_a_model_after_its_run_is_made_are_trained(tmp_path):
    with tiny.run(tmp_path / "a", dataclasses.replace(tiny.TRAINING, seed=4)) as other, tiny.run(tmp_path / "b") as run:
        for ours, given in zip(run.model.variables, other.model.variables):
            ours.assign(given)
        run.alone()
        for weight, given in zip(run.optimizer.weights, other.model.trainable_variables, strict=True):
            np.testing.assert_array_equal(weight, given)


def spoil(run):
    """Make a weight that Adam moves not a number."""
    run.optimizer.weights[0].assign(run.optimizer.weights[0] * np.nan)


def test_not_finite_elbo_stops_and_keeps_the_checkpoint(after_an_epoch):
    with tiny.run(after_an_epoch) as run:
        good = weights(run)
        spoil(run)
        with pytest.raises(TrainingError, match="not finite at step 6.*checkpoint is kept"):
            run.train(2)
    with tiny.run(after_an_epoch) as run:
        assert run.step == 5
        for ours, expected in zip(weights(run), good):
            np.testing.assert_array_equal(ours, expected)


def test_weights_broken_by_the_last_step_are_not_saved(after_an_epoch, monkeypatch):
    with tiny.run(after_an_epoch) as run:
        good = weights(run)
        after_steps(monkeypatch, lambda: run.model.inference.bias.assign(run.model.inference.bias * np.nan))
        with pytest.raises(TrainingError, match="weights are not finite after step 6"):
            run.train(2)
    with tiny.run(after_an_epoch) as run:
        assert run.step == 5 and curve(after_an_epoch)[-1]["step"] == 5
        for ours, expected in zip(weights(run), good):
            np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"config": dataclasses.replace(tiny.TRAINING, seed=4)}, "training.seed: expected 4, found 3"),
        ({"model": dataclasses.replace(tiny.MODEL, num_steps=3)}, "model.num_steps: expected 3, found 2"),
        ({"model": dataclasses.replace(tiny.MODEL, background=None)}, "model.background"),
    ],
)
def test_directory_of_another_run_is_refused(tmp_path, arguments, message):
    tiny.run(tmp_path).__exit__()
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(TrainingError, match=f"config.json: this directory holds another run .{message}"):
        tiny.run(tmp_path, **arguments)
    assert (tmp_path / "config.json").read_bytes() == before


def test_two_processes_cannot_train_the_same_run(tmp_path):
    with tiny.run(tmp_path), pytest.raises(TrainingError, match="in use by another process"):
        tiny.run(tmp_path)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "pattern, damage",
    [
        ("checkpoints/ckpt-5.data*", _truncate),
        ("checkpoints/ckpt-5.data*", _flip),
        ("checkpoints/ckpt-5.data*", os.remove),
        ("checkpoints/ckpt-5.index", _truncate),
        ("checkpoints/ckpt-5.index", _flip),
        ("checkpoints/checkpoint", os.remove),
        ("checkpoints/checkpoint", _truncate),
        ("checkpoints", shutil.rmtree),
        ("log.jsonl", os.remove),
        ("log.jsonl", _truncate),
        ("config.json", _truncate),
    ],
)
def test_damaged_runs_are_refused(after_an_epoch, pattern, damage):
    (path,) = after_an_epoch.glob(pattern)
    damage(path)
    with pytest.raises(TrainingError, match="damaged.*delete the directory"):
        tiny.run(after_an_epoch)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_clear_error(tmp_path):
    from supair.files import append_line

    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match="log.jsonl: cannot be written .No space left"):
        append_line(tmp_path / "log.jsonl", {"step": 1})


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    from supair.files import write_whole

    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "config.json").write_text("old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        write_whole(tmp_path / "config.json", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("config.json", "old")]


def test_unusable_directories_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="file.*cannot be used"):
        tiny.run(tmp_path / "file" / "run")


IMAGES = np.zeros([4, 12, 12], np.float32)


@pytest.mark.parametrize(
    "images, message",
    [
        (np.where(np.arange(12) == 3, np.nan, IMAGES), r"grey levels in \[0, 1\], found nan"),
        (IMAGES + 1.5, r"grey levels in \[0, 1\], found 1.5"),
        (IMAGES - 0.1, r"grey levels in \[0, 1\], found -0.1"),
        (IMAGES[:, :, :8], r"\[scenes, side, side\], found \(4, 12, 8\)"),
        (IMAGES[0], r"found \(12, 12\)"),
        (IMAGES.astype(int), "uint8 or floating point, found int64"),
        (IMAGES[:0], "found .0, 12, 12"),
    ],
)
def test_wrong_scenes_are_refused(images, message):
    with pytest.raises(ConfigError, match=message):
        InMemoryScenes(images)


def test_wrong_counts_and_boxes_are_refused():
    with pytest.raises(ConfigError, match=r"expected counts \[4\]"):
        InMemoryScenes(IMAGES, np.zeros(3, int))
    with pytest.raises(ConfigError, match=r"boxes \[4, at least 2, 4\]"):
        InMemoryScenes(IMAGES, np.full(4, 2), np.zeros([4, 1, 4]))


def test_scenes_that_do_not_fit_are_refused(tmp_path):
    wrong = {"train": InMemoryScenes(np.zeros([40, 13, 13], np.uint8)), "test": tiny.scenes()}
    with pytest.raises(ConfigError, match="train scenes of 12 x 12 pixels"):
        tiny.run(tmp_path, data=wrong)
    with pytest.raises(ConfigError, match="at least a batch of 8 training scenes, found 5"):
        tiny.run(tmp_path, data={"train": tiny.scenes(5), "test": tiny.scenes()})


def test_training_goes_on_to_convergence(tmp_path):
    """At least as many epochs as asked for, and until the criterion is met or the bound reached."""
    with tiny.run(tmp_path) as run:
        run.train(1, Convergence(window=1, gain=1e9))  # met as soon as there are two epochs
        assert run.step == 2 * 5
        run.train(1, Convergence(window=1, gain=1e9))
        assert run.step == 2 * 5
        run.train(1, Convergence(window=1, gain=-1e9, max_epochs=3))  # never met
        assert run.step == 3 * 5


def test_convergence_by_hand():
    convergence = Convergence(window=2, gain=0.1, max_epochs=9)
    assert not convergence.reached([0, 1, 2])  # too short to tell
    assert not convergence.reached([0, 10, 20, 30])  # 25 against 5
    assert convergence.reached([0, 10, 20, 30, 31, 32, 33])  # 32.5 against 30.5, 6 % of what was gained since 0
    offset = np.array([0, 10, 20, 30, 31, 32, 33]) - 5000  # log densities have no natural zero
    assert convergence.reached(list(offset)) and not convergence.reached(list(offset[:4]))


def test_log_holds_the_boxes_of_the_first_test_scenes(tmp_path):
    """At every line of the first epoch, and at the ends of the others."""
    with tiny.run(tmp_path) as run:
        run.train(2)
        lines = read_log(tmp_path / "log.jsonl")
        assert [line["step"] for line in lines if "test_examples" in line] == [3, 5, 10]
        description = run.model(tiny.scenes(20, 1).read(0, 10))
        np.testing.assert_allclose(lines[-1]["test_examples"]["boxes"], run.model.boxes(description), atol=0.006)
        np.testing.assert_allclose(lines[-1]["test_examples"]["z_pres"], description.z_pres, atol=0.0006)


def test_seeds_trained_together_equal_seeds_trained_alone(tmp_path):
    """The curve, the weights and the optimizer's state, also if a run goes on alone, here in the middle of its warm-up."""
    model = dataclasses.replace(tiny.MODEL, warm_up=WarmUp(steps=13))
    configs = [dataclasses.replace(tiny.TRAINING, seed=seed) for seed in (4, 3)]
    data = {"train": tiny.scenes(), "test": tiny.scenes(20, 1)}
    with tiny.run(tmp_path / "alone", configs[1], model, data) as alone:
        alone.train(3)
    with tiny.run(tmp_path / "4", configs[0], model, data) as other, tiny.run(tmp_path / "3", configs[1], model, data) as run:
        train([other, run], 2)
        assert other.step == run.step == 10
        run.train(3)
        for ours, expected in zip(weights(run), weights(alone), strict=True):
            np.testing.assert_allclose(ours, expected, atol=2e-5)
    for ours, line in zip(curve(tmp_path / "3"), curve(tmp_path / "alone"), strict=True):
        assert ours["train_elbo"] == pytest.approx(line["train_elbo"], rel=1e-4)
        assert ours.get("test_elbo", 0) == pytest.approx(line.get("test_elbo", 0), rel=1e-4)
    assert curve(tmp_path / "4")[0]["train_elbo"] != pytest.approx(curve(tmp_path / "3")[0]["train_elbo"], rel=1e-3)


def test_a_run_that_fails_does_not_stop_those_trained_with_it(tmp_path):
    configs = [dataclasses.replace(tiny.TRAINING, seed=seed) for seed in (3, 4)]
    data = {"train": tiny.scenes(), "test": tiny.scenes(20, 1)}
    with tiny.run(tmp_path / "3", configs[0], data=data) as first, tiny.run(tmp_path / "4", configs[1], data=data) as second:
        first.model.inference.bias.assign(first.model.inference.bias * np.nan)
        with pytest.raises(TrainingError, match="3: the ELBO is not finite at step 1"):
            train([first, second], 1)
    assert [line["step"] for line in read_log(tmp_path / "4" / "log.jsonl")] == [3, 5]
    assert not read_log(tmp_path / "3" / "log.jsonl")
    other = dataclasses.replace(tiny.TRAINING, seed=5, learning_rate=0.1)
    with tiny.run(tmp_path / "5", other) as third, tiny.run(tmp_path / "4", configs[1]) as second:
        with pytest.raises(ConfigError, match="runs of one configuration on the same data, found others in .*5"):
            train([second, third], 1)
