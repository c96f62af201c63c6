"""Texts of generated items, whose words follow the item's hidden attributes, so that a text encoder can find these."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# For each attribute the words of +1 and of -1; further attributes use the same words with a number.
PAIRS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("wooden", "oak", "bamboo"), ("plastic", "vinyl", "acrylic")),
    (("red", "crimson", "scarlet"), ("blue", "navy", "azure")),
    (("travel", "portable", "foldable"), ("home", "stationary", "furniture")),
    (("soft", "plush", "fleece"), ("hard", "rigid", "steel")),
    (("bath", "waterproof", "splash"), ("dry", "dust", "carpet")),
    (("music", "sound", "melody"), ("silent", "quiet", "noiseless")),
    (("battery", "electric", "wireless"), ("manual", "mechanical", "handmade")),
    (("animal", "bear", "rabbit"), ("geometric", "striped", "dotted")),
    (("feeding", "bottle", "spoon"), ("sleeping", "pillow", "blanket")),
    (("newborn", "infant", "cradle"), ("teen", "adult", "grownup")),
    (("bright", "glowing", "neon"), ("dark", "black", "matte")),
    (("summer", "sunny", "beach"), ("winter", "snow", "warming")),
    (("organic", "natural", "cotton"), ("synthetic", "nylon", "polyester")),
    (("luxury", "premium", "deluxe"), ("budget", "value", "economy")),
    (("sport", "running", "training"), ("reading", "drawing", "study")),
    (("large", "giant", "jumbo"), ("small", "mini", "pocket")),
    (("garden", "outdoor", "camping"), ("kitchen", "indoor", "dining")),
    (("sweet", "vanilla", "honey"), ("salty", "spicy", "pepper")),
    (("vintage", "classic", "retro"), ("modern", "smart", "digital")),
    (("round", "ball", "circular"), ("square", "boxy", "angular")),
    (("safety", "protective", "guard"), ("adventure", "racing", "extreme")),
    (("paper", "cardboard", "printed"), ("glass", "ceramic", "porcelain")),
    (("princess", "fairy", "castle"), ("pirate", "dragon", "ship")),
    (("gift", "party", "birthday"), ("office", "work", "daily")),
)
BRANDS = (
    "Alder & Finch",
    "Brightwell",
    "Cobble Lane",
    "Dove's Nest",
    "Everholt",
    "Fernway",
    "Grey Otter",
    "Hollow Oak",
)


def word(attribute: int, sign: int, choice: int) -> str:
    """One of the three words that an attribute's sign stands for."""
    pair = PAIRS[attribute % len(PAIRS)]
    again = attribute // len(PAIRS)
    return pair[0 if sign > 0 else 1][choice % 3] + (str(again) if again else "")


def item_text(signs: NDArray[np.int8], random: np.random.Generator, category: str) -> dict[str, object]:
    """Title, brand, categories and description of an item.

    Args:
        signs: +1 or -1 for each attribute that shows in texts [S].
        random: the stream of the choices among equal words.
        category: the name of the category.

    Returns:
        title and description; brand, an empty text for one item in ten; categories, the path of names.
    """
    order, choices = random.permutation(len(signs)), random.integers(0, 3, (2, len(signs)))
    named = [word(int(k), int(signs[k]), int(choices[0, k])) for k in order]
    described = [word(int(k), int(signs[k]), int(choices[1, k])) for k in order[::-1]]
    brand = "" if random.random() < 0.1 else BRANDS[int(random.integers(len(BRANDS)))]
    return {
        "title": " ".join([*(w.capitalize() for w in named[:6]), f"Item {random.integers(100, 999)}"]),
        "brand": brand,
        "categories": [category.replace("_", " "), *(w.capitalize() for w in named[:2])],
        "description": f'It\'s {_listed(described[:8])}. Made to be {_listed(described[8:])}, "as it should be".',
    }


def review_text(signs: NDArray[np.int8], random: np.random.Generator) -> str:
    """A sentence on an item with the signs [S]."""
    liked = [word(k, int(signs[k]), int(random.integers(3))) for k in random.permutation(len(signs))[:3].tolist()]
    return f"Bought it for {_listed(liked)}; it does what it's said to do."


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words) if words else "good"
