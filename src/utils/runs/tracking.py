"""TensorBoard scalars beside history.csv; the package is optional, and only a run that asks for it needs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError


def writer_class() -> Any:
    """TensorBoard's writer.

    Raises:
        UserError: if the package is not there.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("tensorboard is not installed: pip install tensorboard") from None
    return SummaryWriter


class Scalars:
    """Writes the rows of history.csv as scalars into a folder.

    Args:
        folder: is made.
        done: epochs done before; what a killed session wrote of later ones is dropped.

    Raises:
        UserError: if TensorBoard is not there.
    """

    def __init__(self, folder: Path, done: int) -> None:
        self.writer = writer_class()(log_dir=str(folder), purge_step=done + 1)

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Writes the columns of an epoch under their names, but for the epoch, which is the step."""
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, int(row["epoch"]))
        self.writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self.writer.close()
