"""What a model is (paper, sections 3 and 4) and how it is trained: every constant once, with its
source.

"Paper" is Stelzner, Peharz & Kersting (2019); "code" is the behaviour of its authors'
implementation, which settles what the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

LARGEST = 1e30  # of any setting, so that it is finite in float32


class ConfigError(ValueError):
    """A configuration, option or input that cannot work."""


class TrainingError(RuntimeError):
    """A run that cannot start, go on or be read."""


def require(condition: bool, expected: str, found: object) -> None:
    """Raise ConfigError with what was expected and found, unless the condition holds."""
    if not condition:
        raise ConfigError(f"expected {expected}, found {found}")


def _require_integers(config: object, least: int, *names: str, most: int = 10_000) -> None:
    for name in names:
        value = getattr(config, name)
        good = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        require(good, f"{name} to be an integer from {least} to {most}", f"{value!r:.40}")


def _require_positive(config: object, *names: str) -> None:
    for name in names:
        require(0 < getattr(config, name) < LARGEST, f"{name} above 0", getattr(config, name))


@dataclass(frozen=True)
class SpnConfig:
    """A RAT-SPN with Gaussian leaves (paper, section 4.1 and Table 1); the defaults are the paper's
    object model.

    `structure` is "random" (`repetitions` trees of `depth` random halvings) or "poon_domingos"
    (`depth` levels of axis-aligned splits every `step` pixels).  The variance bounds are the
    model's inductive bias (section 4.2).
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
        structures = ("random", "poon_domingos")
        require(self.structure in structures, f"structure in {structures}", self.structure)
        _require_integers(self, 1, "depth", "repetitions", "step", "num_components", "num_sums")
        low, high = self.variance_min, self.variance_max
        good = 0 < low < high < LARGEST
        require(good, "0 < variance_min < variance_max", f"{low} and {high}")
        most, depth = max(self.num_components, self.num_sums), min(self.depth, 40)
        size = most**3 * self.repetitions << depth
        require(size < 2**28, "fewer regions, components or sums", f"{size:.0e}")


def object_spn(variance_min: float = 0.12, variance_max: float = 0.35, **changes) -> SpnConfig:
    """The paper's object model: 6 repetitions of 4 leaf regions, 20 Gaussians, 20 sums."""
    return SpnConfig(variance_min, variance_max, **changes)


def background_spn(variance_min: float = 0.002, variance_max: float = 0.12, **changes) -> SpnConfig:
    """The paper's background model (section 4.2): 3 repetitions of 2 leaf regions, 6 Gaussians."""
    shape = {"depth": 1, "repetitions": 3, "step": 20, "num_components": 6, "num_sums": 3}
    return SpnConfig(variance_min, variance_max, **{**shape, **changes})


@dataclass(frozen=True)
class ModelConfig:
    """SuPAIR (paper, section 3).  Lengths are in scene pixels."""

    scene_size: int = 50  # B
    patch_size: int = 28  # A, the object SPN's native size
    num_steps: int = 3  # N_max
    lstm_units: int = 256  # section 3.4
    hidden_units: int = 50  # section 3.4
    # Subtracted from the LSTM's input: else, on a bright ground, a step of Adam moves all units by
    # the sum of the pixels, and they saturate before anything is learned (ours; the paper's is 0).
    scene_mean: float = 0.0
    # Means of q(z_where), and below its standard deviations, squashed by sigmoids m (code):
    scale_min: float = 0.3  # width / A = scale_min + (scale_max - scale_min) m_1
    scale_max: float = 0.9
    aspect_min: float = 0.75  # height / width = aspect_min + (aspect_max - aspect_min) m_2
    aspect_max: float = 1.25
    position_max: float = 0.9  # left and top edge / B = position_max m_3, position_max m_4
    where_scale_max: float = 0.3  # standard deviations = where_scale_max m_5..8, edges' in pixels
    # Priors
    overlap_rate: float = 120.0  # Gamma(1, rate) on an object's occluded share (section 3.1; code)
    count_log_weight: float = math.log(0.7)  # log p(N=n) = count_log_weight - count_penalty n,
    count_penalty: float = 0.7  # unnormalised (code)
    object: SpnConfig = object_spn()
    # None: "w/o bg" of Figure 5, N(0, fixed_background_scale²) on every background pixel (code)
    background: SpnConfig | None = background_spn()
    fixed_background_scale: float = 0.35

    def __post_init__(self):
        _require_integers(self, 1, "scene_size", "num_steps", "lstm_units", "hidden_units")
        _require_integers(self, 2, "patch_size")
        patch, scene = self.patch_size, self.scene_size
        require(patch <= scene, f"patch_size at most scene_size {scene}", patch)
        for low, high in (("scale_min", "scale_max"), ("aspect_min", "aspect_max")):
            bounds = getattr(self, low), getattr(self, high)
            require(0 < bounds[0] <= bounds[1] < LARGEST, f"0 < {low} <= {high}", bounds)
        _require_positive(self, "where_scale_max", "overlap_rate", "fixed_background_scale")
        require(0 < self.position_max <= 1, "position_max in (0, 1]", self.position_max)
        require(0 <= self.scene_mean <= 1, "scene_mean in [0, 1]", self.scene_mean)
        for name in ("count_log_weight", "count_penalty"):
            require(abs(getattr(self, name)) < LARGEST, f"a finite {name}", getattr(self, name))
        kinds = isinstance(self.object, SpnConfig), isinstance(self.background, SpnConfig | None)
        require(all(kinds), "SpnConfigs as object and background", (self.object, self.background))
        size = 4 * (scene**2 + self.lstm_units) * self.lstm_units + 10**6 * self.num_steps
        for pixels, spn in ((patch**2, self.object), (scene**2, self.background)):
            size += 20 * pixels * spn.num_components * spn.repetitions if spn else 0
        require(size < 2**28, "fewer scene pixels, LSTM units, steps or components", f"{size:.0e}")


@dataclass(frozen=True)
class AirConfig:
    """AIR, as its Pyro implementation recommends it; `head_units=0` gives Table 1's numbers."""

    scene_size: int = 50
    window_size: int = 28
    num_steps: int = 3
    lstm_units: int = 256
    hidden_units: int = 200  # of encoder and decoder
    head_units: int = 200  # between an LSTM and its outputs; 0: none
    what_size: int = 50
    # p(N=n) proportional to count_ratio^n: small, or non-empty scenes are soon counted as N_max.
    count_ratio: float = 0.01
    scale_prior: tuple[float, float] = (3.0, 0.2)  # mean, standard deviation of the inverse scale s
    position_prior: tuple[float, float] = (0.0, 1.0)
    # A dark start: a bright window costs likelihood before it helps, and no object survives.
    decoder_bias: float = -2.0
    likelihood_scale: float = 0.3
    baseline_scale: float = 100.0  # nats to one unit of the baseline network's output

    def __post_init__(self):
        _require_integers(self, 1, "num_steps", "lstm_units", "hidden_units", "what_size")
        _require_integers(self, 2, "scene_size", "window_size")
        _require_integers(self, 0, "head_units")
        _require_positive(self, "count_ratio", "likelihood_scale", "baseline_scale")

    @property
    def prior_chances(self) -> list[float]:
        """p(z_pres_t = 1 | step t-1 found an object) for every step: p(N >= t) / p(N >= t-1)."""
        weights = [self.count_ratio**count for count in range(self.num_steps + 1)]
        at_least = [sum(weights[count:]) for count in range(self.num_steps + 1)]
        return [now / before for before, now in zip(at_least, at_least[1:])]


@dataclass(frozen=True)
class WarmUp:
    """The first `steps` training steps of SuPAIR: nested dropout (Rippel et al., 2014); ours.

    A step whose z_pres falls to 0 before its boxes mean anything may never come back, because its
    q(N >= i) is the weight of their gradients; and steps that learn together can share an object.
    So with a weight w that falls linearly from 1 to 0, (1 - w) z_pres + w keep_prob takes the place
    of z_pres.  The first step is never dropped, (1 - w keep_prob) z_pres + w keep_prob; the last
    always, (1 - w) z_pres, and costs w last_step_penalty z_pres nats, times keep_prob once more for
    every step beyond the third; so N_max should be more than a scene has.  The learning rates begin
    at `initial_learning_rate_factor` times their values and fall to them with w.
    """

    keep_prob: float = 0.3
    last_step_penalty: float = 30.0  # nats
    initial_learning_rate_factor: float = 2.0
    steps: int = 2000

    extra_noise = 0  # standard normal numbers a step of a scene, beside the model's own

    def __post_init__(self):
        require(0 <= self.keep_prob <= 1, "a keep_prob from 0 to 1", self.keep_prob)
        penalty = self.last_step_penalty
        require(0 <= penalty < LARGEST, "a finite last_step_penalty of at least 0", penalty)
        _require_positive(self, "initial_learning_rate_factor")
        _require_integers(self, 1, "steps", most=2**31)


@dataclass(frozen=True)
class AirWarmUp:
    """The first `steps` training steps of AIR, in which some scenes are trained with fewer windows
    (ours).

    Several windows learn together to paint one object before any can do it alone, and hardly part.
    So in a `share` of the scenes, others at every step, there are only the first n windows, n
    uniform on 1 .. N_max - 1, and these learn to paint whole objects.  The share falls linearly to
    0.
    """

    share: float = 0.5
    steps: int = 8000

    initial_learning_rate_factor = 1.0
    extra_noise = 1

    def __post_init__(self):
        require(0 <= self.share <= 1, "a share from 0 to 1", self.share)
        _require_integers(self, 1, "steps", most=2**31)


@dataclass(frozen=True)
class Annealing:
    """How learning rates change in a run of `epochs` epochs (ours); shares are of its steps.

    A variance's logit moves by about the learning rate in a step, so at the paper's rate a black
    background takes 60 epochs to get from its initial variance to the smallest.  So the SPNs' rates
    rise exponentially to `factors` times their values between the shares `rise`; before, the
    inference network has to learn what an object is.  From the share `fall_from` on all rates fall
    linearly to `last_factor` times, because boxes have to fit better the sharper the background
    gets; there they stay, if a run is longer.
    """

    epochs: int = 20
    factors: Mapping[str, float] = field(default_factory=dict)  # by part of the model
    rise: tuple[float, float] = (0.25, 0.35)
    fall_from: float = 0.3
    last_factor: float = 0.02

    def __post_init__(self):
        _require_integers(self, 1, "epochs")
        for part, factor in self.factors.items():
            require(0 < factor < LARGEST, f"a factor above 0 for {part}", factor)
        begin, end = self.rise
        require(0 <= begin < end <= 1, "0 <= rise from < to <= 1", self.rise)
        require(0 <= self.fall_from < 1, "fall_from in [0, 1)", self.fall_from)
        require(0 < self.last_factor <= 1, "last_factor in (0, 1]", self.last_factor)


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained; the defaults are SuPAIR's in the authors' code."""

    seed: int = 0
    batch_size: int = 256
    # Adam's, by part of the model (its `variables_by_part`).
    learning_rates: Mapping[str, float] = field(
        default_factory=lambda: {"inference": 1e-3, "object": 1e-3, "background": 1e-3}
    )
    log_every: int = 50  # steps between two measurements of the test accuracy (code)
    # None: an epoch is one pass over the scenes in their order, without the last, smaller batch
    # (code).  A number: so many batches, of as many passes as that takes, each in another order.
    steps_per_epoch: int | None = None
    # The model's weights are averages of those that Adam moves, in which step s weighs about
    # s^averaging (polynomial-decay averaging, Shamir & Zhang, 2013), so at 16 mostly the last
    # seventeenth of all steps: from step to step the threshold between one object and two wanders,
    # and the count with it; the average stands still.  None: the last weights.
    averaging: float | None = None
    warm_up: WarmUp | AirWarmUp | None = None
    annealing: Annealing | None = None
    # What an object must be worth in training, as a share of a square box of middle width full of
    # background (SuPAIR; ours).  As the background gets sharper a pixel that no box holds costs
    # more, and p(N) hardly anything: second boxes pay for what the first leaves over.  So the loss,
    # but not the bound, has this share of that box's log density added an object, after warm-up.
    object_price: float = 0.0

    def __post_init__(self):
        _require_integers(self, 0, "seed", most=2**31 - 1)
        _require_integers(self, 1, "batch_size", most=2**16)
        _require_integers(self, 1, "log_every", most=2**31)
        if self.steps_per_epoch is not None:
            _require_integers(self, 1, "steps_per_epoch", most=2**20)
        for part, rate in self.learning_rates.items():
            require(0 < rate < LARGEST, f"a learning rate above 0 for {part}", rate)
        price = self.object_price
        require(0 <= price < LARGEST, "a finite object_price of at least 0", price)
        good = self.averaging is None or 0 <= self.averaging < LARGEST
        require(good, "averaging of at least 0 or None", self.averaging)


PAPER_EPOCHS = 20  # the length of the runs in Figure 5 (code)
AIR_EPOCHS = 213  # the 200,000 steps of the Pyro example on 60,000 scenes

# The paper's data sets differ in the variances of object and background model (code).  The last two
# are not the paper's: up to three digits, and up to four on 80 x 80 pixels.
PAPER_MODELS = {
    "multi_mnist": ModelConfig(),
    "sprites": ModelConfig(background=background_spn(0.002, 0.16)),
    "noisy_mnist": ModelConfig(
        object=object_spn(0.25, 0.35), background=background_spn(0.002, 0.06)
    ),
    "grid_mnist": ModelConfig(),
    "multi_mnist_3": ModelConfig(num_steps=4),
    "multi_mnist_80": ModelConfig(num_steps=6, scene_size=80),
}

# "paper": as its authors train.  "robust": so that every seed learns, and in 20 epochs.
SUPAIR_RECIPES = {
    "paper": TrainingConfig(),
    "robust": TrainingConfig(
        batch_size=128,  # twice the steps in the same epochs
        averaging=16.0,
        warm_up=WarmUp(),
        annealing=Annealing(factors={"object": 3.0, "background": 10.0}),
        object_price=0.2,
    ),
}

# Pyro's 1e-4 for guide and decoder.  Its 0.1 for the baseline is for the cost summed over the data
# set; ours is a scene's, in units of `baseline_scale`.  It has to follow a cost that changes.
_AIR_TRAINING = TrainingConfig(
    batch_size=64, learning_rates={"air": 1e-4, "baseline": 1e-3}, log_every=250
)
AIR_RECIPES = {
    "paper": _AIR_TRAINING,
    "robust": dataclasses.replace(_AIR_TRAINING, warm_up=AirWarmUp()),
}


class Convergence(NamedTuple):
    """When a run has converged: the test ELBO's mean over `window` epochs is above that over the
    `window` epochs before by less than the share `gain` of all it has gained since the first epoch;
    it ends after `max_epochs` all the same."""

    window: int = 5
    gain: float = 0.01
    max_epochs: int = 100

    def reached(self, elbos: list[float]) -> bool:
        """Whether the test ELBOs at the ends of all epochs so far show convergence."""
        if len(elbos) < 2 * self.window:
            return False
        now = fmean(elbos[-self.window :])
        before = fmean(elbos[-2 * self.window : -self.window])
        return now - before < self.gain * abs(now - elbos[0])

    def last_epoch(self, elbos: list[float], least: int) -> int | None:
        """The epoch, `least` at the earliest, after which a run ends; None if it goes on."""
        for epoch in range(least, len(elbos) + 1):
            if epoch >= self.max_epochs or self.reached(elbos[:epoch]):
                return epoch
        return None


def resolve(
    class_name: str, model: Any, training: TrainingConfig, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """What a run's `config.json` holds, as plain values: the model's class and configuration, how
    it is trained, and what else decides the run, such as its data."""
    configuration = {"class": class_name, **dataclasses.asdict(model)}
    content = {"model": configuration, "training": dataclasses.asdict(training), **identity}
    return json.loads(json.dumps(content))


def model_from_settings(settings: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a SuPAIR that a `config.json` holds under "model".

    Raises:
      ConfigError: if it is none.
    """
    try:
        fields = {name: value for name, value in settings.items() if name != "class"}
        for name in ("object", "background"):
            fields[name] = fields[name] and SpnConfig(**fields[name])
        return ModelConfig(**fields)
    except (TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"expected the settings of a SuPAIR model ({error})") from None
