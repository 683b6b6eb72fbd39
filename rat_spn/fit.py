"""Learning the weights of a RatSpn: expectation maximisation, or gradients."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from rat_spn.spn import RatSpn


def fit(
    spn: RatSpn,
    x,
    labels=None,
    method: str | keras.optimizers.Optimizer = "em",
    epochs: int = 10,
    batch_size: int = 256,
    decay: float = 0.7,
    discriminative: float = 0.0,
    seed: int = 0,
    on_epoch_end: Callable[[int], None] = lambda epochs: None,
) -> list[float]:
    """Maximise the mean over rows of x of log p(x) or, with labels, of log p(x | label).

    "em" is stochastic expectation maximisation (Cappé & Moulines, 2009): step t = 1, 2, .. moves
    running means of expected statistics by the share (t + 1)^-decay towards the batch's, and sets
    the weights to the likeliest for them.  With `decay=0` and all rows in a batch it is plain EM,
    where the likelihood never falls.  Leaves that start alike stay alike: let means start at rows.

    Args:
      x: [n, D]; NaN is not observed.
      labels: the class of each row, [n].
      method: "em" or an optimizer, such as `keras.optimizers.Adam(0.02)`.
      epochs, batch_size: each epoch takes rows in a new order, without the last, smaller batch.
      discriminative: for an optimizer a share s from 0 to 1, which makes the objective log p(x |
        label) - s log sum_c p(x | c): the negative cross-entropy at 1.
      seed: decides the order of rows.
      on_epoch_end: called with the number of epochs so far.

    Returns:
      For each epoch the mean of the objective in nats, each batch's before its step.
    """
    em, x = method == "em", np.asarray(x, spn.compute_dtype)
    if discriminative and (labels is None or em):
        raise ValueError("expected labels and an optimizer for a discriminative objective")
    if labels is not None:
        labels, expected = np.asarray(labels, np.int32), f"labels 0 .. {spn.num_classes - 1}"
        if not np.all((0 <= labels) & (labels < spn.num_classes)):
            raise ValueError(f"expected {expected}, found {labels.min()} .. {labels.max()}")
    update = _em_update(spn, decay) if em else _gradient_update(spn, method, discriminative)
    step = tf.function(update, jit_compile=True, autograph=False)
    rng, size, history = np.random.default_rng(seed), min(batch_size, len(x)), []
    for epoch in range(epochs):
        batches = rng.permutation(len(x))[: len(x) // size * size].reshape(-1, size)
        means = [step(x[rows], None if labels is None else labels[rows]) for rows in batches]
        history.append(float(np.mean(means)))
        on_epoch_end(epoch + 1)
    return history


def _em_update(spn: RatSpn, decay: float) -> Callable:
    layers = spn.leaf_layer, *spn.sum_layers
    means = [[tf.Variable(s) for s in layer.prior_statistics()] for layer in layers]
    time = tf.Variable(1.0, dtype=spn.compute_dtype)

    def update(x, labels):
        log_prob, statistics = spn.expected_statistics(x, labels)
        share = time.assign_add(1.0) ** -decay
        for layer, old, new in zip(layers, means, statistics):
            moved = [mean.assign_add(share * (s - mean)) for mean, s in zip(old, new)]
            # A trace of the weights as they are: what no row reaches stays so.
            own = layer.prior_statistics()
            layer.maximize(*(mean + 1e-12 * s for mean, s in zip(moved, own)))
        return log_prob

    return update


def _gradient_update(spn: RatSpn, optimizer, discriminative: float) -> Callable:
    optimizer, variables = keras.optimizers.get(optimizer), spn.trainable_variables
    optimizer.build(variables)

    def update(x, labels):
        with tf.GradientTape() as tape:
            by_class = spn.class_log_prob(x)
            loss = -spn.mix_classes(by_class, labels)
            if discriminative:
                loss += discriminative * tf.reduce_logsumexp(by_class, axis=1)
            loss = tf.reduce_mean(loss)
        optimizer.apply(tape.gradient(loss, variables), variables)
        return -loss

    return update
