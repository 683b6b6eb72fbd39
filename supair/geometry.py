"""Boxes, crops and occlusion (paper, section 3.2).

A box is z_where = (width / A, height / A, left, top) with the edges in scene pixels; it may reach
beyond the scene.  Boxes are parallel to the axes, so bilinear interpolation is separable: a crop is
W_row · image · W_columnᵀ.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class SceneParts(NamedTuple):
    """A batch of scenes taken apart by their boxes.  Steps come first, and step 1 is in front."""

    patches: tf.Tensor  # [step, batch, A, A], the boxes' content
    visible: tf.Tensor  # M^i [step, batch, A, A] in [0, 1], 0 where occluded or outside the scene
    background_maps: tf.Tensor  # M^bg, what 0 .. N_max objects leave, [step + 1, batch, B, B]
    overlap: tf.Tensor  # [step, batch], the occluded share of every object

    @property
    def vectors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The patches and what is visible of them, [step * batch, A²] each, for an SPN."""
        size = self.patches.shape[-1] ** 2
        return tf.reshape(self.patches, [-1, size]), tf.reshape(self.visible, [-1, size])


def hat(offsets):
    """Weight of a pixel in bilinear interpolation, by its offset from the point."""
    return tf.nn.relu(1.0 - tf.abs(offsets))


def hat_slope(offsets):
    """Derivative of `hat` by the point."""
    return tf.where(tf.abs(offsets) < 1.0, tf.sign(offsets), 0.0)


def at_most_one(values):
    """min(1, values), whose gradient at 1 itself, where boxes have most of their pixels, is 0."""
    return tf.minimum(tf.ones_like(values), values)


@tf.custom_gradient
def crop(images, rows, columns):
    """Bilinear samples of images at a grid of points, zero beyond the outermost pixels.

    A row of samples mixes two neighbouring rows of pixels, which are gathered; the columns are a
    product with the hats, because neighbours in a row cannot be gathered as fast.  The gradient is
    written by hand, as products: the derivative by a point is the difference of two neighbours, and
    that of a gather would be a scatter, slow on a CPU.

    Images [..., B, B] and coordinates [..., A] in pixels, from -1 to B, give [..., A, A].
    """
    size = images.shape[-1]
    pixels = tf.range(size, dtype=rows.dtype)
    above = tf.floor(rows)
    row_of = tf.reshape(images, [-1, size])  # [images * B, B]
    first = tf.range(tf.size(rows) // rows.shape[-1]) * size
    first = tf.reshape(first, [*tf.unstack(tf.shape(rows)[:-1]), 1])  # [..., 1], an image's row 0

    def pixel_rows(index):  # [..., A, B]; zeros beyond the first and the last
        inside = (index >= 0) & (index <= size - 1)
        row = tf.clip_by_value(tf.cast(index, tf.int32), 0, size - 1)  # integers: no NaN
        return tf.where(inside[..., tf.newaxis], tf.gather(row_of, first + row), 0.0)

    upper = pixel_rows(above)
    slope = pixel_rows(above + 1.0) - upper
    cut_rows = upper + (rows - above)[..., tf.newaxis] * slope
    column_offsets = pixels[:, tf.newaxis] - columns[..., tf.newaxis, :]  # [..., B, A]

    def grad(upstream):
        # Hats once more, transposed from the start: columns' [..., A, B], rows' [..., B, A].
        spread = tf.matmul(upstream, hat(pixels - columns[..., :, tf.newaxis]))
        by_image = tf.matmul(hat(pixels[:, tf.newaxis] - rows[..., tf.newaxis, :]), spread)
        by_row = tf.reduce_sum(spread * slope, axis=-1)
        slopes = tf.matmul(cut_rows, hat_slope(column_offsets))
        # Row by row: compiled for a CPU, `tf.reduce_sum` over an axis that is not the last is slow.
        products = [upstream[..., k, :] * slopes[..., k, :] for k in range(rows.shape[-1])]
        by_column = tf.add_n(products)
        return by_image, by_row, by_column

    return tf.matmul(cut_rows, hat(column_offsets)), grad


def extract_patches(images, z_where, patch_size: int) -> SceneParts:
    """Crop all boxes z_where [batch, step, 4] of images [batch, B, B] to A x A pixels, and find
    what each leaves visible of the boxes and the background behind."""
    size, steps = images.shape[1], z_where.shape[1]
    z_where = tf.transpose(z_where, [1, 0, 2])  # [step, batch, 4]
    # Both ends are included (code).
    grid = tf.linspace(tf.zeros([], z_where.dtype), float(patch_size), patch_size)
    rows = z_where[..., 1:2] * grid + z_where[..., 3:4]  # [step, batch, A]
    columns = z_where[..., 0:1] * grid + z_where[..., 2:3]

    def clip(low: float, high: float):
        return tf.clip_by_value(rows, low, high), tf.clip_by_value(columns, low, high)

    inside_rows, inside_columns = clip(0.0, size - 1.0001)
    every_step = tf.broadcast_to(images, [steps, *tf.unstack(tf.shape(images))])
    patches = crop(every_step, inside_rows, inside_columns)

    # The indicator I_i: how much the samples of box i together weigh on a pixel, at most 1.
    pixels = tf.range(size, dtype=z_where.dtype)
    row_hats = hat(pixels - inside_rows[..., tf.newaxis])  # [step, batch, A, B]
    column_hats = hat(pixels[:, tf.newaxis] - inside_columns[:, :, tf.newaxis])  # [.., B, A]
    row_sum = tf.reduce_sum(row_hats, axis=2)  # [step, batch, B]
    column_sum = tf.reduce_sum(column_hats, axis=3)
    maps = [tf.ones_like(images)]
    for step in range(steps):
        # An outer product as `matmul`, so that the backward pass is one too.
        covered = tf.matmul(row_sum[step, :, :, tf.newaxis], column_sum[step, :, tf.newaxis, :])
        indicator = at_most_one(covered)
        maps.append(maps[-1] * (1.0 - indicator))

    # Points are clipped to a border of zeros one pixel wide: what lies outside counts as hidden.
    border_rows, border_columns = clip(-1.0, size - 0.0001)
    # Nothing is in front of step 1: its crop of ones is what is inside along both axes, multiplied.
    row_share, column_share = (
        at_most_one(tf.minimum(1.0 + points[0], size - points[0]))
        for points in (border_rows, border_columns)
    )  # [batch, A]
    visible = (row_share[:, :, tf.newaxis] * column_share[:, tf.newaxis, :])[tf.newaxis]
    if steps > 1:
        behind = crop(tf.stack(maps[1:-1]), border_rows[1:], border_columns[1:])
        visible = tf.concat([visible, behind], axis=0)
    overlap = 1.0 - tf.reduce_mean(visible, axis=[2, 3])
    return SceneParts(patches, visible, tf.stack(maps), overlap)


def patch_points(start, scale, patch_size: int, scene_size: int):
    """Where in a patch the scene's pixels lie along an axis, [batch, B]: the crop's inverse."""
    pixels = tf.range(scene_size, dtype=start.dtype)
    points = (pixels - start) / scale * ((patch_size - 1) / patch_size)
    return tf.clip_by_value(points, -1.0, float(patch_size))
