"""A network that is trained beside a model with an Adam of its own, as a critic or a generator is.

To the model's loss it is a constant: its weights are buffers, so gradients pass through it and none stays, and the trainer's
optimiser leaves it alone. Weights and moments are part of the state dict: a resumed run goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from common.initial import as_constants
from common.precision import single_precision


class InnerTraining(nn.Module):
    """A network and its Adam without weight decay.

    Args:
        network: its parameters become buffers here.
        learning_rate: of Adam.
        betas: of Adam's moments.
    """

    network: Any  # the module, whose own methods are of use
    steps: Tensor  # float32 [number of weights]: steps taken, as PyTorch's Adam counts them

    def __init__(self, network: nn.Module, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__()
        self.learning_rate, self.betas = learning_rate, betas
        self.names = [name for name, _ in network.named_parameters()]
        self.network = as_constants(network)
        for number, weights in enumerate(self.weights()):
            for moment in ("first", "second"):
                self.register_buffer(f"{moment}_moment_{number}", torch.zeros_like(weights))
        self.register_buffer("steps", torch.zeros(len(self.names)))

    def forward(self, *arguments: Any) -> Any:
        """What the network gives."""
        return self.network(*arguments)

    def weights(self) -> list[Tensor]:
        """The network's weights, in the order of its parameters."""
        return [self.network.get_buffer(name) for name in self.names]

    @single_precision
    def step(self, loss: Callable[[], Tensor]) -> Tensor:
        """One step of Adam on what `loss` computes of the network; returns its value.

        Args:
            loss: differentiated in the weights alone; what else it depends on should be constant.
        """
        weights = self.weights()
        try:
            with torch.enable_grad():
                for tensor in weights:
                    tensor.requires_grad_()
                value = loss()
                gradients = torch.autograd.grad(value, weights)
        finally:
            for tensor in weights:
                tensor.requires_grad_(False)
        numbers = range(len(weights))
        with torch.no_grad():
            adam(
                weights,
                list(gradients),
                [self.get_buffer(f"first_moment_{number}") for number in numbers],
                [self.get_buffer(f"second_moment_{number}") for number in numbers],
                [],
                list(self.steps.unbind()),
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=self.learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )
        return value.detach()
