"""Density estimation on MNIST: SPNs of random halves (a RAT-SPN) and of rectangles (Poon and
Domingos), and a mixture of diagonal Gaussians as large, all with the same bounds of variances.

Usage: python reproduce/digits.py
Grey levels are (level + u) / 256, u uniform in [0, 1), drawn once; so 8 minus the log density of a
pixel in bits bounds its code length from above.
"""

from __future__ import annotations

from typing import NamedTuple

import common
import numpy as np
from scipy.special import logit, logsumexp, softmax
from tqdm import tqdm

from data.scenes import load_mnist

PIXELS, COLUMNS = 28 * 28, 12
EPOCHS, EM_STEPS, BATCH, LEARNING_RATE = 12, 50, 256, 0.02  # falls to 0 with a cosine
VARIANCES = 0.01, 0.25  # bounds; grey levels have at most 0.25
# Components and sums: the paper's object model, and one with about as many parameters.
SPNS = {"SPN, random": (20, 20), "SPN, rectangles": (64, 11)}


class Mixture(NamedTuple):
    """A mixture of K Gaussians with diagonal covariances, float32."""

    mean: np.ndarray  # [K, D]
    variance: np.ndarray  # [K, D]
    log_weight: np.ndarray  # [K]

    def log_joint(self, x: np.ndarray) -> np.ndarray:
        """Log of weight times density of x [batch, D], [batch, K]."""
        mean, variance = self.mean, self.variance
        by_square = np.sum(mean**2 / variance + np.log(2 * np.pi * variance), axis=1)
        products = x @ (mean / variance).T - x**2 @ (0.5 / variance).T
        return products + (self.log_weight - 0.5 * by_square)

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log density [batch] of x [batch, D]."""
        return logsumexp(self.log_joint(x), axis=1)

    def sample(self, num_samples: int, seed) -> np.ndarray:
        """Samples [num_samples, D]."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(self.mean), num_samples, p=softmax(self.log_weight.astype(float)))
        return rng.normal(self.mean[chosen], np.sqrt(self.variance[chosen]))

    def count_params(self) -> int:
        return sum(array.size for array in self)


def fit_mixture(x: np.ndarray, num_components: int, steps: int, seed: int) -> Mixture:
    """EM from random rows of x [n, D]; the best variance within bounds is the best one, clipped."""
    mean = x[np.random.default_rng(seed).choice(len(x), num_components, replace=False)]
    variance = np.tile(np.clip(x.var(axis=0), *VARIANCES), [num_components, 1])
    mixture = Mixture(mean, variance, np.full(num_components, -np.log(num_components), np.float32))
    for _ in tqdm(range(steps), desc="mixture", unit="EM step", disable=None):
        share = softmax(mixture.log_joint(x), axis=1).T  # [K, n]
        count = np.maximum(share.sum(axis=1, keepdims=True), 1e-6)  # a component may have no digit
        mean = share @ x / count
        variance = np.clip(share @ x**2 / count - mean**2, *VARIANCES)
        mixture = Mixture(mean, variance, np.log(count[:, 0] / len(x)))
    return mixture


def fit_spn(name: str, x: np.ndarray, epochs: int, seed: int):
    """A RatSpn by Adam on batches of x [n, D]; its leaves start at rows, with x's variance."""
    import keras
    import tensorflow as tf

    from rat_spn import RatSpn, poon_domingos_region_graph, random_region_graph

    if name == "SPN, random":
        graph = random_region_graph(PIXELS, depth=2, repetitions=6, seed=seed)
    else:
        graph = poon_domingos_region_graph(28, 28, step=14, depth=2)
    num_components, num_sums = SPNS[name]
    spn = RatSpn(graph, num_components, num_sums, *VARIANCES, seed=seed)
    rng = np.random.default_rng(seed)
    variables = np.concatenate(spn.leaf_layer.regions)  # the variable of every row of the weights
    spn.leaf_layer.mean.assign(x[rng.choice(len(x), num_components, replace=False)][:, variables].T)
    share = (x.var(axis=0) - VARIANCES[0]) / np.diff(VARIANCES)
    start = logit(np.clip(share, 0.01, 0.99))  # where the sigmoid still has a slope
    spn.leaf_layer.variance_logit.assign(np.tile(start[variables, None], [1, num_components]))
    steps = len(x) // BATCH
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * steps)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(spn.trainable_variables)

    @tf.function(jit_compile=True)
    def train_step(batch):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(spn.log_prob(batch))
        optimizer.apply(tape.gradient(loss, spn.trainable_variables), spn.trainable_variables)

    for _ in tqdm(range(epochs), desc=name, unit="epoch", disable=None):
        for rows in rng.permutation(len(x))[: steps * BATCH].reshape(steps, BATCH):
            train_step(x[rows])
    return spn


def mean_log_prob(model, x: np.ndarray) -> float:
    """Nats a digit."""
    batches = [model.log_prob(x[start : start + 1000]) for start in range(0, len(x), 1000)]
    return float(np.mean(np.concatenate(batches), dtype=float))


def draw_rows(rows: dict):
    """A figure of rows of square images, [n, side, side] or [n, side²] in [0, 1], by name."""
    rows = {name: images for name, images in rows.items() if len(images)}
    figure = common.new_figure(10, 0.9 * len(rows))
    for axes, (name, images) in zip(figure.subplots(len(rows)), rows.items()):
        side = round(np.size(images[0]) ** 0.5)
        images = np.reshape(images, [-1, side, side])
        framed = np.pad(images, [(0, 0), (1, 1), (1, 1)], constant_values=1)
        axes.imshow(np.hstack(framed), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    parser.add_argument("--seed", type=common.seed, default=0, help="of everything (default: 0)")
    common.add_mnist(parser)
    common.add_json(parser, "the table", "table")
    common.add_output(parser)
    options = parser.parse_args(argv)
    seed, rng = options.seed, np.random.default_rng(options.seed)
    print("About 8 minutes; at once: recorded/digits.json and figures/digits.png in reproduce/")
    parts = [digits.reshape(-1, PIXELS) for digits in load_mnist(options.mnist).values()]
    train, test = [(part + rng.random(part.shape, np.float32)) / np.float32(256) for part in parts]
    models = {name: fit_spn(name, train, EPOCHS, seed) for name in SPNS}
    size = round(models["SPN, random"].count_params() / (2 * PIXELS + 1))  # as large as that one
    models["mixture"] = fit_mixture(train, size, EM_STEPS, seed)
    table, rows = [], {"test digits": test[:COLUMNS]}
    print(" " * 17 + "parameters  train, nats  test, nats  test, bits a pixel")
    for name, model in models.items():
        nats = {"train": mean_log_prob(model, train), "test": mean_log_prob(model, test)}
        bits = 8 - nats["test"] / PIXELS / np.log(2)
        table.append({"model": name, "parameters": model.count_params(), **nats, "bits": bits})
        print("{:16}{:>11,}{:>13.1f}{:>12.1f}{:>20.3f}".format(*table[-1].values()))
        rows[f"samples:\n{name}"] = model.sample(COLUMNS, (seed, 0))
    if options.json:
        common.write_json(options.json, {"seed": seed, "table": table})
    common.save_figure(draw_rows(rows), options.output / "digits")
    return 0


if __name__ == "__main__":
    common.run(main)
