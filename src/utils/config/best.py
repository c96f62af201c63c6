"""What a file configs/best/DATASET/MODEL.yaml holds: published settings, each with where it was published.

source: "the authors' repository"      # of the keys beside it, which --best lays over the model's
n_ui_layers: 2
others:                                # what others have published for the same data set; --best does not use them
  - source: "another comparison"
    n_ui_layers: 1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError


@dataclass(frozen=True)
class Published:
    """A published setting.

    Args:
        settings: keys of the harness and the model, under any of their names.
        source: where they were published; empty where the file does not say.
        others: further settings for the same model and data set.
    """

    settings: Mapping[str, Any]
    source: str = ""
    others: tuple[Published, ...] = ()


def published(content: Mapping[str, Any], place: str) -> Published:
    """The settings in a file.

    Args:
        content: of the file.
        place: its name in messages.

    Raises:
        UserError: if a source is no text, or `others` no list of settings with sources.
    """
    source, others = content.get("source", ""), content.get("others", [])
    if not isinstance(source, str):
        raise UserError(f"{place}: source: expected a text that says where the setting was published, got {source!r}")
    if not isinstance(others, list) or not all(isinstance(other, dict) and other.get("source") for other in others):
        raise UserError(f"{place}: others: expected a list of settings, each with its source, got {others!r}")
    settings = {key: value for key, value in content.items() if key not in ("source", "others")}
    return Published(settings, source, tuple(published(other, place) for other in others))
