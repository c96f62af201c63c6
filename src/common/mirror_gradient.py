"""Mirror gradient: every beta-th step descends, then climbs back a part of the way on the same batch.

With learning rate eta and gradient g, a mirror step of plain gradient descent is
    Theta' = Theta - alpha1 eta g(Theta),   Theta <- Theta' + alpha2 eta g(Theta').
To second order it is a step of size eta on (alpha1 - alpha2) L + (eta alpha1 alpha2 / 2) |grad L|^2: flat minima are
preferred.

Source: Zhong et al., "Mirror Gradient: Towards Robust Multimodal Recommender Systems via Exploring Flat Local Minima",
WWW 2024 (arXiv 2402.11262). The order of the passes is that of the code behind the published numbers; see `passes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass of a step, with one update of the optimiser.

    Args:
        scale: what the loss is multiplied by.
        clipped: whether `clip_grad_norm` applies to it.
    """

    scale: float = 1.0
    clipped: bool = True


ORDINARY = (Pass(),)


class MirrorGradient:
    """The passes of each step of an epoch.

    Args:
        settings: `alpha1`, `alpha2` and `beta`; None: every step is an ordinary one.
    """

    def __init__(self, settings: Mapping[str, float] | None) -> None:
        self.beta = int(settings["beta"]) if settings else 0
        self.mirror = (
            # The descent is not clipped in the published code.
            (Pass(settings["alpha1"], clipped=False), Pass(-settings["alpha2"])) if settings else ORDINARY
        )

    def passes(self, step: int) -> tuple[Pass, ...]:
        """The passes of a step, which is counted from 0 in each epoch: steps 0, beta, 2 beta, ... are mirror steps."""
        return self.mirror if self.beta and step % self.beta == 0 else ORDINARY
