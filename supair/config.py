"""Every constant of SuPAIR, once, with where it comes from.

"Paper" is Stelzner, Peharz & Kersting (2019); "code" is the behaviour of its authors' implementation, which settles
what the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot work."""


class TrainingError(RuntimeError):
    """A run that cannot start or go on."""


def _is_integer(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(condition: bool, expected: str, found) -> None:
    if not condition:
        raise ConfigError(f"expected {expected}, found {found}")


@dataclass(frozen=True)
class SpnConfig:
    """A RAT-SPN with Gaussian leaves (paper, section 4.1 and Table 1).

    `structure` is "random" (`repetitions` trees of `depth` random halvings) or "poon_domingos" (`depth` levels of
    axis-aligned splits every `step` pixels).  The variance bounds are the model's inductive bias (section 4.2).
    """

    variance_min: float
    variance_max: float
    structure: str = "random"
    depth: int = 2
    repetitions: int = 6
    step: int = 10
    num_components: int = 20
    num_sums: int = 20

    def __post_init__(self):
        _require(self.structure in ("random", "poon_domingos"), "structure random or poon_domingos", self.structure)
        for name in ("depth", "repetitions", "step", "num_components", "num_sums"):
            value = getattr(self, name)
            _require(_is_integer(value, 1), f"{name} to be an integer of at least 1", value)
        _require(
            0 < self.variance_min < self.variance_max < math.inf,
            "0 < variance_min < variance_max",
            f"{self.variance_min} and {self.variance_max}",
        )


def object_spn(variance_min: float = 0.12, variance_max: float = 0.35, **changes) -> SpnConfig:
    """The paper's object model: 6 repetitions of 4 leaf regions, 20 Gaussians, 20 sums."""
    return SpnConfig(variance_min, variance_max, **changes)


def background_spn(variance_min: float = 0.002, variance_max: float = 0.12, **changes) -> SpnConfig:
    """The paper's background model, shallower and narrower (section 4.2): 3 repetitions of 2 leaf regions, 6 Gaussians."""
    shape = {"depth": 1, "repetitions": 3, "step": 20, "num_components": 6, "num_sums": 3}
    if changes.get("structure") == "poon_domingos":
        shape["depth"] = 2
    return SpnConfig(variance_min, variance_max, **{**shape, **changes})


@dataclass(frozen=True)
class WarmUp:
    """The first `steps` training steps, in which coins have a say in which steps of a scene are there.

    A step whose z_pres falls to 0 before its boxes and the object model mean anything may never come back, because its
    q(N >= i) is the weight of their gradients; and two steps that learn together can divide one object, or the scene's
    regions, between them.  So with a chance w, which falls linearly from 1 to 0, a coin that says yes with chance `doubt`
    decides in place of z_pres: training sees (1 - w) z_pres + w doubt, under which every step is left out more often than
    the one before (nested dropout, Rippel et al., 2014).  No coin leaves out the first step, which learns to explain scenes
    alone: it is there if z_pres or the coin says so, (1 - w doubt) z_pres + w doubt.  The coin of the last step, unless that is
    the only one, always says no, so that it does not learn to cover what other boxes miss, and a price of w `price` nats
    times its z_pres puts it to sleep, times `doubt` once more for every step beyond the third, as coins reach the last one so
    much less often; so N_max should be more than a scene has.  Nothing is drawn: z_pres and coin are mixed
    (`model.toss_coins`).  The learning rate begins at `early_rate` times its value and falls to it with w.
    """

    doubt: float = 0.3
    price: float = 30.0
    early_rate: float = 2.0
    steps: int = 1000

    def __post_init__(self):
        _require(0 <= self.doubt <= 1, "a doubt from 0 to 1", self.doubt)
        _require(0 <= self.price < math.inf, "a finite price of at least 0", self.price)
        _require(0 < self.early_rate < math.inf, "an early_rate above 0", self.early_rate)
        _require(_is_integer(self.steps, 1), "steps to be an integer of at least 1", self.steps)


@dataclass(frozen=True)
class ModelConfig:
    """SuPAIR (paper, section 3).  Lengths are in scene pixels."""

    scene_size: int = 50  # B
    patch_size: int = 28  # A, the object SPN's native size
    num_steps: int = 3  # N_max
    lstm_units: int = 256  # section 3.4
    hidden_units: int = 50  # section 3.4
    # q(z_where) = N(mean, scale²), everything squashed by sigmoids m (code):
    scale_min: float = 0.3  # width / A = scale_min + (scale_max - scale_min) m_1
    scale_max: float = 0.9
    aspect_min: float = 0.75  # height / width = aspect_min + (aspect_max - aspect_min) m_2
    aspect_max: float = 1.25
    position_max: float = 0.9  # left and top edge / B = position_max m_3, position_max m_4
    # Initial bias of the outputs of m_3 and m_4, which moves where boxes begin; None: 0.1, as of all others (code).
    position_bias: float | None = None
    where_scale_max: float = 0.3  # standard deviations = where_scale_max m_5..8, edges' too in pixels
    # Priors
    overlap_rate: float = 120.0  # Gamma(1, rate) on the occluded share of an object (section 3.1; code)
    count_log_weight: float = math.log(0.7)  # log p(N=n) = count_log_weight - count_penalty n, unnormalised (code)
    count_penalty: float = 0.7
    object: SpnConfig = field(default_factory=object_spn)
    background: SpnConfig | None = field(default_factory=background_spn)  # None: the fixed background below
    fixed_background_scale: float = 0.35  # "w/o bg", Figure 5: N(0, scale²) on every background pixel (code)
    # Which patch pixels a box observes: all, their density weighted by the box's area ("area", equation 7), or those that
    # a scene pixel falls on ("exact", equation 6; see `geometry.take_apart_exactly`).
    downsampling: str = "area"
    # One object SPN for all ("shared"), one for each step ("per_step"), or a mixture of `object_classes` ("mixture");
    # section 3.1 suggests the others.
    object_models: str = "shared"
    object_classes: int = 3
    warm_up: WarmUp | None = None  # None: the paper's objective from the first step on; see `robust_model`

    def __post_init__(self):
        for name in ("scene_size", "patch_size", "num_steps", "lstm_units", "hidden_units", "object_classes"):
            value = getattr(self, name)
            _require(_is_integer(value, 1), f"{name} to be an integer of at least 1", value)
        for name, values in (("downsampling", ("area", "exact")), ("object_models", ("shared", "per_step", "mixture"))):
            _require(getattr(self, name) in values, f"{name} out of {', '.join(values)}", getattr(self, name))
        _require(self.patch_size >= 2, "patch_size of at least 2", self.patch_size)
        _require(
            self.patch_size <= self.scene_size,
            f"patch_size at most scene_size {self.scene_size} (a patch fits into the scene)",
            self.patch_size,
        )
        for low, high in (("scale_min", "scale_max"), ("aspect_min", "aspect_max")):
            bounds = getattr(self, low), getattr(self, high)
            _require(0 < bounds[0] <= bounds[1] < math.inf, f"0 < {low} <= {high}", bounds)
        for name in ("position_max", "where_scale_max", "overlap_rate", "fixed_background_scale"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"{name} above 0", value)
        for name in ("count_log_weight", "count_penalty"):
            _require(math.isfinite(getattr(self, name)), f"a finite {name}", getattr(self, name))
        bias = self.position_bias
        _require(bias is None or math.isfinite(bias), "a finite position_bias or None", bias)
        _require(isinstance(self.object, SpnConfig), "object to be an SpnConfig", self.object)
        _require(
            self.background is None or isinstance(self.background, SpnConfig),
            "background to be an SpnConfig or None",
            self.background,
        )
        _require(self.warm_up is None or isinstance(self.warm_up, WarmUp), "warm_up to be a WarmUp or None", self.warm_up)
        _require(self.position_max <= 1, "position_max of at most 1", self.position_max)


@dataclass(frozen=True)
class AirWarmUp:
    """The first `steps` training steps, in which some scenes are trained with fewer windows.

    Several windows learn together to paint one object before any can do it alone, and hardly part.  So in a `share` of the
    scenes, others at every step, there are only the first n windows, n uniform on 1 .. N_max - 1 (nested dropout, Rippel et
    al., 2014), and these learn to paint whole objects.  The share falls linearly to 0.
    """

    share: float = 0.5
    steps: int = 8000

    def __post_init__(self):
        _require(0 <= self.share <= 1, "a share from 0 to 1", self.share)
        _require(_is_integer(self.steps, 1), "steps to be an integer of at least 1", self.steps)


@dataclass(frozen=True)
class AirConfig:
    """AIR, as its Pyro implementation recommends it (named "pyro" in the tables); see `table1_air` for the other one."""

    scene_size: int = 50
    window_size: int = 28
    num_steps: int = 3
    lstm_units: int = 256
    hidden_units: int = 200  # of encoder and decoder
    head_units: int = 200  # between an LSTM and its outputs; 0: none
    what_size: int = 50
    # p(N=n) proportional to count_ratio^n: small, or every non-empty scene is soon counted as N_max.
    count_ratio: float = 0.01
    scale_prior: tuple[float, float] = (3.0, 0.2)  # mean and standard deviation of the inverse scale s
    position_prior: tuple[float, float] = (0.0, 1.0)
    decoder_bias: float = -2.0  # a dark start: a bright window costs likelihood before it helps, and no object survives
    likelihood_scale: float = 0.3
    baseline_scale: float = 100.0  # nats to one unit of the baseline network's output; costs are some hundred nats
    warm_up: AirWarmUp | None = None  # None: the bound itself from the first step on; see `robust_air`

    def __post_init__(self):
        for name in ("scene_size", "window_size", "num_steps", "lstm_units", "hidden_units", "what_size"):
            value = getattr(self, name)
            _require(_is_integer(value, 1), f"{name} to be an integer of at least 1", value)
        for name in ("scene_size", "window_size"):
            _require(getattr(self, name) >= 2, f"{name} of at least 2", getattr(self, name))
        _require(_is_integer(self.head_units, 0), "head_units to be an integer of at least 0", self.head_units)
        _require(1e-12 <= self.count_ratio <= 1e6, "count_ratio from 1e-12 to 1e6", self.count_ratio)
        for name in ("scale_prior", "position_prior"):
            pair = getattr(self, name)
            well_formed = len(pair) == 2 and all(math.isfinite(value) for value in pair) and pair[1] > 0
            _require(well_formed, f"{name} (mean, standard deviation above 0)", pair)
        _require(math.isfinite(self.decoder_bias), "a finite decoder_bias", self.decoder_bias)
        for name in ("likelihood_scale", "baseline_scale"):
            _require(0 < getattr(self, name) < math.inf, f"{name} above 0", getattr(self, name))
        _require(self.warm_up is None or isinstance(self.warm_up, AirWarmUp), "warm_up to be an AirWarmUp or None", self.warm_up)

    @property
    def prior_chances(self) -> list[float]:
        """p(z_pres_t = 1 | step t-1 found an object) for every step: p(N >= t) / p(N >= t-1)."""
        weights = [self.count_ratio**count for count in range(self.num_steps + 1)]
        at_least = [sum(weights[count:]) for count in range(self.num_steps + 1)]
        return [now / before for before, now in zip(at_least, at_least[1:])]


AIR_EPOCHS = 213  # the 200,000 steps of the Pyro example on 60,000 scenes (133,125 on the 40,000 of Sprites)


def air_training(seed: int) -> TrainingConfig:
    """How AIR is trained.

    1e-4 for guide and decoder is Pyro's recommendation.  Its 0.1 for the baseline belongs to a target that sums the
    cost over the whole data set, 937.5 times a scene's cost in nats.  Our target is a scene's cost in units of
    `baseline_scale`, some -7 to 3 at first on Multi-MNIST, so the rate is smaller: 1e-3, ten times the guide's, because
    the baseline has to keep up with a cost that changes.
    """
    return TrainingConfig(seed=seed, batch_size=64, learning_rate=1e-4, baseline_learning_rate=1e-3, log_every=250)


def robust_air() -> AirConfig:
    """AIR with a warm-up, so that its windows do not share objects."""
    return AirConfig(warm_up=AirWarmUp())


def table1_air() -> AirConfig:
    """AIR with linear heads, whose parts have exactly the numbers of parameters of Table 1."""
    return AirConfig(head_units=0)


@dataclass(frozen=True)
class TrainingConfig:
    """Adam as the code runs it; the data are not shuffled, and an epoch drops the last, smaller batch."""

    seed: int = 0
    batch_size: int = 256
    learning_rate: float = 1e-3  # after a model's warm-up, see `WarmUp`
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    baseline_learning_rate: float | None = None  # of a model's baseline (AIR)
    log_every: int = 50  # steps between two measurements of the test accuracy (code)
    # The model's weights are averages of those that Adam steps through, in which step s weighs about s^averaging
    # (polynomial-decay averaging, Shamir & Zhang, 2013); None: the last ones.  See `robust_training`.
    averaging: float | None = None

    def __post_init__(self):
        for name, least in (("seed", 0), ("batch_size", 1), ("log_every", 1)):
            value = getattr(self, name)
            _require(_is_integer(value, least), f"{name} to be an integer of at least {least}", value)
        _require(self.seed < 2**31, "seed below 2**31", self.seed)
        for name in ("learning_rate", "epsilon"):
            _require(0 < getattr(self, name) < math.inf, f"{name} above 0", getattr(self, name))
        rate = self.baseline_learning_rate
        _require(rate is None or 0 < rate < math.inf, "baseline_learning_rate above 0 or None", rate)
        for name in ("beta_1", "beta_2"):
            _require(0 <= getattr(self, name) < 1, f"{name} in [0, 1)", getattr(self, name))
        _require(self.averaging is None or 0 <= self.averaging < math.inf, "averaging of at least 0 or None", self.averaging)


PAPER_EPOCHS = 20  # the length of the runs in Figure 5 (code)

# What differs between data sets: the variances of object and background model (code), and for scenes that are not the
# paper's (`data.OTHER_SCENES`) their side and an N_max above their largest count, as in the paper.
_DIFFERENCES: dict[str, tuple[tuple[float, float], tuple[float, float], dict[str, Any]]] = {
    "multi_mnist": ((0.12, 0.35), (0.002, 0.12), {}),
    "sprites": ((0.12, 0.35), (0.002, 0.16), {}),
    "noisy_mnist": ((0.25, 0.35), (0.002, 0.06), {}),
    "grid_mnist": ((0.12, 0.35), (0.002, 0.12), {}),
    "multi_mnist_3": ((0.12, 0.35), (0.002, 0.12), {"num_steps": 4}),
    "multi_mnist_80": ((0.12, 0.35), (0.002, 0.12), {"num_steps": 6, "scene_size": 80}),
}


def paper_model(dataset: str, structure: str = "random", background: bool = True) -> ModelConfig:
    """The paper's settings for one of its four data sets, or for one of `data.OTHER_SCENES`.

    Args:
      dataset: which.
      structure: of both SPNs, "random" or "poon_domingos" (section 4).
      background: whether to learn a background model; if not, "w/o bg" of Figure 5.

    Raises:
      ConfigError: for any other name.
    """
    _require(dataset in _DIFFERENCES, f"a data set out of {', '.join(_DIFFERENCES)}", dataset)
    object_variances, background_variances, fields = _DIFFERENCES[dataset]
    return ModelConfig(
        object=object_spn(*object_variances, structure=structure),
        background=background_spn(*background_variances, structure=structure) if background else None,
        **fields,
    )


def model_from_settings(settings: dict) -> ModelConfig:
    """The configuration that a run's `config.json` holds under "model".

    Raises:
      ConfigError: if it is no configuration of SuPAIR.
    """
    parts = {"object": SpnConfig, "background": SpnConfig, "warm_up": WarmUp}
    try:
        return ModelConfig(
            **{name: value if value is None or name not in parts else parts[name](**value) for name, value in settings.items()}
        )
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"expected the settings of a SuPAIR model ({error})") from None


def robust_model(dataset: str) -> ModelConfig:
    """The paper's settings with a warm-up, so that more seeds learn."""
    return dataclasses.replace(paper_model(dataset), warm_up=WarmUp())


def robust_training(seed: int) -> TrainingConfig:
    """Adam as in the authors' code (in a warm-up at a higher rate), and averages of the weights.

    From step to step the threshold between one object and two wanders, and the count accuracy with it; the average, over
    about the last seventeenth of all steps so far, stands still.
    """
    return TrainingConfig(seed=seed, averaging=16.0)
