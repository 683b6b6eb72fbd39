"""Whatever configurations, images and region graphs come in: a clear error, or something that works."""

import dataclasses
import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rat_spn import RatSpn, RegionGraph, RegionGraphError
from supair import ConfigError, InMemoryScenes, ModelConfig, SuPAIR, background_spn, object_spn
from supair.config import model_from_settings
from supair.images import read_images

ANYTHING = st.none() | st.booleans() | st.integers(-3, 60) | st.floats() | st.sampled_from(["area", "shared", "random", ""])
SPN_FIELDS, MODEL_FIELDS = (
    [field.name for field in dataclasses.fields(kind)] for kind in (type(ModelConfig().object), ModelConfig)
)


@given(
    st.dictionaries(st.sampled_from(MODEL_FIELDS), ANYTHING, max_size=3), st.dictionaries(st.sampled_from(SPN_FIELDS), ANYTHING)
)
def test_settings_are_refused_or_a_configuration(changes, of_object):
    given_settings = dataclasses.asdict(ModelConfig())
    given_settings["object"] |= of_object
    try:
        config = model_from_settings({**given_settings, **changes})
    except ConfigError:
        return
    assert 2 <= config.patch_size <= config.scene_size and config.num_steps >= 1
    assert 0 < config.scale_min <= config.scale_max and 0 < config.object.variance_min < config.object.variance_max
    assert model_from_settings(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@settings(max_examples=12)
@given(st.data())
def test_a_configuration_that_is_accepted_works(data):
    scene = data.draw(st.integers(4, 9))
    config = ModelConfig(
        scene_size=scene,
        patch_size=data.draw(st.integers(2, scene)),
        num_steps=data.draw(st.integers(1, 3)),
        lstm_units=2,
        hidden_units=2,
        object=object_spn(num_components=2, num_sums=2, depth=1, repetitions=data.draw(st.integers(1, 2))),
        background=data.draw(st.none() | st.just(background_spn(num_components=2, repetitions=1))),
        downsampling=data.draw(st.sampled_from(["area", "exact"])),
        object_models=data.draw(st.sampled_from(["shared", "per_step", "mixture"])),
    )
    model = SuPAIR(config)
    noise = np.random.default_rng(0).normal(size=[3, config.num_steps, model.noise_size]).astype(np.float32)
    images = np.random.default_rng(1).random([3, scene, scene]).astype(np.float32)
    evaluation = model.evaluate_elbo(images, noise)
    assert np.all(np.isfinite(evaluation.elbo.total)) and evaluation.parts.patches.shape[2:] == [config.patch_size] * 2
    np.testing.assert_allclose(np.sum(evaluation.description.q_count, axis=1), 1, rtol=1e-5)


SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4) | st.sampled_from([(2, 3, 3), (2, 3, 3, 3)])
DTYPES = st.sampled_from(["float16", "float32", "float64"])
PICTURES = st.one_of(
    arrays.arrays(DTYPES, SHAPES, elements={"min_value": 0, "max_value": 1}),
    arrays.arrays(DTYPES, SHAPES, elements=st.floats(0, 1, width=16), fill=st.sampled_from([-0.5, 1.5, np.nan, 0.5])),
    arrays.arrays("uint8", SHAPES),
    arrays.arrays(arrays.scalar_dtypes(), SHAPES),
)


def is_grey(values: np.ndarray) -> bool:
    return values.dtype == np.uint8 or (values.dtype.kind == "f" and bool(np.all((values >= 0) & (values <= 1))))


@given(PICTURES)
def test_scenes_are_refused_or_kept(values):
    try:
        scenes = InMemoryScenes(values)
    except ConfigError:
        assert values.ndim != 3 or values.shape[1] != values.shape[2] or not values.size or not is_grey(values)
        return
    read = scenes.read(0, len(scenes))
    assert is_grey(values) and read.dtype == np.float32 and is_grey(read)
    np.testing.assert_allclose(read * scenes.white, values, rtol=1e-6, atol=1e-30)


@given(PICTURES, st.none() | arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(max_dims=2, max_side=3)))
def test_image_files_are_refused_or_read(tmp_path_factory, values, counts):
    path = tmp_path_factory.mktemp("images") / "some.npz"
    np.savez(path, images=values, **{} if counts is None else {"counts": counts})
    try:
        images = read_images(path)
    except ConfigError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert is_grey(values) and len(images.names) == len(values)
    np.testing.assert_array_equal(images.pictures, values)
    assert counts is None or (images.counts >= 0).all()


@st.composite
def halvings(draw) -> tuple[int, list, list]:
    """Two to five variables, split and split again, some regions in several ways."""
    size = draw(st.integers(2, 5))
    regions, partitions = [list(range(size))], []
    for _ in range(draw(st.integers(1, 4))):
        parent = draw(st.sampled_from([index for index, region in enumerate(regions) if len(region) > 1]))
        order = draw(st.permutations(regions[parent]))
        cut = draw(st.integers(1, len(order) - 1))
        partitions.append((parent, len(regions), len(regions) + 1))
        regions += [order[:cut], order[cut:]]
    return size, regions, partitions


@st.composite
def damaged(draw) -> tuple[int, list, list]:
    """The same with one thing changed, which may still be valid."""
    size, regions, partitions = draw(halvings())
    what, region = draw(st.integers(0, 4)), draw(st.integers(0, len(regions) - 1))
    if what == 0:
        regions[region] = draw(st.lists(st.integers(-1, size), max_size=size))
    elif what == 1:
        regions.append(regions[region])
    elif what == 2:
        partitions[-1] = tuple(draw(st.lists(st.integers(-1, len(regions)), min_size=3, max_size=3)))
    elif what == 3:
        partitions.pop()
    else:  # children that share a variable
        _, left, right = partitions[-1]
        regions[left] = [*regions[left], regions[right][0]]
    return size, regions, partitions


def is_valid(size: int, regions: list, partitions: list) -> bool:
    """Whether it is a region graph with one root, by the definitions alone."""
    scopes = [set(region) for region in regions]
    if any(not scope or len(scope) < len(region) or not scope <= set(range(size)) for scope, region in zip(scopes, regions)):
        return False
    for triple in partitions:
        if not all(0 <= region < len(regions) for region in triple):
            return False
        parent, left, right = (scopes[region] for region in triple)
        if left & right or left | right != parent:
            return False
    roots = set(range(len(regions))) - {child for triple in partitions for child in triple[1:]}
    return len(roots) == 1 and scopes[min(roots)] == set(range(size)) and any(triple[0] in roots for triple in partitions)


def test_region_graphs_are_refused_or_valid():
    seen = {True: 0, False: 0}

    @settings(max_examples=300)
    @given(halvings() | damaged())
    def check(parts):
        valid = is_valid(*parts)
        seen[valid] += 1
        try:
            graph = RegionGraph(*parts)
        except RegionGraphError:
            assert not valid, parts
            return
        assert valid, parts
        assert sorted(len(region) for region in graph.regions) == sorted(map(len, parts[1]))

    check()
    assert min(seen.values()) > 60, seen


@settings(max_examples=15)
@given(halvings(), st.integers(0, 2**30))
def test_an_spn_over_any_region_graph_is_normalised(parts, seed):
    spn = RatSpn(RegionGraph(*parts), num_components=2, num_sums=2, variance_min=0.1, variance_max=1.0, seed=seed)
    rng = np.random.default_rng(seed)
    values, observed = rng.normal(size=[4, parts[0]]).astype(np.float32), rng.integers(0, 2, [4, parts[0]]).astype(np.float32)
    np.testing.assert_allclose(spn.log_prob(values, np.zeros_like(values)), 0, atol=1e-5)
    other = np.where(observed, values, rng.normal(size=values.shape)).astype(np.float32)  # what is not observed does not count
    np.testing.assert_allclose(spn.log_prob(values, observed), spn.log_prob(other, observed), rtol=1e-5, atol=1e-5)
