"""Read golden files: what the originals, SuPAIR's and Pyro's AIR, give for weights and scenes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from rat_spn import RatSpn, RegionGraph
from supair.air import AIR, AirLatents
from supair.config import AirConfig, ModelConfig, background_spn, object_spn
from supair.model import SuPAIR

LEAF_WEIGHTS = "mean", "variance_logit"
NAMES = {"scene_width": "scene_size", "patch_width": "patch_size", "overlap_beta": "overlap_rate"}
NAMES |= {"num_steps": "num_steps", "lstm_units": "lstm_units"}
NAMES |= {f"{end}_obj_scale": f"scale_{end}" for end in ("min", "max")}
NAMES |= {f"{end}_y_scale": f"aspect_{end}" for end in ("min", "max")}


def golden_files(folder: str, variable: str) -> list[Path]:
    """Those in the directory that an environment variable names, or in one of tests/'s folders."""
    directory = Path(os.environ.get(variable, Path(__file__).parent / folder))
    files = sorted(directory.glob("*.npz"))
    assert files, f"no golden files (*.npz) in {directory}"
    return files


def assert_equal_outputs(found: dict, stored: dict, tolerances: dict[str, float]) -> None:
    """Every output in `tolerances` is computed, within that relative error of `stored`."""
    for name, tolerance in tolerances.items():
        ours, theirs = (np.asarray(outputs[name], np.float64) for outputs in (found, stored))
        assert ours.shape == theirs.shape, name
        error = np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) or 1.0)
        assert error <= tolerance, f"{name}: relative error {error}"


class GoldenFile:
    """A golden file, and our model with its configuration, structures and weights."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.config = json.loads(str(self.arrays["config"]))
        self.side, self.patch = self.config["scene_width"], self.config["patch_width"]
        sides = {"object": self.patch, "background": self.side}
        self.graphs = {kind: self._graph(kind, side) for kind, side in sides.items()}
        self.model = self._model()

    def _graph(self, kind: str, side: int) -> RegionGraph | None:
        if f"{kind}/regions" not in self.arrays:
            return None
        members = np.unpackbits(self.arrays[f"{kind}/regions"], axis=1)[:, : side**2]
        regions = [np.flatnonzero(row) for row in members]
        return RegionGraph(side**2, regions, self.arrays[f"{kind}/partitions"])

    def _sizes(self, kind: str) -> dict[str, int]:
        """Components and sums, read off the weights."""
        graph = self.graphs[kind]
        names = (f"{kind}/partition/{p}/weight_logit" for p in range(len(graph.partitions)))
        sums = [self.arrays[name].shape[2] for name in names]
        components = self.arrays[f"{kind}/leaf/{graph.leaves[0]}/mean"].shape[1]
        return {"num_components": components, "num_sums": max(sums)}

    def _model(self) -> SuPAIR:
        config, arrays = self.config, self.arrays
        background = None
        if config["background_model"]:
            bounds = config["bg_min_var"], config["bg_max_var"]
            background = background_spn(*bounds, **self._sizes("background"))
        bounds = config["obj_min_var"], config["obj_max_var"]
        objects = object_spn(*bounds, **self._sizes("object"))
        settings = {ours: config[name] for name, ours in NAMES.items()}
        settings["hidden_units"] = arrays["mlp/0/kernel"].shape[1]
        settings = ModelConfig(**settings, object=objects, background=background)
        graphs = {f"{kind}_graph": graph for kind, graph in self.graphs.items()}
        model = SuPAIR(settings, **graphs)
        inference, pixels = model.inference, self.side**2
        inference.kernel.assign(arrays["lstm/kernel"][:pixels])
        inference.recurrent_kernel.assign(arrays["lstm/kernel"][pixels:])
        inference.bias.assign(arrays["lstm/bias"])
        for layer, name in ((inference.hidden, "mlp/0"), (inference.output_layer, "mlp/1")):
            layer.kernel.assign(arrays[f"{name}/kernel"])
            layer.bias.assign(arrays[f"{name}/bias"])
        for kind, spn in self._spns(model):
            for name in LEAF_WEIGHTS:
                parts = [arrays[f"{kind}/leaf/{region}/{name}"] for region in spn.graph.leaves]
                getattr(spn.leaf_layer, name).assign(np.concatenate(parts))
            for layer in spn.sum_layers:
                for weight, block in zip(layer.weight_logits, layer.blocks):
                    named = (f"{kind}/partition/{p}/weight_logit" for p in np.ravel(block[0]))
                    weight.assign(np.reshape([arrays[name] for name in named], weight.shape))
        return model

    @staticmethod
    def _spns(model: SuPAIR) -> list[tuple[str, RatSpn]]:
        spns = (("object", model.object_spn), ("background", model.background_spn))
        return [(kind, spn) for kind, spn in spns if spn is not None]

    def by_original_name(self, values: list) -> dict[str, np.ndarray]:
        """Values (gradients, say) of the trainable variables, by the golden file's names."""
        variables = self.model.trainable_variables
        of = {variable.path: np.asarray(value) for variable, value in zip(variables, values)}
        kernels = [of[f"inference/{name}"] for name in ("kernel", "recurrent_kernel")]
        named = {"lstm/kernel": np.concatenate(kernels), "lstm/bias": of["inference/bias"]}
        for layer, name in (("hidden", "mlp/0"), ("output", "mlp/1")):
            for weight in ("kernel", "bias"):
                named[f"{name}/{weight}"] = of[f"inference/{layer}/{weight}"]
        for kind, spn in self._spns(self.model):
            regions = spn.graph.leaves
            starts = np.cumsum([len(spn.graph.regions[region]) for region in regions])[:-1]
            for name in LEAF_WEIGHTS:
                by_region = np.split(of[f"{spn.name}/leaves/{name}"], starts)
                for region, value in zip(regions, by_region):
                    named[f"{kind}/leaf/{region}/{name}"] = value
            for layer in spn.sum_layers:
                for block, variable in zip(layer.blocks, layer.weight_logits):
                    for partitions, row in zip(block.partitions, of[variable.path]):
                        for partition, value in zip(partitions, row):
                            named[f"{kind}/partition/{partition}/weight_logit"] = value
        return named


AIR_NAMES = {"scene": "scene_size", "window": "window_size", "steps": "num_steps"}
AIR_NAMES |= {"k": "count_ratio", "z_what": "what_size", "likelihood_sd": "likelihood_scale"}
AIR_NAMES |= {name: name for name in ("scale_prior", "position_prior", "decoder_bias")}


class GoldenAir:
    """As `GoldenFile`, of AIR."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        for name in ("images", *AirLatents._fields):
            self.arrays[name] = self.arrays[name].astype(np.float32)
        config, weights = json.loads(str(self.arrays["config"])), self._weights()
        head, settings = self._linear(weights, "predict"), {"baseline_scale": 1.0}
        for name, ours in AIR_NAMES.items():
            if name in config:
                value = config[name] or 0.0
                settings[ours] = tuple(value) if isinstance(value, list) else value
        settings["lstm_units"] = weights["rnn/weight_hh"].shape[1]
        settings["hidden_units"] = weights["encode/mlp/seq/0/weight"].shape[0]
        settings["head_units"] = weights[head[0]].shape[0] if len(head) == 2 else 0
        self.model = AIR(AirConfig(**settings))
        self._assign(weights)

    @property
    def sample(self) -> AirLatents:
        return AirLatents(*(self.arrays[name] for name in AirLatents._fields))

    def _weights(self) -> dict[str, np.ndarray]:
        names = [name for name in self.arrays if name.startswith("weight/")]
        return {name.removeprefix("weight/"): self.arrays[name] for name in names}

    @staticmethod
    def _linear(weights: dict[str, np.ndarray], name: str) -> list[str]:
        """The names of the weights of the linear layers of a network, in order."""
        found = [key for key in weights if key.startswith(f"{name}/") and key.endswith("/weight")]
        return sorted(found, key=lambda key: int(key.split("/")[-2]))

    def _assign(self, weights: dict[str, np.ndarray]) -> None:
        model, pixels = self.model, self.model.config.scene_size**2
        for lstm, name, prefix in ((model.lstm, "rnn", ""), (model.baseline_lstm, "bl_rnn", "bl_")):
            lstm.scene_kernel.assign(weights[f"{name}/weight_ih"].T[:pixels])
            lstm.latent_kernel.assign(weights[f"{name}/weight_ih"].T[pixels:])
            lstm.recurrent_kernel.assign(weights[f"{name}/weight_hh"].T)
            lstm.bias.assign(weights[f"{name}/bias_ih"])
            lstm.recurrent_bias.assign(weights[f"{name}/bias_hh"])
            lstm.initial_state.assign(weights[f"{prefix}h_init"])
            lstm.initial_cell.assign(weights[f"{prefix}c_init"])
        model.initial_where.assign(weights["z_where_init"])
        model.initial_what.assign(weights["z_what_init"])
        networks = {"encode": model.encoder, "decode": model.decoder}
        networks |= {"predict": model.head, "bl_predict": model.baseline_head}
        for name, network in networks.items():
            for layer, key in zip(network.layers, self._linear(weights, name), strict=True):
                layer.kernel.assign(weights[key].T)
                layer.bias.assign(weights[key.removesuffix("weight") + "bias"])
