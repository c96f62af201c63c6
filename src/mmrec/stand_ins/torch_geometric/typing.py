"""Names of PyTorch Geometric's types, as annotations use them."""

from __future__ import annotations

from typing import Any, Optional, Tuple, Union  # noqa: UP035

from torch import Tensor

Adj = Union[Tensor, Any]  # noqa: UP007
OptTensor = Optional[Tensor]  # noqa: UP045
PairTensor = Tuple[Tensor, Tensor]  # noqa: UP006
OptPairTensor = Tuple[Tensor, Optional[Tensor]]  # noqa: UP006, UP045
PairOptTensor = Tuple[Optional[Tensor], Optional[Tensor]]  # noqa: UP006, UP045
Size = Optional[Tuple[int, int]]  # noqa: UP006, UP045
NoneType = Optional[Tensor]  # noqa: UP045
