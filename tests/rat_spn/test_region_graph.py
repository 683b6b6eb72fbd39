"""Region graphs: the two ways to make them, and what is refused."""

import numpy as np
import pytest

from rat_spn import RegionGraph, RegionGraphError, poon_domingos_region_graph, random_region_graph


@pytest.mark.parametrize("num_variables, depth, repetitions", [(4, 1, 1), (5, 2, 3), (9, 3, 2)])
def test_random_graph_halves_every_region(num_variables, depth, repetitions):
    graph = random_region_graph(num_variables, depth, repetitions, seed=3)
    assert len(graph.leaves) == repetitions * 2**depth
    assert len(graph.partitions) == repetitions * (2**depth - 1)
    for parent, left, right in graph.partitions:
        assert len(graph.regions[left]) == len(graph.regions[parent]) // 2
        children = np.concatenate([graph.regions[left], graph.regions[right]])
        np.testing.assert_array_equal(np.sort(children), graph.regions[parent])
    assert len(graph.regions[graph.root]) == num_variables
    same = random_region_graph(num_variables, depth, repetitions, seed=3)
    assert all(map(np.array_equal, graph.regions, same.regions))


def test_poon_domingos_by_hand():
    # 2 rows, 3 columns, splits after every pixel, one level:  0 1 2
    #                                                          3 4 5
    graph = poon_domingos_region_graph(2, 3, step=1, depth=1)
    scopes = [tuple(region) for region in graph.regions]
    splits = {(scopes[left], scopes[right]) for _, left, right in graph.partitions}
    assert splits == {((0, 1, 2), (3, 4, 5)), ((0, 3), (1, 2, 4, 5)), ((0, 1, 3, 4), (2, 5))}


def test_poon_domingos_shares_rectangles():
    # Two levels deep: 4 slabs at an end of each axis, their 16 intersections, the 2 slabs in the
    # middle, and the root.
    graph = poon_domingos_region_graph(50, 50, 20, depth=2)
    assert (len(graph.regions), len(graph.partitions), len(graph.leaves)) == (27, 24, 18)
    assert len({tuple(region) for region in graph.regions}) == 27


WHOLE = [0, 1, 2]
BROKEN = {
    "overlap": ([WHOLE, [0, 1], [1, 2]], [(0, 1, 2)], "not decomposable.*share 1"),
    "gap": ([WHOLE, [0], [2]], [(0, 1, 2)], "not complete.*3 variables of region 0, found 2"),
    "two roots": ([[0, 1], [0], [1], [0, 1]], [(0, 1, 2), (3, 1, 2)], "one root.*found 2"),
    "leaf root": ([WHOLE], [], "partition"),
    "short root": ([[0, 1], [0], [1]], [(0, 1, 2)], "all 3 variables, found 2"),
    "empty": ([WHOLE, [], WHOLE], [(0, 1, 2)], "region 1.*empty"),
    "outside": ([[0, 1, 3], [0], [1, 3]], [(0, 1, 2)], r"region 0.*0\.\.2, found 0\.\.3"),
    "index": ([WHOLE, [0], [1, 2]], [(0, 1, 5)], r"partition 0.*\b5\b"),
}


@pytest.mark.parametrize("regions, partitions, message", BROKEN.values(), ids=BROKEN)
def test_broken_structures_are_refused(regions, partitions, message):
    with pytest.raises(RegionGraphError, match=message):
        RegionGraph(3, regions, partitions)


def test_impossible_requests_are_refused():
    for message, make, *arguments in (
        ("4 variables.*found 3", random_region_graph, 3, 2, 1, 0),
        ("depth.*0 and 1", random_region_graph, 3, 0, 1, 0),
        ("step.*side 4, found 4", poon_domingos_region_graph, 4, 4, 4, 1),
        ("num_variables=0", RegionGraph, 0, [], []),
    ):
        with pytest.raises(RegionGraphError, match=message):
            make(*arguments)
