"""The state of training as named tensors and nothing else: what is stored needs no pickle to be read."""

from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict


class TrainingState:
    """Weights and moments of the parameters that are trained; frozen ones (LoRA's base model) stay out.

    The optimiser's hyperparameters stay out too: settings and step decide them.

    Attributes:
        tensors: By name, sharded as the model is; they are the live ones, not copies.
    """

    def __init__(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Look at a model and its optimiser, whose moments are made if there are none yet."""
        self._model, self._optimiser = model, optimiser
        options = StateDictOptions(ignore_frozen_params=True)
        self._weights, self._moments = get_state_dict(model, optimiser, options=options)
        self.tensors: dict[str, torch.Tensor] = {f"model.{name}": tensor for name, tensor in self._weights.items()}
        for parameter, moments in self._moments["state"].items():
            self.tensors |= {f"optimiser.{parameter}.{name}": tensor for name, tensor in moments.items()}

    def restore(self) -> None:
        """Give the tensors, which were loaded, to model and optimiser."""
        frozen = any(not parameter.requires_grad for parameter in self._model.parameters())
        weights: dict[str, Any] = {name: self.tensors[f"model.{name}"] for name in self._weights}
        moments = {
            parameter: {name: self.tensors[f"optimiser.{parameter}.{name}"] for name in names}
            for parameter, names in self._moments["state"].items()
        }
        set_state_dict(
            self._model,
            self._optimiser,
            model_state_dict=weights,
            optim_state_dict={**self._moments, "state": moments},
            options=StateDictOptions(strict=not frozen),
        )
