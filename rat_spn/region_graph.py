"""Region graphs: the structure of a RAT-SPN, without any parameters (Peharz et al., 2018, section 3).

A *region* is a set of variables (the scope of a vector of nodes), a *partition* splits a parent region into two
child regions.  Everything here is NumPy; whatever can be wrong with a structure is refused when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class RegionGraphError(ValueError):
    """A structure that is no valid region graph."""


class Partition(NamedTuple):
    """Region `parent` split into regions `left` and `right` (indices into `RegionGraph.regions`)."""

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

    A region without partitions is a *leaf region*; the region that nobody has as a child is the *root*.

    Raises:
      RegionGraphError: if a scope is empty, repeats a variable or leaves 0 .. D-1; if the two children of a partition
        share a variable (the product would not be decomposable) or do not cover exactly their parent (the sums above
        would not be complete); if there is not exactly one root; or if the root is a leaf or lacks variables.
    """

    num_variables: int
    regions: tuple[np.ndarray, ...]
    partitions: tuple[Partition, ...]

    def __post_init__(self):
        regions = tuple(np.sort(np.asarray(scope, dtype=np.int64).reshape(-1)) for scope in self.regions)
        partitions = tuple(Partition(*(int(region) for region in triple)) for triple in self.partitions)
        object.__setattr__(self, "regions", regions)
        object.__setattr__(self, "partitions", partitions)
        self._check_scopes()
        self._check_partitions()
        roots = sorted(set(range(len(regions))) - {child for p in partitions for child in (p.left, p.right)})
        if len(roots) != 1:
            raise RegionGraphError(f"expected exactly one root region, found {len(roots)}: {roots[:5]}")
        if len(regions[roots[0]]) != self.num_variables:
            raise RegionGraphError(
                f"expected the root to cover all {self.num_variables} variables, found {len(regions[roots[0]])}"
            )
        if not self.partitions_of(roots[0]):
            raise RegionGraphError("expected the root to have at least one partition, found a leaf region")

    def _check_scopes(self):
        if self.num_variables < 1:
            raise RegionGraphError(f"expected at least one variable, found num_variables={self.num_variables}")
        for index, scope in enumerate(self.regions):
            if scope.size == 0:
                raise RegionGraphError(f"region {index} has an empty scope")
            if scope[0] < 0 or scope[-1] >= self.num_variables:
                raise RegionGraphError(
                    f"region {index}: expected variables in 0..{self.num_variables - 1}, found {scope[0]}..{scope[-1]}"
                )
            if np.any(scope[1:] == scope[:-1]):
                raise RegionGraphError(f"region {index} names a variable twice")

    def _check_partitions(self):
        for index, (parent, left, right) in enumerate(self.partitions):
            for region in (parent, left, right):
                if not 0 <= region < len(self.regions):
                    raise RegionGraphError(
                        f"partition {index}: expected region indices in 0..{len(self.regions) - 1}, found {region}"
                    )
            shared = np.intersect1d(self.regions[left], self.regions[right])
            if shared.size:
                raise RegionGraphError(
                    f"partition {index} is not decomposable: regions {left} and {right} share {shared.size} "
                    f"variable(s), {shared[0]} among them"
                )
            union = np.union1d(self.regions[left], self.regions[right])
            if not np.array_equal(union, self.regions[parent]):
                raise RegionGraphError(
                    f"partition {index} is not complete: expected its children to cover the {self.regions[parent].size} "
                    f"variables of region {parent}, found {union.size} variables"
                )

    @property
    def root(self) -> int:
        """Index of the root region."""
        return max(range(len(self.regions)), key=lambda region: len(self.regions[region]))

    def partitions_of(self, region: int) -> list[int]:
        """Indices of the partitions whose parent is `region`, in order."""
        return [index for index, partition in enumerate(self.partitions) if partition.parent == region]

    @property
    def leaves(self) -> list[int]:
        """Indices of the leaf regions, in order."""
        parents = {partition.parent for partition in self.partitions}
        return [region for region in range(len(self.regions)) if region not in parents]

    def levels(self) -> list[list[int]]:
        """Inner regions from the bottom up: a level's regions have all their children in leaves or earlier levels."""
        level = dict.fromkeys(self.leaves, 0)
        # Children are proper subsets of their parent, so ascending size is a topological order.
        inner = sorted((r for r in range(len(self.regions)) if r not in level), key=lambda r: len(self.regions[r]))
        for region in inner:
            children = [child for p in self.partitions_of(region) for child in self.partitions[p][1:]]
            level[region] = 1 + max(level[child] for child in children)
        return [[r for r in sorted(inner) if level[r] == depth] for depth in range(1, level[self.root] + 1)]


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
    if depth < 1 or repetitions < 1:
        raise RegionGraphError(f"expected depth >= 1 and repetitions >= 1, found {depth} and {repetitions}")
    if num_variables < 2**depth:
        raise RegionGraphError(f"depth {depth} needs at least {2**depth} variables, found {num_variables}")
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

    Rectangles are split along both axes at every multiple of `step`; a rectangle reached in two ways is one region.

    Args:
      height, width: image size in pixels; variable r * width + c is the pixel in row r, column c.
      step: distance of the split positions in pixels.
      depth: how many levels of splits there are below the root.

    Raises:
      RegionGraphError: if no split position lies inside the image.
    """
    if step < 1 or depth < 1:
        raise RegionGraphError(f"expected step >= 1 and depth >= 1, found {step} and {depth}")
    if step >= max(height, width):
        raise RegionGraphError(f"expected a step below the image's side {max(height, width)}, found {step}")
    pixels = np.arange(height * width).reshape(height, width)
    root = (0, height, 0, width)
    index = {root: 0}
    partitions: dict[Partition, None] = {}  # an ordered set
    frontier = [root]
    for _ in range(depth):
        following = []
        for top, bottom, left, right in frontier:
            rows = [((top, r, left, right), (r, bottom, left, right)) for r in range(0, height, step) if top < r < bottom]
            columns = [((top, bottom, left, c), (top, bottom, c, right)) for c in range(0, width, step) if left < c < right]
            for first, second in rows + columns:
                for rectangle in (first, second):
                    if rectangle not in index:
                        index[rectangle] = len(index)
                        following.append(rectangle)
                partitions[Partition(index[top, bottom, left, right], index[first], index[second])] = None
        frontier = following
    regions = tuple(pixels[top:bottom, left:right].reshape(-1) for top, bottom, left, right in index)
    return RegionGraph(height * width, regions, tuple(partitions))
