"""What `rat_spn` does alone, on MNIST: densities by EM and by Adam; digits filled in; and classes,
with pixels missing.

Usage: python reproduce/digits.py
Grey levels are (level + u) / 256, u uniform in [0, 1).
"""

import common
import numpy as np
from scipy.special import logit

from data.scenes import load_mnist

PIXELS, COLUMNS = 28 * 28, 12
EPOCHS, RATE = 12, 0.03  # Adam's falls to 0 with a cosine
VARIANCES = 0.01, 0.25  # bounds; grey levels have at most 0.25
METHODS, SIZES = ("Adam", "EM"), (20, 20)  # components and sums
CLASS_SIZES = {"num_components": 10, "num_sums": 10, "variance_min": 0.3, "variance_max": 2.0}
MISSING = 0.0, 0.25, 0.5, 0.75, 0.9  # shares of pixels


def adam(size: int):
    from keras import optimizers

    return optimizers.Adam(optimizers.schedules.CosineDecay(RATE, EPOCHS * (size // 256)))


def start(spn, x: np.ndarray, seed: int):
    """The SPN with its leaves' means at rows of x [n, D], and with x's variances."""
    leaves, size, rng = spn.leaf_layer, spn.leaf_layer.num_components, np.random.default_rng(seed)
    variables = np.concatenate(leaves.regions)  # the variable of every row of the weights
    leaves.mean.assign(x[rng.choice(len(x), size, replace=False)][:, variables].T)
    share = (x.var(axis=0) - spn.variance_min) / (spn.variance_max - spn.variance_min)
    logits = logit(np.clip(share, 0.01, 0.99))  # where the sigmoid still has a slope
    leaves.variance_logit.assign(np.tile(logits[variables, None], [1, size]))
    return spn


def batched(function, x: np.ndarray) -> np.ndarray:
    return np.concatenate([function(x[k : k + 1000]) for k in range(0, len(x), 1000)])


def fit_density(method: str, train: np.ndarray, test: np.ndarray, seed: int):
    """An SPN as the object model, and its row of the record: the test nats after every pass."""
    from rat_spn import RatSpn, fit, random_region_graph

    graph = random_region_graph(PIXELS, depth=2, repetitions=6, seed=seed)
    spn = start(RatSpn(graph, *SIZES, *VARIANCES, seed=seed), train, seed)
    nats, optimizer = [], "em" if method == "EM" else adam(len(train))
    measure = {"on_epoch_end": lambda _: nats.append(float(np.mean(batched(spn.log_prob, test))))}
    fit(spn, train, None, optimizer, EPOCHS, seed=seed, **measure)
    row = {"method": method, "seed": seed, "nats": nats}
    return spn, row | {"parameters": spn.count_params()}


def fill_in(spn, x: np.ndarray, seed: int) -> tuple[dict, dict]:
    """Rows of digits whose lower half is filled in, and how well that is done."""
    hidden = np.tile(np.arange(PIXELS) >= PIXELS // 2, [len(x), 1])
    seen = np.where(hidden, np.float32(np.nan), x)
    lower = batched(spn.log_prob, x) - batched(spn.log_prob, seen)
    scores = {"seed": seed, "lower half given the upper, nats": float(np.mean(lower))}
    mean = batched(spn.conditional_mean, seen)
    scores["squared error of the mean"] = float(np.mean((mean - x)[hidden] ** 2))
    x, hidden, seen, mean = (values[:COLUMNS] for values in (x, hidden, seen, mean))
    rows = {"test digits": x, "seen": np.where(hidden, 0.3, x), "mean": mean}
    rows["explained"] = np.where(hidden, spn.reconstruct(seen), x)
    rows["sample"] = spn.sample_conditional(seen, None, (seed, 1), leaf_noise=False)
    return rows, scores


def classify(digits, labels, seed: int) -> dict:
    """Test accuracy of an SPN with ten roots, by the share of pixels missing."""
    from rat_spn import RatSpn, fit, random_region_graph

    (train, test), rng = digits, np.random.default_rng(seed)
    graph = random_region_graph(PIXELS, depth=4, repetitions=20, seed=seed)
    spn = start(RatSpn(graph, **CLASS_SIZES, seed=seed, num_classes=10), train, seed)
    fit(spn, train, labels[0], adam(len(train)), EPOCHS, discriminative=1.0, seed=seed)
    row = {"seed": seed, "parameters": spn.count_params()}
    for share in MISSING:
        seen = np.where(rng.random(test.shape) < share, np.float32(np.nan), test)
        guess = np.argmax(batched(spn.class_log_prob, seen), axis=1)
        row[f"{share}"] = float(np.mean(guess == labels[1]))
    return row


def draw(found: dict[str, list[dict]], rows: dict):
    """Learning curves, accuracies, and digits filled in."""
    figure = common.new_figure(11, 10, layout="constrained")
    curves, images = figure.subfigures(2, height_ratios=[2, 3])
    left, right = curves.subplots(1, 2)
    for row in found["densities"]:
        label = row["method"] if row["seed"] == found["classes"][0]["seed"] else None
        color = f"C{METHODS.index(row['method'])}"
        left.plot(range(1, EPOCHS + 1), row["nats"], label=label, color=color)
    left.set(xlabel="passes over the digits", ylabel="test nats a digit")
    left.legend()
    for row in found["classes"]:
        right.plot(MISSING, [row[f"{share}"] for share in MISSING], ".-", color="C2")
    right.set(xlabel="share of pixels missing", ylabel="accuracy", ylim=(0, 1))
    for axes, (name, digits) in zip(images.subplots(len(rows)), rows.items()):
        digits = np.reshape(digits, [-1, 28, 28])
        framed = np.pad(digits, [(0, 0), (1, 1), (1, 1)], constant_values=1)
        axes.imshow(np.hstack(framed), cmap="gray", vmin=0, vmax=1)
        axes.set(xticks=[], yticks=[], frame_on=False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def main(argv: list[str] | None = None) -> int:
    parser = common.parser(__doc__)
    common.add_seeds(parser, "0-2")
    common.add_mnist(parser)
    common.add_json(parser, "the numbers")
    common.add_output(parser)
    options = parser.parse_args(argv)
    levels = [part.reshape(-1, PIXELS) for part in load_mnist(options.mnist).values()]
    labels = [np.load(options.mnist)[f"y_{part}"] for part in ("train", "test")]
    found = {"densities": [], "filled in": [], "classes": []}
    for seed in options.seeds or range(3):
        rng = np.random.default_rng(seed)
        digits = [(part + rng.random(part.shape, np.float32)) / np.float32(256) for part in levels]
        for method in METHODS:
            spn, row = fit_density(method, *digits, seed)
            found["densities"].append(row)
            print(row)
        rows, scores = fill_in(spn, digits[1], seed)
        found["filled in"].append(scores)
        found["classes"].append(classify(digits, labels, seed))
        print(scores, found["classes"][-1], sep="\n")
    if options.json:
        common.write_json(options.json, {"commit": common.commit(), **found})
    common.save_figure(draw(found, rows), options.output / "digits")
    return 0


if __name__ == "__main__":
    common.run(main)
