"""MovieLens 100K and 1M: their published layouts, lines that are broken, titles and genres as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from prepare.lines import Reading, Tally
from prepare.sources.movielens import GENRES, SOURCE
from prepare.sources.source import Item
from prepare.synthetic_raw.raw_spec import RawSpec
from prepare.synthetic_raw.write_raw import write_raw

FLAGS = "0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"  # Animation, Children's, Comedy


def both(files: dict[str, Path]) -> tuple[list[tuple[str, str, float, int]], Tally, list[Item], Tally]:
    table, tally, _ = SOURCE.interactions(files, Reading())
    assert table.ratings is not None
    assert table.times is not None
    rows = [
        (table.user_ids[u], table.item_ids[i], r, t)
        for u, i, r, t in zip(table.users, table.items, table.ratings.tolist(), table.times.tolist(), strict=True)
    ]
    *items, item_tally = SOURCE.items(files, {"1": 0, "2": 1}, Reading())
    assert isinstance(item_tally, Tally)
    tally.record()
    item_tally.record()
    return rows, tally, items, item_tally  # type: ignore[return-value]


def test_100k(tmp_path):
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\tx\t891717742\n\n22 377 1 878887116\n")
    (tmp_path / "u.item").write_bytes(
        f"1|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact|{FLAGS}\n"
        f"2|Caf\u00e9  (1990)|||x|1|{'0|' * 17}0\n2|again|||x|{FLAGS}\n3|other|||x|{FLAGS}\n4|short\n".encode("latin-1")
    )
    rows, tally, items, item_tally = both({"data": tmp_path / "u.data", "item": tmp_path / "u.item"})
    assert rows == [("196", "242", 3.0, 881250949)]
    assert {reason: entry["count"] for reason, entry in tally.dropped.items()} == {
        "malformed: without a rating that is a number": 1, "blank": 1, "malformed: not user\titem\trating\ttime": 1
    }  # fmt: skip
    assert items == [Item("1", "Toy Story (1995) Animation Children's Comedy"), Item("2", "Caf\u00e9 (1990) unknown")]
    assert {reason: entry["count"] for reason, entry in item_tally.dropped.items()} == {
        "of an item that has one already": 1, "of items that are not kept": 1, "malformed: not the 24 fields of u.item": 1
    }  # fmt: skip


def test_1m(tmp_path):
    (tmp_path / "ratings.dat").write_text("1::1193::5::978300760\n1::661::3\n")
    (tmp_path / "movies.dat").write_bytes(b"1::Toy: Story (1995)::Animation|Sci-Fi\n2::\xe9 (1990)::Drama\n")
    rows, tally, items, _ = both({"ratings": tmp_path / "ratings.dat", "movies": tmp_path / "movies.dat"})
    assert (rows, tally.kept, tally.read) == ([("1", "1193", 5.0, 978300760)], 1, 2)
    assert items == [Item("1", "Toy: Story (1995) Animation Sci-Fi"), Item("2", "\u00e9 (1990) Drama")]


@pytest.mark.parametrize("category", ["ml-100k", "ml-1m"])
def test_generated_files_are_of_the_layout(tmp_path, category):
    sizes = {"users": 60, "items": 40, "interactions": 600, "extra_ratings": 90, "extra_items": 15}
    record = write_raw(RawSpec(category=category, **sizes, malformed=3, empty_text=2), tmp_path, "movielens")
    files = SOURCE.find(tmp_path, category)
    table, tally, _ = SOURCE.interactions(files, Reading())
    planted = record["files"][SOURCE.interaction_file(files).name]
    assert (len(table), tally.read - tally.kept) == (planted["interactions"], 3)
    *items, item_tally = SOURCE.items(files, {name: k for k, name in enumerate(table.item_ids)}, Reading())
    assert isinstance(item_tally, Tally)
    assert sum(entry["count"] for reason, entry in item_tally.dropped.items() if reason.startswith("malformed")) == 3
    known = [item for item in items if isinstance(item, Item) and item.text]
    assert len(known) == len(table.item_ids) - 2
    assert any(genre in known[0].text for genre in GENRES)
