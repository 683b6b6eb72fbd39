"""Figures: what is drawn where, and the scripts that draw them, on logs and models cut down to size."""

import dataclasses
import json

import all as run_all
import errors
import fig4_progress
import fig5_learning
import fig6_noise
import numpy as np
import pytest
import record
import seeds
import table2
import tensorflow as tf
import tiny
from matplotlib.figure import Figure

import data
from data.scenes import MNIST_PATH
from reproduce import runs
from reproduce.experiments import Experiment
from reproduce.runs import Job, Settings
from supair import SuPAIR
from supair.config import TrainingError
from supair.figures import STEP_COLORS, draw_scene, outline
from supair.files import unseal
from supair.saved import load_model
from supair.training import load_weights

EXAMPLES = {"z_pres": [[0.9, 0.2, 0.6]] * 10, "boxes": [[[4, 5, 20, 22]] * 3] * 10}


def test_outlines_are_hidden_behind_boxes_in_front():
    """A box of 4 x 4 whose right half lies behind another one."""
    points = outline((0, 0, 4, 4), [np.array([2, -1, 9, 9])])
    shown = points[~np.isnan(points[:, 0])]
    assert shown[:, 0].max() <= 2 and shown[:, 0].min() == 0
    assert 0.4 < np.mean(np.isnan(points[:, 0])) < 0.6  # the right edge and half of two others
    assert not np.any(np.isnan(outline((0, 0, 4, 4), [])))


def test_boxes_are_drawn_in_the_colours_of_their_steps():
    axes = Figure().subplots()
    boxes = [(1, 2, 3, 4), (5, 5, 2, 2), (2, 3, 4, 5)]
    draw_scene(axes, np.zeros([12, 12]), boxes, present=[True, False, True], count=2)
    first, third = axes.lines
    assert (first.get_color(), third.get_color()) == (STEP_COLORS[0], STEP_COLORS[2])
    corners = [first.get_xdata().min(), first.get_ydata().min(), first.get_xdata().max(), first.get_ydata().max()]
    assert corners == [1, 2, 4, 6] and first.zorder > third.zorder and axes.texts[0].get_text() == "2"
    hidden = np.isnan(third.get_xdata())
    assert hidden.any() and not hidden.all() and not np.isnan(first.get_xdata()).any()


def test_boxes_larger_than_the_scene_run_along_its_edge():
    axes = Figure().subplots()
    draw_scene(axes, np.zeros([12, 12]), [(-5, -1, 40, 40), (3, 3, 4, 4)], occlude=False)
    whole, inner = axes.lines
    assert whole.get_xdata().min() > 0 and whole.get_xdata().max() < 12 and not np.isnan(inner.get_xdata()).any()


def write_log(folder, steps=(1, 2), accuracy=0.5, epochs=None, **more):
    """A run's log without the run: one line a step, one step an epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "sessions.jsonl"):
        (folder / file).write_text("{}\n")
    lines = [
        {
            "step": step,
            "epoch": float(epoch),
            "test_accuracy": accuracy,
            "test_elbo": 100.0,
            "train_seconds": 3.0 * step,
            "test_examples": EXAMPLES,
            **more,
        }
        for step, epoch in zip(steps, epochs or steps)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def unchecked(monkeypatch):
    """Logs count without the configurations that belong to them."""
    monkeypatch.setattr(runs, "check_configuration", lambda *_: None)


def test_curves_are_means_over_all_seeds(unchecked, tmp_path, capsys):
    for seed, accuracy in ((0, 0.9), (1, 0.5)):
        write_log(tmp_path / f"air/sprites/paper/seed{seed}", steps=(10, 20, 30), epochs=(1, 2, 21), accuracy=accuracy)
    write_log(tmp_path / "air/sprites/paper/seed2", steps=(10,), accuracy=0.1)  # on its way
    write_log(tmp_path / "air/sprites/paper/seed3", steps=(10, 20))
    (tmp_path / "air/sprites/paper/seed3/log.jsonl").write_text("{}\n")
    (tmp_path / "air/sprites/paper/seed1/record.json").write_text('{"seconds_per_step": 0.5, "note": ""}')
    curve = fig5_learning.read_curve(tmp_path, "air", "paper", "sprites")
    assert curve.epochs.tolist() == [1, 2]  # the third line is past epoch 20
    assert curve.seconds.tolist() == [(30 + 5) / 2, (60 + 10) / 2]  # seed 1 by its record, seed 0 by its clock
    assert curve.accuracy.tolist() == [[0.9, 0.9], [0.5, 0.5]] and curve.left_out == [2]
    assert "seed3/log.jsonl: damaged" in capsys.readouterr().err
    assert fig5_learning.read_curve(tmp_path, "air", "paper", "sprites", [2]).accuracy.tolist() == [[0.1]]
    for seed in (4, 5):  # most measurements are now on the curve of five seeds to step 10, the curve ends there
        write_log(tmp_path / f"air/sprites/paper/seed{seed}", steps=(10,), accuracy=0.2)
    curve = fig5_learning.read_curve(tmp_path, "air", "paper", "sprites")
    assert curve.accuracy.tolist() == [[0.9], [0.5], [0.1], [0.2], [0.2]] and curve.left_out == []
    assert fig5_learning.read_curve(tmp_path, "supair", "paper", "sprites") is None


def test_figure_5_from_recorded_runs(unchecked, tmp_path, monkeypatch, capsys):
    write_log(tmp_path / "results/supair/sprites/paper/seed0", epochs=(1, 20))
    monkeypatch.setattr(runs, "RECORDED", tmp_path / "results")
    assert fig5_learning.main(["--recorded", "--single", "--output", str(tmp_path / "out")]) == 0
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == [f"fig5_learning{against}.{kind}" for against in ("", "_epochs") for kind in ("pdf", "png")]
    missing = capsys.readouterr().err
    assert "not complete: AIR, Grid-MNIST: there is no run" in missing and "SuPAIR, Sprites:" not in missing
    curves = {
        (*key, d): fig5_learning.read_curve(tmp_path / "results", *key, d) for key in fig5_learning.CURVES for d in data.DATASETS
    }
    axes = fig5_learning.draw(curves, "epochs", single=False).axes[1]
    line = [line for line in axes.lines if line.get_label() == "SuPAIR (1 seed)"][0]
    assert line.get_xdata().tolist() == [1, 20] and line.get_ydata().tolist() == [50, 50]


def test_every_seed_has_a_line_and_is_counted(unchecked, tmp_path, monkeypatch, capsys):
    """Two runs that ended, one of them below the goal, and one that is under way and stands at it."""
    monkeypatch.setattr(runs, "RECORDED", tmp_path)
    for seed, accuracy, last in ((0, 0.98, 20), (3, 0.5, 20), (4, 0.97, 7)):
        write_log(tmp_path / f"supair/grid_mnist/robust/seed{seed}", accuracy=accuracy, epochs=(1, last), train_seconds=60 + seed)
    write_log(tmp_path / "supair/multi_mnist/paper/seed0", epochs=(1, 11))
    assert seeds.main(["--recorded", "--output", str(tmp_path / "out")]) == 0
    found = capsys.readouterr().out
    assert (
        "SuPAIR, robust, Grid-MNIST: 2 of 20 runs at epoch 20; 1 of them at 97.0 % or more, not seed 3 (50.0) (2 at any time); "
        "at the end 50.0 to 98.0 %, mean 74.0; 2 passed 97%, in the median after 62 s (1.0 epochs)\n"
    ) in found
    assert (
        "SuPAIR, Multi-MNIST: 0 of 20 runs at epoch 10; 0 of them at 97.5 % or more (0 at any time)\n" in found
    )  # epoch 11 is too late
    assert "SuPAIR, robust, Sprites: no run yet" in found and (tmp_path / "out/seeds.pdf").exists()
    with pytest.raises(SystemExit):
        seeds.main(["--recorded", "--seeds", "3", "20"])
    assert "expected numbers from 0 to 19, found 20" in capsys.readouterr().err
    assert seeds.main(["--recorded", "--datasets", "sprites", "--output", str(tmp_path / "out")]) == 1
    assert "nothing to draw" in capsys.readouterr().err


def test_figure_4_shows_the_boxes_of_the_log(unchecked, small, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RECORDED", tmp_path / "results")
    options = ["--recorded", "--output", str(tmp_path / "out"), *small]
    for dataset in fig4_progress.DATASETS:
        write_log(tmp_path / f"results/supair/{dataset}/paper/seed0", range(1, 6), epochs=fig4_progress.EPOCHS)
    assert fig4_progress.main(options) == 0
    assert (tmp_path / "out/fig4_progress.png").stat().st_size > 10_000 and (tmp_path / "out/fig4_progress.pdf").exists()
    settings = Settings(tmp_path / "results", tmp_path / "data", MNIST_PATH)
    panel = fig4_progress.draw(settings, seed=0).subfigs[0].axes[0]
    assert len(panel.lines) == 2  # steps 1 and 3 found something
    write_log(tmp_path / "results/supair/sprites/paper/seed1", range(1, 3))
    with pytest.raises(TrainingError, match="supair/sprites/paper/seed1: no boxes near epoch 0.3"):
        monkeypatch.setattr(fig4_progress, "DATASETS", ("sprites", "multi_mnist"))
        fig4_progress.draw(settings, seed=1)


def test_figure_6_trains_what_is_missing_and_draws_it(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fig6_noise, "QUICK_EPOCHS", 1)
    monkeypatch.setattr(fig6_noise, "DATASETS", ("noisy_mnist",))
    options = ["--quick", "--output", str(tmp_path / "out"), *small]
    assert fig6_noise.main(options) == 0
    assert "[2/2] AIR, Noisy-MNIST, seed 0, to epoch 1" in capsys.readouterr().out
    assert (tmp_path / "out/fig6_noise.png").exists()
    air_run = tmp_path / "runs/quick/air/noisy_mnist/paper/seed0"
    session = json.loads((air_run / "sessions.jsonl").read_text())
    assert session["step"] == 0 and session["tensorflow"] and session["commit"]
    settings = Settings(tmp_path / "runs/quick", tmp_path / "data", MNIST_PATH)
    axes = np.reshape(fig6_noise.draw(settings, seed=0).axes, [6, 4])
    original, noisy = (axes[row, 0].images[0].get_array() for row in (0, 1))
    assert np.mean(original == 0) > 0.5 and np.mean(noisy == 0) < 0.5
    with pytest.raises(TrainingError, match="does not fit the model, or is damaged"):
        load_weights(Experiment("supair", "noisy_mnist", "paper", 0).build(), air_run)
    with pytest.raises(TrainingError, match="no checkpoint here"):
        load_weights(Experiment("air", "noisy_mnist", "paper", 0).build(), tmp_path)


def test_figures_of_pretrained_weights(small, tmp_path, capsys):
    """On a few scenes: SuPAIR's rows of Figure 6, and the scenes that are counted wrongly; runs that are asked for are looked for."""
    options = [*small[:4], "--output", str(tmp_path)]
    assert fig6_noise.main([*small, "--output", str(tmp_path), "--pretrained"]) == 0 and errors.main(options) == 0
    assert {path.name for path in tmp_path.glob("*.png")} == {"fig6_noise_pretrained.png", "errors.png"}
    lines = capsys.readouterr().out.splitlines()
    wrongs, too_many = ([line for line in lines if text in line] for text in (" wrong: ", "too many boxes"))
    for dataset, line, more in zip(data.DATASETS, wrongs, too_many, strict=True):
        test, (model, _) = data.load(dataset, 0, tmp_path / "data")["test"], load_model(runs.PRETRAINED / dataset)
        counts = np.asarray(model(test.read(0, 50)).count)
        wrong = np.sum(counts != test.counts)
        assert f": {wrong} of 50 wrong" in line and wrong < 10
        assert f"  {np.sum(counts > test.counts)} have too many boxes" in more
    assert errors.main([*options, "--datasets", "sprites"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " wrong: " in line)
    assert line.startswith("Sprites: ")
    with pytest.raises(TrainingError, match="supair/multi_mnist/robust/seed1/config.json: no such file"):
        errors.main([*options, "--recipe", "robust", "--seed", "1"])
    with pytest.raises(SystemExit):
        errors.main([*options, "--seed", "1"])
    assert "--seed names a run, so it needs --recipe" in capsys.readouterr().err


def test_errors_puts_the_first_box_behind_all_others(monkeypatch):
    """As if the inference network had found the others first."""
    model, images = SuPAIR(dataclasses.replace(tiny.MODEL, num_steps=3), 3), tiny.scenes(6).read(0, 6)
    boxes, _, log_p, without_first = errors.evaluate(model, images)
    description = model(images)
    rolled = description._replace(where_loc=tf.gather(description.where_loc, [1, 2, 0], axis=1))
    monkeypatch.setattr(model, "inference", lambda images: rolled)
    others, _, expected, _ = errors.evaluate(model, images)
    np.testing.assert_array_equal(others, np.asarray(boxes)[:, [1, 2, 0]])
    np.testing.assert_allclose(without_first, expected, rtol=1e-4)
    assert np.abs(without_first - log_p)[:, 1].max() > 0.5  # nats, of N = 1


def test_shards_do_every_run_once_and_the_last_one_draws(unchecked, small, tmp_path, monkeypatch, capsys):
    """all.py without training: runs only leave a log."""
    done = []

    def run_apart(jobs, settings):
        for job in jobs:
            done.append(job)
            folder = settings.runs / job.experiment.path
            if not (folder / "log.jsonl").exists():
                write_log(folder, range(1, 24), epochs=(0.3, 0.5, *range(1, 22)))

    monkeypatch.setattr(runs, "run_apart", run_apart)
    monkeypatch.setattr(Job, "is_done", lambda self, folder: self in done)
    monkeypatch.setattr(fig6_noise, "draw", lambda settings, seed: Figure())
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: path.write_text("a figure"))  # drawing takes long
    options = [*small, "--output", str(tmp_path / "out")]
    first = run_all.main(["--shard", "1/2", *options])
    assert first == 0 and "jobs of the others are not" in capsys.readouterr().out and not list((tmp_path / "out").iterdir())
    assert run_all.main(["--shard", "2/2", *options]) == 0
    assert set(done) == {job for jobs in run_all.phases() for job in jobs} and len(set(done)) == len(done) == 100 + 80 + 5
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "fig4_progress.png", "fig5_learning.png", "fig5_learning_epochs.png", "fig6_noise.png",
    }  # fmt: skip
    assert "SuPAIR, Poon-Domingos\nMulti-MNIST 20 epochs" in capsys.readouterr().out
    log = tmp_path / "runs/supair/grid_mnist/paper/seed4/log.jsonl"
    log.write_text("{}\n")
    (tmp_path / "runs/supair/sprites/paper/seed0/log.jsonl").unlink()
    assert run_all.main(options) == 1  # what can be shown, is
    captured = capsys.readouterr()
    assert f"error: {log}: damaged" in captured.err and "seed0: no boxes near epoch" in captured.err
    assert "fig5_learning.png" in captured.out and f"Failed: {log}: damaged" in captured.out


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b"])
def test_wrong_shards_are_refused(shard, capsys):
    with pytest.raises(SystemExit):
        run_all.main(["--shard", shard])
    assert "argument --shard: expected K/N" in capsys.readouterr().err


def test_recorded_runs_stand_beside_measured_ones(unchecked, small, tmp_path, monkeypatch, capsys):
    for module in (runs, table2, record):
        monkeypatch.setattr(module, "RECORDED", tmp_path / "results")
    for seed, accuracy, steps in ((0, 0.9, (1, 2)), (7, 0.8, (1, 2)), (8, 0.1, (1,))):
        write_log(tmp_path / f"runs/supair/sprites/paper/seed{seed}", steps, accuracy)
    names = [f"supair/sprites/paper/seed{seed}" for seed in (0, 7, 8)]
    assert record.main(["--runs", str(tmp_path / "runs"), "--note", "shared", "--seconds-per-step", "0.1", *names]) == 0
    written = json.loads((tmp_path / "results" / names[1] / "record.json").read_text())
    assert unseal(written) == {"seconds_per_step": 0.1, "note": "shared"}
    options = ["--models", "supair", "--datasets", "sprites", "--epochs", "2"]
    assert table2.main(["--recorded", *options]) == 0
    out = capsys.readouterr().out
    row = [line for line in out.splitlines() if line.startswith("Sprites")][0]
    assert "85.0 ± 7.1" in row and row.split()[-4:-2] == ["0", "2"] or row.split()[-5:] == ["2", "0", "0", "of", "2"], row
    assert "1 of 3 runs have not got to epoch 2 yet: SuPAIR, Sprites, seed 8." in out
    assert table2.main([*options, "--seeds", "0", *small]) == 0
    row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Sprites")][0]
    assert row.split()[3:8] == ["99.2", "85.0", "±", "7.1", "90.0"]
    assert table2.main([*options, "--no-train", "--seeds", "9", *small]) == 0
    row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Sprites")][0]
    assert row.split()[3:] == ["99.2", "85.0", "±", "7.1", "-", "5022", "100", "±", "0", "-"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["/tmp/x"], "expected MODEL/DATASET/RECIPE/seedN, found /tmp/x"),
        (["../a/b/c"], "expected MODEL/DATASET/RECIPE/seedN"),
        (["--seconds-per-step", "nan", "air/sprites/paper/seed0"], "expected seconds above 0, found nan"),
    ],
)
def test_wrong_records_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        record.main(arguments)
    assert message in capsys.readouterr().err


def test_the_recorded_runs_of_this_repository_can_be_read(capsys):
    assert table2.main(["--recorded"]) == 0
    assert "Failed" not in capsys.readouterr().out
