"""Read golden files: outputs of the original implementation for given weights and scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from rat_spn import RegionGraph
from supair.config import ModelConfig, background_spn, object_spn
from supair.model import SuPAIR


def relative_error(ours, theirs) -> float:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"expected shape {theirs.shape}, found {ours.shape}"
    scale = np.linalg.norm(theirs)
    return float(np.linalg.norm(ours - theirs) / (scale if scale > 0 else 1.0))


def assert_equal_outputs(found: dict, stored: dict, tolerances: dict[str, float]) -> None:
    """Every output named in `tolerances` is computed and within its relative error, by norm, of what is stored."""
    assert set(tolerances) <= set(found), f"outputs that we do not compute: {sorted(set(tolerances) - set(found))}"
    errors = {name: relative_error(found[name], stored[name]) for name in tolerances}
    wrong = {name: error for name, error in errors.items() if not error <= tolerances[name]}
    assert not wrong, f"relative errors above tolerance: {wrong}"


class GoldenFile:
    """A golden file, and our model with its configuration, structures and weights."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.config = json.loads(str(self.arrays["config"]))
        self.side, self.patch = self.config["scene_width"], self.config["patch_width"]
        self.graphs = {kind: self._graph(kind, side) for kind, side in (("object", self.patch), ("background", self.side))}
        self.model = self._model()

    def _graph(self, kind: str, side: int) -> RegionGraph | None:
        if f"{kind}/regions" not in self.arrays:
            return None
        members = np.unpackbits(self.arrays[f"{kind}/regions"], axis=1)[:, : side**2]
        return RegionGraph(side**2, tuple(np.flatnonzero(row) for row in members), tuple(self.arrays[f"{kind}/partitions"]))

    def _sizes(self, kind: str) -> dict[str, int]:
        """Components and sums, read off the weights."""
        graph = self.graphs[kind]
        sums = [self.arrays[f"{kind}/partition/{p}/weight_logit"].shape[2] for p in range(len(graph.partitions))]
        components = self.arrays[f"{kind}/leaf/{graph.leaves[0]}/mean"].shape[1]
        return {"num_components": components, "num_sums": max(sums)}

    def _model(self) -> SuPAIR:
        config, arrays = self.config, self.arrays
        background = None
        if config["background_model"]:
            background = background_spn(config["bg_min_var"], config["bg_max_var"], **self._sizes("background"))
        model = SuPAIR(
            ModelConfig(
                scene_size=self.side,
                patch_size=self.patch,
                num_steps=config["num_steps"],
                lstm_units=config["lstm_units"],
                hidden_units=arrays["mlp/0/kernel"].shape[1],
                scale_min=config["min_obj_scale"],
                scale_max=config["max_obj_scale"],
                aspect_min=config["min_y_scale"],
                aspect_max=config["max_y_scale"],
                overlap_rate=config["overlap_beta"],
                object=object_spn(config["obj_min_var"], config["obj_max_var"], **self._sizes("object")),
                background=background,
            ),
            object_graph=self.graphs["object"],
            background_graph=self.graphs["background"],
        )
        inference, pixels = model.inference, self.side**2
        inference.kernel.assign(arrays["lstm/kernel"][:pixels])
        inference.recurrent_kernel.assign(arrays["lstm/kernel"][pixels:])
        inference.bias.assign(arrays["lstm/bias"])
        for layer, name in ((inference.hidden, "mlp/0"), (inference.output_layer, "mlp/1")):
            layer.kernel.assign(arrays[f"{name}/kernel"])
            layer.bias.assign(arrays[f"{name}/bias"])
        for kind, spn in (("object", model.object_spn), ("background", model.background_spn)):
            if spn is None:
                continue
            leaves = {
                region: tuple(arrays[f"{kind}/leaf/{region}/{name}"] for name in ("mean", "variance_logit"))
                for region in spn.graph.leaves
            }
            partitions = {p: arrays[f"{kind}/partition/{p}/weight_logit"] for p in range(len(spn.graph.partitions))}
            spn.assign(leaves, partitions)
        return model

    def by_original_name(self, values: list) -> dict[str, np.ndarray]:
        """One value for each trainable variable of the model (gradients, say), under the names of the golden file."""
        model = self.model
        of = {id(variable): np.asarray(value) for variable, value in zip(model.trainable_variables, values)}
        named = {}
        inference = model.inference
        named["lstm/kernel"] = np.concatenate([of[id(inference.kernel)], of[id(inference.recurrent_kernel)]])
        named["lstm/bias"] = of[id(inference.bias)]
        for layer, name in ((inference.hidden, "mlp/0"), (inference.output_layer, "mlp/1")):
            named[f"{name}/kernel"], named[f"{name}/bias"] = of[id(layer.kernel)], of[id(layer.bias)]
        for kind, spn in (("object", model.object_spn), ("background", model.background_spn)):
            if spn is None:
                continue
            starts = np.cumsum([len(spn.graph.regions[region]) for region in spn.graph.leaves])[:-1]
            for name, variable in (("mean", spn.leaf_layer.mean), ("variance_logit", spn.leaf_layer.variance_logit)):
                for region, rows in zip(spn.graph.leaves, np.split(of[id(variable)], starts)):
                    named[f"{kind}/leaf/{region}/{name}"] = rows
            for layer in spn.sum_layers:
                for block, variable in zip(layer.blocks, layer.weight_logits):
                    for row, partitions in enumerate(block.partitions):
                        for column, partition in enumerate(partitions):
                            named[f"{kind}/partition/{partition}/weight_logit"] = of[id(variable)][row, column]
        return named
