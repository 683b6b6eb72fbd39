"""Figures 4, 5 and 6: what is drawn, from logs written by hand and tiny models."""

import numpy as np
import pytest
from tiny_reproduce import row, write_run

from data import DATASETS
from reproduce import experiments, fig4_progress, fig5_learning, fig6_noise, records
from reproduce.experiments import Experiment
from supair.config import TrainingError

MODELS = dict(experiments.MODELS)


def test_curves_are_means_over_the_seeds_that_got_to_their_end():
    """Rows past epoch 20 are left out; the curve ends where most measurements are on it."""
    steps = [(10, 1.0), (20, 2.0), (30, 21.0)]
    logs = {seed: [row(*step, a) for step in steps] for seed, a in ((0, 0.9), (1, 0.5))}
    logs[2] = [row(10, 1.0, 0.1, train_seconds=60.0)]
    curve = fig5_learning.collect(logs)
    assert curve.epochs.tolist() == [1, 2] and curve.seconds.tolist() == [30, 60]
    assert curve.accuracy.tolist() == [[0.9, 0.9], [0.5, 0.5]] and curve.left_out == [2]
    logs |= {seed: [row(10, 1.0, 0.2)] for seed in (4, 5)}
    curve = fig5_learning.collect(logs)
    assert curve.accuracy.tolist() == [[0.9], [0.5], [0.1], [0.2], [0.2]] and curve.left_out == []
    assert curve.seconds.tolist() == [(4 * 30 + 60) / 5]
    assert fig5_learning.collect({}) is None


def test_figure_5_draws_means_and_names_what_is_missing(tmp_path, capsys):
    for seed, accuracy in ((0, 0.4), (1, 0.6)):
        rows = [row(10, 1.0, accuracy), row(200, 20.0, accuracy)]
        write_run(tmp_path, Experiment("supair", "sprites", "paper", seed), rows)
    options = ["--runs", str(tmp_path), "--output", str(tmp_path / "out"), "--no-train"]
    assert fig5_learning.main(options) == 0
    names = {f"{name}.{kind}" for name in fig5_learning.FIGURES for kind in ("pdf", "png")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    missing = capsys.readouterr().err
    assert "AIR, Grid-MNIST" in missing and "SuPAIR, Sprites" not in missing
    logs = fig5_learning.read_logs("supair", "paper", "sprites", [0, 1], tmp_path)
    curves = dict.fromkeys([(*c, d) for c in fig5_learning.CURVES for d in DATASETS])
    curves["supair", "paper", "sprites"] = fig5_learning.collect(logs)
    axes = fig5_learning.draw(curves, "seconds").axes[1]
    [line] = [line for line in axes.lines if line.get_label() == "SuPAIR (2 seeds)"]
    assert line.get_xdata().tolist() == [30, 600] and line.get_ydata().tolist() == [50, 50]
    lines = fig5_learning.draw(curves, "epochs", True).axes[1].lines
    drawn = [line.get_ydata().tolist() for line in lines]
    assert [40, 40] in drawn and [60, 60] in drawn  # every run, beside the mean
    ends = [line.get_ydata()[0] for line in axes.lines[:3]]
    np.testing.assert_allclose(ends, [99.2, 97.6, 92])  # the paper's, of Sprites


def test_figure_4_shows_the_boxes_of_the_log(small, tmp_path, monkeypatch):
    found = {"z_pres": [[0.9, 0.2, 0.6]] * 10, "boxes": [[[4, 5, 20, 22]] * 3] * 10}
    epochs = enumerate([0.32, 0.55, 1, 3, 20], 1)
    rows = [row(step, epoch, examples=found) for step, epoch in epochs]
    runs = [Experiment("supair", dataset, "paper", 0) for dataset in fig4_progress.DATASETS]
    for run in runs:
        write_run(tmp_path / "runs", run, rows)
    options = fig4_progress.parse([*small, "--output", str(tmp_path)])
    figure = fig4_progress.draw(fig4_progress.collect(options, runs))
    first, second = figure.subfigs[0].axes[:2]
    assert len(first.lines) == 2  # steps 1 and 3 found something
    assert (first.get_title(), second.get_title()) == ("t = 0.32", "t = 0.55")
    recorded = fig4_progress.parse([*small, "--recorded"])
    halves = fig4_progress.collect(recorded, runs)
    assert [len(half.rows) for half in halves] == [5, 5] and halves[0].rows[4]["epoch"] == 20
    other = Experiment("supair", "multi_mnist", "paper", 1)
    write_run(tmp_path / "runs", other, rows[:2])
    with pytest.raises(TrainingError, match="Multi-MNIST, seed 1: .* epoch 1 "):
        fig4_progress.collect(options, [other])


def test_figure_6_trains_what_is_missing_and_draws_it(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fig6_noise, "PAPER_EPOCHS", 1)
    monkeypatch.setattr(fig6_noise, "DATASETS", ("noisy_mnist",))
    options = [*small, "--output", str(tmp_path)]
    assert fig6_noise.main(options) == 0
    assert (tmp_path / "runs/air/noisy_mnist/robust/seed0/log.jsonl").exists()
    run = Experiment("supair", "noisy_mnist", "robust", 0)
    best = records.measure_best_view(run, tmp_path / "runs" / run.path, tmp_path / "data")
    assert best["elbo"] > run.read_rows(tmp_path / "runs")[-1]["elbo"] and "examples" not in best
    assert (tmp_path / "fig6_noise.png").exists() and (tmp_path / "fig6_noise.pdf").exists()
    [(title, rows)] = fig6_noise.collect(fig6_noise.parse(options)).items()
    assert "SuPAIR 1, AIR 1" in title and len(rows) == 6
    assert np.mean(rows[0].images == 0) > 0.5 > np.mean(rows[1].images == 0)
    assert sorted(rows[0].counts)[:2] == [0, 1]  # one scene is empty
    assert rows[3].boxes is rows[2].boxes  # on the reconstruction as on the input


def test_figure_6_of_the_pretrained_weights_trains_nothing(small, tmp_path, monkeypatch):
    """The weights of this repository find the digits of these scenes."""
    monkeypatch.setattr(experiments, "MODELS", MODELS)
    halves = fig6_noise.collect(fig6_noise.parse([*small, "--pretrained"]))
    assert len(halves) == 2 and all("SuPAIR 20, AIR 20" in title for title in halves)
    for rows in halves.values():
        assert rows[2].present.sum(axis=1).tolist() == rows[0].counts.tolist()
    assert not (tmp_path / "runs").exists()
