"""Objects found in images of one's own: their boxes, how sure they are, and what is doubtful."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

import supair
from supair.detect.images import Images, Preparation
from supair.detect.suggest import find_sizes
from supair.detect.tiles import drop_doubles
from supair.evaluation import grey
from supair.extensions.best_view import BestView

_BATCH = 250  # scenes at once
_MOST, _FEW = 0.9, 10  # share of boxes, and least number of boxes or images, to have doubts about
_AT_LIMIT = 0.05  # of the range of a box's widths
_SEEN, _MORE = 20, 2.0  # images whose pieces are counted; as many for each object give doubts


class Detection(NamedTuple):
    """The objects found in one image."""

    boxes: np.ndarray  # [objects, 4] (left, top, width, height), image pixels, cut at its edges
    score: np.ndarray  # [objects], q(N >= i) of the step i that found it, times sigmoid(log_ratio)
    # [objects] nats: the log density of the object's patch, scaled as in the ELBO, less that of the
    # same pixels under the background; what earlier steps hide counts for neither.
    log_ratio: np.ndarray
    width: np.ndarray  # [objects], 0 for the least that the model can give a box, 1 for the largest
    confidence: float  # q(N = n) of the counts n in the image's scenes, their product
    empty: float  # share of its scenes in which nothing is found, 0 if these are few
    full: float  # share of its scenes in which every step of the model finds something
    uniform: bool  # whether there is nothing to be seen
    size: tuple[int, int]  # (width, height) in pixels


class Doubt(NamedTuple):
    """Why a result may be wrong, and the numbers of the images that it is about."""

    text: str
    images: Sequence[int]

    def say(self, names: list[str]) -> str:
        """In one line that names images, unless it is about all."""
        if len(self.images) == len(names):
            return self.text
        few = ", ".join(names[number] for number in self.images[:3])
        more = f" and {len(self.images) - 3} others" * (len(self.images) > 3)
        return f"{few}{more}: {self.text}"


def describe(model: supair.SuPAIR | BestView, scenes) -> tuple[tf.Tensor, tf.Tensor]:
    """What is found in scenes [batch, side, side] uint8 by mean boxes, [batch, step, 8]: z_pres,
    box in pixels, score, log_ratio and width as of a `Detection`; and q(N), [batch, step + 1]."""
    config = model.config
    noise = tf.zeros([scenes.shape[0], config.num_steps, model.noise_size])
    evaluation = model.evaluate_elbo(grey(scenes, 255), noise)
    found, background = evaluation.description, evaluation.log_p_background
    log_ratio = evaluation.log_p_objects + background[:, 1:] - background[:, :-1]
    score = found.at_least * tf.sigmoid(log_ratio)
    width = (found.where_loc[..., 0] - config.scale_min) / (config.scale_max - config.scale_min)
    z_pres, *values = (x[..., tf.newaxis] for x in (found.z_pres, score, log_ratio, width))
    return tf.concat([z_pres, model.boxes(found), *values], axis=-1), found.q_count


def _compile(function):
    """A function of scenes, compiled for whole batches: that takes seconds; few do without."""
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return lambda scenes: (compiled if len(scenes) == _BATCH else function)(scenes)


def _sort(model: BestView, pieces):
    """Batches of a Preparation's scenes, and whether they are those whose views disagree in the
    number of objects; only these need the bounds that tell which view is best."""

    def disagree(scenes):
        z_pres = tf.round(model.views(grey(scenes, 255)).z_pres)
        return tf.math.reduce_std(tf.reduce_sum(z_pres, axis=2), axis=0) > 0  # of the counts

    compiled, waiting = _compile(disagree), ([], [])
    while batch := list(itertools.islice(pieces, _BATCH)):
        for piece, ambiguous in zip(batch, np.array(compiled(np.stack([s for s, _ in batch])))):
            waiting[int(ambiguous)].append(piece)
        for ambiguous, some in enumerate(waiting):
            if len(some) >= _BATCH:
                yield some[:_BATCH], ambiguous
                del some[:_BATCH]
    yield from ((some, ambiguous) for ambiguous, some in enumerate(waiting) if some)


def detect(model, preparation: Preparation, images: Images, levels="auto", min_score=0.0):
    """A Detection for every image, without objects of a lower score, and a list of Doubts, which
    are printed, too; for `levels` and errors see `Preparation`."""
    preparation, said = preparation.adapted(images, levels)
    parts: list[list] = [[] for _ in images.names]  # what each of an image's scenes gives
    best = BestView(model)
    describers = [_compile(lambda x, m=m: describe(m, x)) for m in (model, best)]
    with tqdm(desc="detecting", unit="scene", disable=None) as progress:
        for batch, ambiguous in _sort(best, preparation.scenes(images)):
            scenes = np.stack([scene for scene, _ in batch])
            values, q_count = map(np.asarray, describers[ambiguous](scenes))
            seen = scenes.any(axis=(1, 2))
            present = (np.round(values[..., 0]) == 1) & seen[:, None]
            sure = np.where(seen, q_count[np.arange(len(batch)), present.sum(axis=1)], 1.0)
            for k, (_, (number, window)) in enumerate(batch):
                boxes, rest = np.split(values[k, present[k], 1:], [4], axis=1)
                boxes, scene = window.to_image(boxes), np.full([len(boxes), 1], len(parts[number]))
                rows = np.hstack([window.clip(boxes), rest, scene])[window.owns(boxes)]
                parts[number].append((rows, sure[k], seen[k], present[k].all(), window.size))
            progress.update(len(batch))
    detections = [_put_together(*zip(*of_image), min_score) for of_image in parts]
    doubts = find_doubts(detections)
    doubts += [] if min_score else _compare(detections, preparation, images)
    doubts += [Doubt(text, range(len(images.names))) for text in said]
    for doubt in doubts:
        print(f"warning: {doubt.say(images.names)}", file=sys.stderr)
    return detections, doubts


def _put_together(rows, sure, seen, full, sizes, min_score: float) -> Detection:
    """What an image's scenes give: for each object box, score, log_ratio, width and the number of
    the scene, [objects, 8]; and the rest for each scene."""
    table = np.concatenate(rows)
    table = table[table[:, 2:4].min(axis=1) > 0]  # what lies in the image
    keep = drop_doubles(table[:, :4], table[:, 7], table[:, 5]) & (table[:, 4] >= min_score)
    score, log_ratio, width = table[keep, 4:7].T
    tiles = [len(of_scene) == 0 for of_scene, saw in zip(rows, seen) if saw]
    empty = np.mean(tiles) if len(tiles) >= _FEW else 0.0
    of_image = float(np.prod(sure)), float(empty), np.mean(full), not any(seen), sizes[0]
    return Detection(table[keep, :4], score, log_ratio, width, *of_image)


def _compare(detections: list[Detection], preparation: Preparation, images: Images) -> list[Doubt]:
    """A Doubt if far fewer objects are found than pieces stand out from the ground."""
    sizes, found = find_sizes(images, preparation, _SEEN), 0.0
    for number, part in zip(sizes.numbers, sizes.pictures):
        found += len(detections[number].boxes) * part.size / np.prod(detections[number].size)
    if sizes.num_pieces < max(_FEW, _MORE * found):
        return []
    text = f"{sizes.num_pieces} pieces stand out in images in which {found:.0f} objects are found"
    return [Doubt(text, range(len(detections)))]


def find_doubts(detections: list[Detection]) -> list[Doubt]:
    """Why a result may be wrong, as far as it shows."""
    everywhere = range(len(detections))
    uniform = [n for n in everywhere if detections[n].uniform]
    doubts = [Doubt("uniform, so without objects", uniform)] if uniform else []
    if empty := [n for n in everywhere if detections[n].empty > _MOST]:
        doubts.append(Doubt("most tiles are empty; objects may be of other sizes", empty))
    if full := [n for n in everywhere if detections[n].full > _MOST]:
        doubts.append(Doubt("as many as the model can find; there may be more, or none", full))
    counts = [len(found.boxes) for found in detections if not found.uniform]
    if len(set(counts)) == 1 and (counts[0] == 0 or len(counts) >= _FEW):
        doubts.append(Doubt(f"the same count, {counts[0]}, throughout", everywhere))
    width = np.concatenate([found.width for found in detections])
    for change, at_limit in (("smaller", width < _AT_LIMIT), ("larger", width > 1 - _AT_LIMIT)):
        if len(width) >= _FEW and np.mean(at_limit) > _MOST:
            text = f"no box can be {change}, and most would be; train with a {change} --object-size"
            doubts.append(Doubt(text, everywhere))
    return doubts
