"""MicroLens: pairs, titles and covers, with and without a header."""

from __future__ import annotations

import pytest

from prepare.lines import Reading, Tally
from prepare.sources.microlens import SOURCE
from prepare.sources.source import Item
from prepare.synthetic_raw.raw_spec import RawSpec
from prepare.synthetic_raw.write_raw import write_raw


@pytest.mark.parametrize("header", [True, False])
def test_pairs_and_titles(tmp_path, header):
    pairs, titles = tmp_path / "MicroLens-50k_pairs.csv", tmp_path / "MicroLens-50k_titles.csv"
    pairs.write_text("user,item,timestamp\n" * header + "7,3,1659000000000\n8,3,1659000000001\n")
    titles.write_text("item,title\n" * header + '3,"A ""title"", said"\n4,other\n')
    files = SOURCE.find(tmp_path, "MicroLens-50k")
    assert set(files) == {"pairs", "titles"}
    table, tally, used = SOURCE.interactions(files, Reading())
    assert (table.user_ids, table.item_ids, tally.kept) == (["7", "8"], ["3"], 2)
    assert table.times is not None
    assert table.times.tolist() == [1659000000000, 1659000000001]
    assert used == {"user": "user", "item": "item", "time": "timestamp"}
    item, item_tally = SOURCE.items(files, {"3": 0}, Reading())
    assert item == Item("3", 'A "title", said')
    assert isinstance(item_tally, Tally)
    assert item_tally.read == 2


def test_generated_files_are_of_the_layout(tmp_path):
    sizes = {"users": 60, "items": 40, "interactions": 600, "extra_ratings": 90, "extra_items": 15}
    write_raw(RawSpec(**sizes, malformed=3, missing_images=2), tmp_path, "microlens")
    files = SOURCE.find(tmp_path, "MicroLens-50k")
    assert files["images"].is_dir()
    table, tally, _ = SOURCE.interactions(files, Reading())
    assert (len(table), tally.read - tally.kept) == (690, 3)
    *items, _ = SOURCE.items(files, {name: k for k, name in enumerate(table.item_ids)}, Reading())
    assert len(items) == len(table.item_ids)
    assert len(list(files["images"].iterdir())) == 40 + 15 - 2
