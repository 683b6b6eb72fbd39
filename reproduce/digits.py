"""Density estimation: two SPNs and a mixture of Gaussians of the same size on the digits of MNIST.

    python reproduce/digits.py            12 epochs on 60,000 digits, a table, and the figure `digits`
    python reproduce/digits.py --quick    1 epoch on 6,000 digits: a smoke run

The SPNs have random halves (a RAT-SPN) and rectangles (Poon and Domingos) as regions and are trained with Adam; the
mixture has diagonal covariances and is fitted by EM.  All have the same bounds of the variances, and random training digits
as their first means.  Grey levels are dequantised: (level + u) / 256, u uniform in [0, 1), drawn once; so 8 minus the log
density of a pixel in bits bounds its code length from above.

Rows of the figure: test digits; samples of each model; the digits with a half hidden; that half completed by the SPN of
rectangles, with the means of the most probable leaves and with two samples.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import NamedTuple

import _setup
import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from scipy.special import logit
from tqdm import tqdm

from data import DataError
from data.scenes import load_mnist
from rat_spn import RatSpn, poon_domingos_region_graph, random_region_graph
from reproduce.runs import commit
from supair.figures import draw_scene
from supair.hardware import describe_machine

PIXELS, COLUMNS = 28 * 28, 12
EPOCHS, EM_STEPS, QUICK_EM_STEPS, QUICK_DIGITS = 12, 50, 5, 6000
BATCH, LEARNING_RATE = 256, 0.02  # falls to 0 with a cosine
# Structure, components and sums: the paper's object model, and one with about as many parameters.
SPNS = {
    "SPN, random": (lambda seed: random_region_graph(PIXELS, depth=2, repetitions=6, seed=seed), 20, 20),
    "SPN, rectangles": (lambda seed: poon_domingos_region_graph(28, 28, step=14, depth=2), 64, 11),
}


class Mixture(NamedTuple):
    """A mixture of K Gaussians with diagonal covariances, float32: mean and variance [K, D], log_weight [K]."""

    mean: np.ndarray
    variance: np.ndarray
    log_weight: np.ndarray

    def log_prob(self, x):
        """Log density [batch] of x [batch, D]."""
        return tf.reduce_logsumexp(log_joint(x, *self), axis=1)

    def sample(self, num_samples: int, seed) -> np.ndarray:
        """Samples [num_samples, D]."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.mean), size=num_samples, p=tf.nn.softmax(self.log_weight.astype(float)))
        return self.mean[chosen] + np.sqrt(self.variance[chosen]) * rng.standard_normal(self.mean[chosen].shape)

    def count_params(self) -> int:
        return sum(array.size for array in self)


def log_joint(x, mean, variance, log_weight):
    """Log of weight times density, [batch, K]."""
    by_value = tf.concat([-0.5 / variance, mean / variance], axis=1)
    constant = log_weight - 0.5 * tf.reduce_sum(mean**2 / variance + tf.math.log(2 * math.pi * variance), axis=1)
    return tf.matmul(tf.concat([x**2, x], axis=1), by_value, transpose_b=True) + constant


@tf.function(jit_compile=True)
def expectations(x, mean, variance, log_weight):
    """Sums over the batch of the responsibilities [K], and of them times x and x² [K, D]."""
    responsibility = tf.nn.softmax(log_joint(x, mean, variance, log_weight), axis=1)
    return tf.reduce_sum(responsibility, axis=0), *(tf.matmul(responsibility, power, transpose_a=True) for power in (x, x**2))


def fit_mixture(x: np.ndarray, num_components: int, bounds: tuple[float, float], steps: int, seed: int) -> Mixture:
    """EM from random rows of x [n, D] as means.  The best variance within bounds is the unbounded best one, clipped."""
    mean = x[np.random.default_rng(seed).choice(len(x), num_components, replace=False)]
    variance = np.tile(np.clip(x.var(axis=0), *bounds), [num_components, 1])
    mixture = Mixture(mean, variance, np.full(num_components, -math.log(num_components), np.float32))
    for _ in tqdm(range(steps), desc="mixture", unit="EM step", disable=None):
        batches = (expectations(x[start : start + 5000], *mixture) for start in range(0, len(x), 5000))
        count, first, second = (np.sum(part, axis=0, dtype=float) for part in zip(*batches))
        count = np.maximum(count, 1e-6)  # of a component that no digit wants any more
        mean = first / count[:, None]
        variance = np.clip(second / count[:, None] - mean**2, *bounds)
        mixture = Mixture(*(array.astype(np.float32) for array in (mean, variance, np.log(count / count.sum()))))
    return mixture


def fit_spn(name: str, x: np.ndarray, bounds: tuple[float, float], epochs: int, seed: int) -> RatSpn:
    """Adam on the mean log density of batches of x [n, D]; the leaves start with random rows of x and with its variance."""
    graph, num_components, num_sums = SPNS[name]
    spn = RatSpn(graph(seed), num_components, num_sums, *bounds, seed=seed)
    rng = np.random.default_rng(seed)
    variables = np.concatenate(spn.leaf_layer.regions)  # to which of them each row of the leaves' weights belongs
    spn.leaf_layer.mean.assign(x[rng.choice(len(x), num_components, replace=False)][:, variables].T)
    share = np.clip((x.var(axis=0) - bounds[0]) / (bounds[1] - bounds[0]), 0.01, 0.99)  # where the sigmoid still has a slope
    spn.leaf_layer.variance_logit.assign(np.tile(logit(share)[variables, None], [1, num_components]))
    steps = len(x) // BATCH
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * steps))
    optimizer.build(spn.trainable_variables)

    @tf.function(jit_compile=True)
    def train(batch):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(spn.log_prob(batch))
        optimizer.apply(tape.gradient(loss, spn.trainable_variables), spn.trainable_variables)

    batches = (rows for _ in range(epochs) for rows in rng.permutation(len(x))[: steps * BATCH].reshape(steps, BATCH))
    for rows in tqdm(batches, total=epochs * steps, desc=name, unit="step", disable=None):
        train(x[rows])
    return spn


def mean_log_prob(model: RatSpn | Mixture, x: np.ndarray) -> float:
    """Nats a digit."""
    log_prob = tf.function(model.log_prob, jit_compile=True)
    return float(np.mean(np.concatenate([log_prob(x[start : start + 1000]) for start in range(0, len(x), 1000)]), dtype=float))


def load(arguments: argparse.Namespace) -> list[np.ndarray]:
    """Training and test digits, dequantised, float32 [n, 784]."""
    parts = [digits[: QUICK_DIGITS if arguments.quick else None] for digits in load_mnist(arguments.mnist).values()]
    if len(parts[0]) < BATCH or len(parts[1]) < COLUMNS:
        raise DataError(f"{arguments.mnist}: expected at least {BATCH} and {COLUMNS} digits, found {[*map(len, parts)]}")
    rng = np.random.default_rng(arguments.seed)
    return [(part.reshape(-1, PIXELS) + rng.random([len(part), PIXELS], np.float32)) / np.float32(256) for part in parts]


def draw(models: dict[str, RatSpn | Mixture], digits: np.ndarray, seed: int) -> Figure:
    spn = models["SPN, rectangles"]
    observed = np.repeat([[1, 0]], PIXELS // 2, axis=1).astype(np.float32) * np.ones_like(digits)
    rows = {"test digits": digits}
    rows |= {f"samples:\n{name}": model.sample(len(digits), (seed, 0)) for name, model in models.items()}
    rows["half hidden"] = np.where(observed, digits, 0.5)
    rows["completed:\nmeans"] = np.where(observed, digits, spn.reconstruct(digits, observed))
    rows |= {f"completed:\nsample {number}": spn.sample_conditional(digits, observed, (seed, number)) for number in (1, 2)}
    figure = Figure(figsize=(0.8 * len(digits) + 1, 0.8 * len(rows)))
    axes = figure.subplots(len(rows), len(digits), gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for line, (name, images) in zip(axes, rows.items()):
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
        for panel, image in zip(line, np.reshape(images, [-1, 28, 28])):
            draw_scene(panel, image)
    return figure


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    quick, bounds, seed = arguments.quick, arguments.variance, arguments.seed
    train, test = load(arguments)
    how = {"seed": seed, "variance": bounds, "quick": quick, "digits": [len(train), len(test)], "commit": commit()}
    models, table = {}, []
    print(f"{'':<16}{'parameters':>11}{'train, nats':>13}{'test, nats':>12}{'test, bits a pixel':>20}{'seconds':>9}")
    for name in (*SPNS, "mixture"):
        start = time.perf_counter()
        if name in SPNS:
            model = fit_spn(name, train, bounds, 1 if quick else EPOCHS, seed)
        else:
            size = round(table[0]["parameters"] / (2 * PIXELS + 1))
            model = fit_mixture(train, size, bounds, QUICK_EM_STEPS if quick else EM_STEPS, seed)
        seconds = time.perf_counter() - start
        nats = {"train": mean_log_prob(model, train), "test": mean_log_prob(model, test)}
        row = {"parameters": model.count_params(), **nats, "bits": 8 - nats["test"] / PIXELS / math.log(2), "seconds": seconds}
        print(name.ljust(16) + "{:>11,}{:>13.1f}{:>12.1f}{:>20.3f}{:>9.0f}".format(*row.values()), flush=True)
        table.append({"model": name, **row})
        models[name] = model
    _setup.save_figure(draw(models, test[:COLUMNS], seed), arguments.output / "digits")
    if arguments.json:
        _setup.write_json(arguments.json, {**how, "machine": describe_machine(), "table": table})
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = _setup.parser(__doc__)
    parser.add_argument("--seed", type=_setup.seed, default=0, help="decides everything (default: 0)")
    parser.add_argument(
        "--variance", type=float, nargs=2, default=(0.01, 0.25), metavar=("MIN", "MAX"),
        help="bounds of every variance (default: 0.01 0.25; grey levels have at most 0.25)",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help=f"1 epoch on {QUICK_DIGITS:,} digits only")
    _setup.add_mnist(parser)
    _setup.add_json(parser, "the table with machine and commit")
    _setup.add_output(parser)
    arguments = parser.parse_args(argv)
    if not 0 < arguments.variance[0] < arguments.variance[1] < math.inf:
        parser.error("argument --variance: expected 0 < MIN < MAX, found {} {}".format(*arguments.variance))
    return arguments


if __name__ == "__main__":
    _setup.exit_with(main)
