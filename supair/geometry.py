"""Boxes, crops and occlusion (paper, section 3.2).

A box is z_where = (width / A, height / A, left, top) with the edges in scene pixels; it may reach beyond the scene.
Boxes are parallel to the axes, so bilinear interpolation is separable: a crop is W_row · image · W_columnᵀ.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class SceneParts(NamedTuple):
    """A batch of scenes taken apart by their boxes.  Steps come first here, and step 1 is in front."""

    patches: tf.Tensor  # [step, batch, A, A], the boxes' content
    visible: tf.Tensor  # [step, batch, A, A] in [0, 1], 0 where occluded by earlier steps or outside the scene
    background_maps: tf.Tensor  # [step + 1, batch, B, B] in [0, 1], what the first n objects leave of the scene
    overlap: tf.Tensor  # [step, batch], the occluded share of every object


def hat(offsets):
    """Weight of a pixel in bilinear interpolation, by its offset from the point."""
    return tf.nn.relu(1.0 - tf.abs(offsets))


def hat_slope(offsets):
    """Derivative of `hat` by the point."""
    return tf.where(tf.abs(offsets) < 1.0, tf.sign(offsets), 0.0)


def at_most_one(values):
    """min(1, values) in the values' precision; at 1 itself, where boxes have most of their pixels, the gradient is zero."""
    return tf.minimum(tf.ones_like(values), values)


@tf.custom_gradient
def crop(images, rows, columns):
    """Bilinear samples of images at the grid of `rows` and `columns`, zero beyond the outermost pixels.

    A row of samples mixes two neighbouring rows of pixels, which are gathered; the columns are a product with the
    hats, because neighbours in a row cannot be gathered as fast.  The gradient is written by hand, as products: the
    derivative by a point is the difference of two neighbours, and that of a gather would be a scatter, slow on a CPU.

    Args:
      images: [..., B, B].
      rows, columns: [..., A] coordinates in pixels, from -1 to B.

    Returns:
      [..., A, A].
    """
    size = images.shape[-1]
    pixels = tf.range(size, dtype=rows.dtype)
    above = tf.floor(rows)
    row_of = tf.reshape(images, [-1, size])
    first = tf.reshape(tf.range(tf.size(rows) // rows.shape[-1]) * size, [*tf.unstack(tf.shape(rows)[:-1]), 1])

    def pixel_rows(index):  # [..., A, B]; zeros beyond the first and the last
        inside = (index >= 0) & (index <= size - 1)
        found = tf.gather(row_of, first + tf.clip_by_value(tf.cast(index, tf.int32), 0, size - 1))  # integers: no NaN
        return tf.where(inside[..., tf.newaxis], found, 0.0)

    upper = pixel_rows(above)
    slope = pixel_rows(above + 1.0) - upper
    cut_rows = upper + (rows - above)[..., tf.newaxis] * slope
    column_offsets = pixels[:, tf.newaxis] - columns[..., tf.newaxis, :]  # [..., B, A]

    def grad(upstream):
        # Hats once more, transposed from the start: [..., A, B] for the columns, [..., B, A] for the rows.
        spread = tf.matmul(upstream, hat(pixels - columns[..., :, tf.newaxis]))
        by_image = tf.matmul(hat(pixels[:, tf.newaxis] - rows[..., tf.newaxis, :]), spread)
        by_row = tf.reduce_sum(spread * slope, axis=-1)
        slopes = tf.matmul(cut_rows, hat_slope(column_offsets))
        # Row by row, because `tf.reduce_sum` over an axis that is not the last is slow when compiled for a CPU.
        by_column = tf.add_n([upstream[..., k, :] * slopes[..., k, :] for k in range(rows.shape[-1])])
        return by_image, by_row, by_column

    return tf.matmul(cut_rows, hat(column_offsets)), grad


def take_apart(images, z_where, patch_size: int) -> SceneParts:
    """Crop all boxes, and find out what each leaves visible of the boxes and the background behind it.

    Args:
      images: [batch, B, B].
      z_where: [batch, step, 4].
      patch_size: A.
    """
    size, steps = images.shape[1], z_where.shape[1]
    z_where = tf.transpose(z_where, [1, 0, 2])  # [step, batch, 4]
    grid = tf.linspace(tf.zeros([], z_where.dtype), float(patch_size), patch_size)  # both ends included (code)
    rows = z_where[..., 1:2] * grid + z_where[..., 3:4]  # [step, batch, A]
    columns = z_where[..., 0:1] * grid + z_where[..., 2:3]

    inside_rows, inside_columns = (tf.clip_by_value(points, 0.0, size - 1.0001) for points in (rows, columns))
    every_step = tf.broadcast_to(images, [steps, *tf.unstack(tf.shape(images))])
    patches = crop(every_step, inside_rows, inside_columns)

    # The indicator I_i: how much the samples of box i together weigh on a pixel, at most 1.
    pixels = tf.range(size, dtype=z_where.dtype)
    row_sum = tf.reduce_sum(hat(pixels - inside_rows[..., tf.newaxis]), axis=2)  # [step, batch, B]
    column_sum = tf.reduce_sum(hat(pixels[:, tf.newaxis] - inside_columns[:, :, tf.newaxis]), axis=3)
    maps = [tf.ones_like(images)]
    for step in range(steps):
        # An outer product as `matmul`, so that the backward pass is one too.
        covered = tf.matmul(row_sum[step, :, :, tf.newaxis], column_sum[step, :, tf.newaxis, :])
        indicator = at_most_one(covered)
        maps.append(maps[-1] * (1.0 - indicator))

    # Points are clipped to a border of zeros one pixel wide: what lies outside the scene counts as hidden.
    border_rows, border_columns = (tf.clip_by_value(points, -1.0, size - 0.0001) for points in (rows, columns))
    # Nothing is in front of step 1, so its crop of a map of ones is the product of what is inside along each axis.
    inside_share = [tf.minimum(1.0 + points[0], size - points[0]) for points in (border_rows, border_columns)]
    row_share, column_share = (at_most_one(share) for share in inside_share)  # [batch, A]
    visible = row_share[:, :, tf.newaxis] * column_share[:, tf.newaxis, :]
    visible = visible[tf.newaxis]
    if steps > 1:
        behind = crop(tf.stack(maps[1:-1]), border_rows[1:], border_columns[1:])
        visible = tf.concat([visible, behind], axis=0)
    return SceneParts(patches, visible, tf.stack(maps), overlap=1.0 - tf.reduce_mean(visible, axis=[2, 3]))


def take_apart_exactly(images, z_where, patch_size: int, shifts) -> SceneParts:
    """Give every pixel of a scene to one pixel of one patch or to the background (equation 6).

    A scene pixel at the patch coordinates (u, v) goes to the patch pixel (floor(u + shift), floor(v + shift')), if that is
    in the patch and no earlier step has taken it.  With shifts uniform in [0, 1) these are the four neighbours with their
    bilinear weights.  A patch pixel can take only one: where a box is so large that scene pixels lie closer than the
    patch's, it takes the first, and the others are left to what is behind.

    `visible` and `background_maps` are zeros and ones.  As these and the content have no gradient by z_where, theirs is
    that of soft ones: of what bilinear crops see; of a patch pixel's chance to take one, which is what is visible times both
    pitches (the patch pixels' distances in the scene, at most 1); and of a scene pixel's chance to be taken.

    Args:
      images: [batch, B, B].
      z_where: [batch, step, 4].
      patch_size: A.
      shifts: [batch, step, 2] in [0, 1], for rows and columns.
    """
    soft = take_apart(images, z_where, patch_size)
    z_where, shifts = (tf.transpose(values, [1, 0, 2]) for values in (z_where, shifts))  # [step, batch, ...]
    pitches = z_where[..., 1::-1] * (patch_size / (patch_size - 1))  # of patch pixels in the scene, rows and columns
    pixels, patch_pixels = (tf.range(size, dtype=images.dtype) for size in (images.shape[1], float(patch_size)))
    takes, covers = [], []  # along rows and columns: [step, batch, A, B], which patch pixel takes which; [step, batch, B]
    for axis, start in enumerate((z_where[..., 3:4], z_where[..., 2:3])):
        pitch = pitches[..., axis : axis + 1]
        points = (pixels - start) / pitch  # [step, batch, B], growing
        inside = tf.clip_by_value(tf.minimum(1.0 + points, patch_size - points), 0.0, 1.0)
        covers.append(inside * at_most_one(1.0 / pitch))
        goals = tf.floor(points + shifts[..., axis : axis + 1])
        wanted = goals[..., tf.newaxis, :] == patch_pixels[:, tf.newaxis]
        before = tf.pad(wanted[..., :-1], [[0, 0]] * 3 + [[1, 0]])  # whether the scene pixel before wants the same
        takes.append(tf.cast(wanted & ~before, images.dtype))
    by_row, by_column = takes

    soft_free = hard_free = tf.ones_like(images)
    visible, maps, soft_maps = [], [hard_free], [soft_free]
    for step in range(z_where.shape[0]):
        visible.append(tf.matmul(tf.matmul(by_row[step], hard_free), by_column[step], transpose_b=True))
        row, column = (tf.reduce_sum(take[step], axis=1) for take in takes)  # [batch, B]
        hard_free *= 1.0 - row[:, :, tf.newaxis] * column[:, tf.newaxis, :]
        row, column = (cover[step] for cover in covers)
        soft_free *= 1.0 - tf.matmul(row[:, :, tf.newaxis], column[:, tf.newaxis, :])
        maps.append(hard_free)
        soft_maps.append(soft_free)
    content = tf.matmul(tf.matmul(by_row, images), by_column, transpose_b=True)
    filled = tf.reduce_sum(by_row, axis=3)[..., tf.newaxis] * tf.reduce_sum(by_column, axis=3)[..., tf.newaxis, :]
    chance = soft.visible * tf.reduce_prod(at_most_one(pitches), axis=2)[..., tf.newaxis, tf.newaxis]
    return SceneParts(
        # A patch pixel that takes none shows what it would, for the gradient by its chance.
        patches=_with_gradient(content + (1.0 - filled) * soft.patches, soft.patches),
        visible=_with_gradient(tf.stack(visible), chance),
        background_maps=_with_gradient(tf.stack(maps), tf.stack(soft_maps)),
        overlap=soft.overlap,
    )


def _with_gradient(value, of):
    """`value`, with the gradient of another tensor (straight-through)."""
    return of + tf.stop_gradient(value - of)
