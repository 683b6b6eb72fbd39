import numpy as np
import pytest

from rat_spn import RegionGraph, RegionGraphError, poon_domingos_region_graph, random_region_graph


@pytest.mark.parametrize("num_variables, depth, repetitions", [(4, 1, 1), (5, 2, 3), (784, 2, 6), (9, 3, 2)])
def test_random_graph_halves_every_region(num_variables, depth, repetitions):
    graph = random_region_graph(num_variables, depth, repetitions, seed=3)
    assert len(graph.leaves) == repetitions * 2**depth
    assert len(graph.partitions) == repetitions * (2**depth - 1)
    for parent, left, right in graph.partitions:
        assert len(graph.regions[left]) == len(graph.regions[parent]) // 2
        assert sorted([*graph.regions[left], *graph.regions[right]]) == graph.regions[parent].tolist()
    assert len(graph.regions[graph.root]) == num_variables


def test_random_graph_is_decided_by_its_seed():
    first, same, other = (random_region_graph(32, 2, 2, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first.regions, same.regions))
    assert not all(np.array_equal(a, b) for a, b in zip(first.regions, other.regions))


def test_poon_domingos_by_hand():
    # 2 rows, 3 columns, splits after every pixel, one level:  0 1 2
    #                                                          3 4 5
    graph = poon_domingos_region_graph(2, 3, step=1, depth=1)
    splits = {(tuple(graph.regions[left]), tuple(graph.regions[right])) for _, left, right in graph.partitions}
    assert splits == {((0, 1, 2), (3, 4, 5)), ((0, 3), (1, 2, 4, 5)), ((0, 1, 3, 4), (2, 5))}


@pytest.mark.parametrize("side, step", [(28, 10), (50, 20)])
def test_poon_domingos_shares_rectangles(side, step):
    # Slabs between the split positions and both ends, 2 levels deep: 4 first-level regions an axis, the 4 x 4
    # intersections of slabs, the 2 slabs in the middle, and the root; see also the golden file.
    graph = poon_domingos_region_graph(side, side, step, depth=2)
    assert (len(graph.regions), len(graph.partitions), len(graph.leaves)) == (27, 24, 18)
    assert len({tuple(region) for region in graph.regions}) == 27


def test_levels_are_a_topological_order():
    graph = poon_domingos_region_graph(28, 28, 10, depth=2)
    known = set(graph.leaves)
    for level in graph.levels():
        for region in level:
            for index in graph.partitions_of(region):
                assert set(graph.partitions[index][1:]) <= known
        known |= set(level)
    assert known == set(range(len(graph.regions)))


BROKEN = {
    "overlap": ([[0, 1, 2], [0, 1], [1, 2]], [(0, 1, 2)], "not decomposable.*share 1"),
    "gap": ([[0, 1, 2], [0], [2]], [(0, 1, 2)], "not complete: expected.*3 variables of region 0, found 2"),
    "too much": ([[0, 1], [0], [1, 2], [0, 1, 2]], [(0, 1, 2), (3, 1, 2)], "not complete"),
    "two roots": ([[0, 1], [0], [1], [0, 1]], [(0, 1, 2), (3, 1, 2)], "exactly one root region, found 2"),
    "unused": ([[0, 1], [0], [1], [0]], [(0, 1, 2)], "exactly one root region, found 2"),
    "leaf root": ([[0, 1, 2]], [], "at least one partition"),
    "short root": ([[0, 1], [0], [1]], [(0, 1, 2)], "cover all 3 variables, found 2"),
    "empty": ([[0, 1, 2], [], [0, 1, 2]], [(0, 1, 2)], "empty scope"),
    "repeated": ([[0, 1, 2], [0, 0], [1, 2]], [(0, 1, 2)], "twice"),
    "outside": ([[0, 1, 3], [0], [1, 3]], [(0, 1, 2)], r"variables in 0\.\.2, found 0\.\.3"),
    "index": ([[0, 1, 2], [0], [1, 2]], [(0, 1, 5)], "region indices in 0..2, found 5"),
}


@pytest.mark.parametrize("regions, partitions, message", BROKEN.values(), ids=BROKEN)
def test_broken_structures_are_refused(regions, partitions, message):
    with pytest.raises(RegionGraphError, match=message):
        RegionGraph(3, regions, partitions)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: random_region_graph(3, 2, 1, 0), "at least 4 variables, found 3"),
        (lambda: random_region_graph(3, 0, 1, 0), "depth >= 1"),
        (lambda: poon_domingos_region_graph(4, 4, 4, 1), "step below the image's side 4, found 4"),
        (lambda: RegionGraph(0, [], []), "num_variables=0"),
    ],
)
def test_impossible_requests_are_refused(build, message):
    with pytest.raises(RegionGraphError, match=message):
        build()
