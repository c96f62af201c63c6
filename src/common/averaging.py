"""A moving average of a model's weights, to evaluate in place of the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage:
    """An exponential moving average of a model's parameters over the steps.

    After step n: a = d a + (1 - d) w with d = min(`decay`, (1 + n) / (10 + n)), so that the first steps are soon forgotten.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (1992), in its exponential form.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        # Of the parameters alone: a copy of the model would hold its features and graphs once more.
        self.parameters = nn.ParameterList(model.parameters())
        self.averaged = AveragedModel(self.parameters, multi_avg_fn=self._average)
        self._set_steps(0)

    def _set_steps(self, steps: int) -> None:
        self.steps = steps
        self.averaged.n_averaged.fill_(steps + 1)  # the first weights count as one: of 0 the first step would be a copy

    def _average(self, averages: Tensors, weights: Tensors, _: Tensor | int) -> None:
        # The number of steps is known here; reading it from a tensor would wait for the GPU.
        torch._foreach_lerp_(averages, weights, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))

    def update(self) -> None:
        """Takes in the parameters after a step."""
        self.steps += 1
        self.averaged.update_parameters(self.parameters)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within it the model's parameters are the averages."""
        last = [parameter.data for parameter in self.parameters]
        try:
            for parameter, average in zip(self.parameters, self.averaged.parameters(), strict=True):
                parameter.data = average.data
            yield
        finally:
            for parameter, own in zip(self.parameters, last, strict=True):
                parameter.data = own

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return self.averaged.state_dict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes up the averages of `state_dict`."""
        self.averaged.load_state_dict(saved)
        self._set_steps(int(self.averaged.n_averaged) - 1)
