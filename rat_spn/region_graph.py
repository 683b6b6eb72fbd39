"""Region graphs: the structure of a RAT-SPN, without any parameters (Peharz et al., 2018, section
3).

A *region* is a set of variables (the scope of a vector of nodes), a *partition* splits a parent
region into two child regions.  Everything here is NumPy; whatever can be wrong with a structure is
refused when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class RegionGraphError(ValueError):
    """A structure that is no valid region graph."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise RegionGraphError(message)


class Partition(NamedTuple):
    """Region `parent` split into `left` and `right`; indices into `RegionGraph.regions`."""

    parent: int
    left: int
    right: int


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """A checked region graph with one root.

    Args:
      num_variables: D, the number of variables; they are called 0 .. D-1.
      regions: the regions, each a sequence of its variables.
      partitions: triples (parent, left, right) of region indices.

    A region without partitions is a *leaf region*; the region that nobody has as a child is the
    *root*.

    Raises:
      RegionGraphError: if a scope is empty, repeats a variable or leaves 0 .. D-1; if the two
        children of a partition share a variable (the product would not be decomposable) or do not
        cover exactly their parent (the sums above would not be complete); if there is not exactly
        one root; or if the root is a leaf or lacks variables.
    """

    num_variables: int
    regions: tuple[np.ndarray, ...]
    partitions: tuple[Partition, ...]

    def __post_init__(self):
        regions = [np.sort(np.asarray(scope, np.int64).reshape(-1)) for scope in self.regions]
        partitions = [Partition(*(int(region) for region in triple)) for triple in self.partitions]
        object.__setattr__(self, "regions", tuple(regions))
        object.__setattr__(self, "partitions", tuple(partitions))
        self._check_scopes()
        self._check_partitions()
        children = {child for _, left, right in partitions for child in (left, right)}
        roots = sorted(set(range(len(regions))) - children)
        _require(len(roots) == 1, f"expected exactly one root region, found {len(roots)}")
        covered, size = len(regions[roots[0]]), self.num_variables
        _require(covered == size, f"expected a root of all {size} variables, found {covered}")
        _require(bool(self.partitions_of(roots[0])), "the root needs at least one partition")

    def _check_scopes(self):
        size = self.num_variables
        _require(size >= 1, f"expected at least one variable, found num_variables={size}")
        for index, scope in enumerate(self.regions):
            _require(scope.size > 0, f"region {index} has an empty scope")
            expected, found = f"variables in 0..{size - 1}", f"{scope[0]}..{scope[-1]}"
            inside = scope[0] >= 0 and scope[-1] < size
            _require(inside, f"region {index}: expected {expected}, found {found}")
            _require(np.all(scope[1:] > scope[:-1]), f"region {index} names a variable twice")

    def _check_partitions(self):
        last = len(self.regions) - 1
        for index, partition in enumerate(self.partitions):
            name = f"partition {index}"
            inside = 0 <= min(partition) and max(partition) <= last
            _require(inside, f"{name}: expected regions in 0..{last}, found {tuple(partition)}")
            scope, left, right = (self.regions[region] for region in partition)
            shared, union = np.intersect1d(left, right).size, np.union1d(left, right)
            children = f"regions {partition.left} and {partition.right}"
            _require(not shared, f"{name} is not decomposable: {children} share {shared} variables")
            expected = f"{scope.size} variables of region {partition.parent}"
            complete = np.array_equal(union, scope)
            _require(complete, f"{name} is not complete: expected {expected}, found {union.size}")

    def get_config(self) -> dict:
        """The arguments as plain values, for files."""
        regions = [scope.tolist() for scope in self.regions]
        partitions = [list(partition) for partition in self.partitions]
        variables = self.num_variables
        return {"num_variables": variables, "regions": regions, "partitions": partitions}

    @property
    def root(self) -> int:
        """Index of the root region."""
        return max(range(len(self.regions)), key=lambda region: len(self.regions[region]))

    def partitions_of(self, region: int) -> list[int]:
        """Indices of the partitions whose parent is `region`, in order."""
        return [index for index, split in enumerate(self.partitions) if split.parent == region]

    @property
    def leaves(self) -> list[int]:
        """Indices of the leaf regions, in order."""
        parents = {partition.parent for partition in self.partitions}
        return [region for region in range(len(self.regions)) if region not in parents]

    def levels(self) -> list[list[int]]:
        """Inner regions from the bottom up: all their children are leaves or in earlier levels."""
        level = dict.fromkeys(self.leaves, 0)
        inner = [region for region in range(len(self.regions)) if region not in level]
        # Children are proper subsets of their parent, so ascending size is a topological order.
        for region in sorted(inner, key=lambda region: len(self.regions[region])):
            splits = [self.partitions[index] for index in self.partitions_of(region)]
            level[region] = 1 + max(level[child] for split in splits for child in split[1:])
        depths = range(1, level[self.root] + 1)
        return [[region for region in inner if level[region] == depth] for depth in depths]


def random_region_graph(num_variables: int, depth: int, repetitions: int, seed: int) -> RegionGraph:
    """Random repeated halving (Peharz et al., 2018, algorithm 1).

    Args:
      num_variables: D.
      depth: how often every region is halved; a repetition has 2^depth leaf regions.
      repetitions: how many independent binary trees hang below the root.
      seed: decides the structure.

    Raises:
      RegionGraphError: if D variables cannot be halved `depth` times.
    """
    expected, found = "depth >= 1 and repetitions >= 1", f"{depth} and {repetitions}"
    _require(depth >= 1 and repetitions >= 1, f"expected {expected}, found {found}")
    found = f"at least {2**depth} variables, found {num_variables}"
    _require(num_variables >= 2**depth, f"depth {depth} needs {found}")
    rng = np.random.default_rng(seed)
    regions: list[np.ndarray] = [np.arange(num_variables)]
    partitions: list[Partition] = []
    for _ in range(repetitions):
        frontier = [0]
        for _ in range(depth):
            children = []
            for parent in frontier:
                shuffled = rng.permutation(regions[parent])
                half = len(shuffled) // 2
                left, right = len(regions), len(regions) + 1
                regions += [shuffled[:half], shuffled[half:]]
                partitions.append(Partition(parent, left, right))
                children += [left, right]
            frontier = children
    return RegionGraph(num_variables, tuple(regions), tuple(partitions))


def poon_domingos_region_graph(height: int, width: int, step: int, depth: int) -> RegionGraph:
    """Axis-aligned splits of an image (Poon & Domingos, 2011, section 4), `depth` levels of them.

    Rectangles are split along both axes at every multiple of `step`; a rectangle reached in two
    ways is one region.

    Args:
      height, width: image size in pixels; variable r * width + c is the pixel in row r, column c.
      step: distance of the split positions in pixels.
      depth: how many levels of splits there are below the root.

    Raises:
      RegionGraphError: if no split position lies inside the image.
    """
    expected, side = "step >= 1 and depth >= 1", max(height, width)
    _require(step >= 1 and depth >= 1, f"expected {expected}, found {step} and {depth}")
    _require(step < side, f"expected a step below the image's side {side}, found {step}")
    pixels = np.arange(height * width).reshape(height, width)
    root = (0, height, 0, width)
    index = {root: 0}
    partitions: dict[Partition, None] = {}  # an ordered set
    frontier = [root]
    for _ in range(depth):
        following = []
        for top, bottom, left, right in frontier:
            rows = [r for r in range(0, height, step) if top < r < bottom]
            columns = [c for c in range(0, width, step) if left < c < right]
            splits = [((top, r, left, right), (r, bottom, left, right)) for r in rows]
            splits += [((top, bottom, left, c), (top, bottom, c, right)) for c in columns]
            for split in splits:
                for rectangle in split:
                    if rectangle not in index:
                        index[rectangle] = len(index)
                        following.append(rectangle)
                parent, first, second = index[top, bottom, left, right], *map(index.get, split)
                partitions[Partition(parent, first, second)] = None
        frontier = following
    regions = tuple(pixels[top:bottom, left:right] for top, bottom, left, right in index)
    return RegionGraph(height * width, regions, tuple(partitions))
