"""SuPAIR with the exact likelihood: probabilistic hard downsampling (paper, equation 6)."""

from __future__ import annotations

import keras
import tensorflow as tf

from supair.geometry import SceneParts, at_most_one, extract_patches
from supair.inference import as_uniform
from supair.model import SuPAIR


@keras.saving.register_keras_serializable("supair")
class ExactSuPAIR(SuPAIR):
    """SuPAIR whose patches hold only what scene pixels fall on, each of them once.

    Every scene pixel then is explained once, so the joint is a density of the scene, and equation
    7's scale has nothing to correct.  Each evaluation draws one downsampling.
    """

    noise_size = 6  # two more than z_where's, for the shifts of rows and columns

    def extract_patches(self, images, z_where, noise) -> SceneParts:
        return downsample(images, z_where, self.config.patch_size, as_uniform(noise))

    def object_scale(self, z_where):
        return tf.ones_like(z_where[..., 0])


def downsample(images, z_where, patch_size: int, shifts) -> SceneParts:
    """Give every pixel of a scene to one pixel of one patch or to the background.

    A scene pixel at the patch coordinates (u, v) goes to the patch pixel (floor(u + shift), floor(v
    + shift')), if that is in the patch and no earlier step has the scene pixel.  With shifts
    uniform in [0, 1) these are the four neighbours with their bilinear weights.  A patch pixel gets
    only one, the first if a box is so large that there are more; they are left to what is behind.

    `visible` and `background_maps` are zeros and ones.  Their gradient by z_where is that of soft
    ones, and the content's that of bilinear crops: of a patch pixel's chance to get one, which is
    what is visible times both pitches (its distances in the scene, at most 1), and of a scene
    pixel's to be given away.

    `images` are [batch, B, B], `z_where` [batch, step, 4], `shifts` [batch, step, 2] in [0, 1].
    """
    soft = extract_patches(images, z_where, patch_size)
    where, shifts = (tf.transpose(values, [1, 0, 2]) for values in (z_where, shifts))
    # [step, batch, 2], distances of patch pixels in the scene, of rows and of columns
    pitches = where[..., 1::-1] * (patch_size / (patch_size - 1))
    size = images.shape[1]
    along_rows, along_columns = (
        _assign_line(size, patch_size, where[..., start], pitches[..., axis], shifts[..., axis])
        for axis, start in enumerate((3, 2))
    )

    soft_free = hard_free = tf.ones_like(images)
    visible, maps, soft_maps = [], [hard_free], [soft_free]
    (rows, row_chance), (columns, column_chance) = along_rows, along_columns
    for step in range(where.shape[0]):
        visible.append(tf.matmul(tf.matmul(rows[step], hard_free), columns[step], transpose_b=True))
        row, column = (tf.reduce_sum(mapping[step], axis=1) for mapping in (rows, columns))
        hard_free *= 1.0 - row[:, :, tf.newaxis] * column[:, tf.newaxis, :]
        row, column = row_chance[step], column_chance[step]  # [batch, B]
        soft_free *= 1.0 - tf.matmul(row[:, :, tf.newaxis], column[:, tf.newaxis, :])
        maps.append(hard_free)
        soft_maps.append(soft_free)
    content = tf.matmul(tf.matmul(rows, images), columns, transpose_b=True)
    row, column = (tf.reduce_sum(mapping, axis=3) for mapping in (rows, columns))
    filled = row[..., tf.newaxis] * column[..., tf.newaxis, :]  # [step, batch, A, A]
    thinned = tf.reduce_prod(at_most_one(pitches), axis=2)[..., tf.newaxis, tf.newaxis]
    return SceneParts(
        # A patch pixel that gets none shows what it would, for the gradient by its chance.
        patches=_with_gradient(content + (1.0 - filled) * soft.patches, soft.patches),
        visible=_with_gradient(tf.stack(visible), soft.visible * thinned),
        background_maps=_with_gradient(tf.stack(maps), tf.stack(soft_maps)),
        overlap=soft.overlap,
    )


def _assign_line(size: int, patch_size: int, start, pitch, shift):
    """Along one axis, with start, pitch and shift [step, batch], which scene pixel each patch pixel
    gets, [step, batch, A, B] of zeros and ones; and a scene pixel's chance, [step, batch, B]."""
    pixels, patch_pixels = (tf.range(float(n), dtype=start.dtype) for n in (size, patch_size))
    pitch = pitch[..., tf.newaxis]
    points = (pixels - start[..., tf.newaxis]) / pitch  # [step, batch, B], growing
    inside = tf.clip_by_value(tf.minimum(1.0 + points, patch_size - points), 0.0, 1.0)
    index = tf.floor(points + shift[..., tf.newaxis])
    falls_on = index[..., tf.newaxis, :] == patch_pixels[:, tf.newaxis]  # [step, batch, A, B]
    # The scene pixel before may fall on the same patch pixel, and then is the one.
    one_before = tf.pad(falls_on[..., :-1], [[0, 0]] * 3 + [[1, 0]])
    return tf.cast(falls_on & ~one_before, start.dtype), inside * at_most_one(1.0 / pitch)


def _with_gradient(value, of):
    """`value`, with the gradient of another tensor (straight-through)."""
    return of + tf.stop_gradient(value - of)
