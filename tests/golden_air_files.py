"""Read AIR's golden files: what Pyro's gives for given weights, scenes and samples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from supair.air import AIR, AirLatents
from supair.config import AirConfig


class GoldenAir:
    """A golden file, and our model with its configuration and weights."""

    def __init__(self, path: Path):
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        for name in ("images", *AirLatents._fields):
            self.arrays[name] = self.arrays[name].astype(np.float32)
        config, weights = json.loads(str(self.arrays["config"])), self._weights()
        usual, head = AirConfig(), self._linear(weights, "predict")
        self.model = AIR(
            AirConfig(
                scene_size=config["scene"],
                window_size=config["window"],
                num_steps=config["steps"],
                lstm_units=weights["rnn/weight_hh"].shape[1],
                hidden_units=weights["encode/mlp/seq/0/weight"].shape[0],
                head_units=weights[head[0]].shape[0] if len(head) == 2 else 0,
                what_size=config["z_what"],
                count_ratio=config.get("k", usual.count_ratio),
                scale_prior=tuple(config.get("scale_prior", usual.scale_prior)),
                position_prior=tuple(config.get("position_prior", usual.position_prior)),
                decoder_bias=config.get("decoder_bias", usual.decoder_bias) or 0.0,
                likelihood_scale=config.get("likelihood_sd", usual.likelihood_scale),
                baseline_scale=1.0,
            )
        )
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
