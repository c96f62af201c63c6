"""`prepare` from the words of the command to the data set's folder."""

from __future__ import annotations

import csv
import gzip
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cli_tools import Outcome, contents, run_here, trained
from PIL import Image

from prepare import steps
from prepare.content.encoder_registry import ENCODERS, Encoder, EncoderSource, EncoderSpec
from prepare.content.store import ContentStore
from prepare.synthetic_raw.raw_spec import RawSpec
from prepare.synthetic_raw.write_raw import write_raw

SIZES: dict[str, Any] = {
    "users": 60,
    "items": 40,
    "interactions": 600,
    "extra_ratings": 90,
    "extra_items": 15,
    "extra_images": 3,
}
DEFECTS: dict[str, Any] = {"malformed": 3, "duplicated": 4, "missing_metadata": 5, "empty_text": 2, "non_utf8": 3}
DEFECTS |= {"missing_images": 6, "broken_images": 2}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Amazon 2014, with every defect that goes through."""
    folder = tmp_path_factory.mktemp("raw")
    write_raw(RawSpec(**SIZES, **DEFECTS), folder)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own with interactions, texts and audio features."""
    folder = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    pairs = sorted(
        {(int(u), int(i)) for u, i in zip(random.integers(0, 30, 500), random.integers(0, 25, 500), strict=True)}
    )
    with open(folder / "x.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "what", "stars", "when"])
        writer.writerows(
            (f"user {u}", f"item/{i}", int(random.integers(1, 6)), 1000 + n) for n, (u, i) in enumerate(pairs)
        )
    with open(folder / "items.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "title", "about"])
        writer.writerows((f"item/{i}", f"thing number {i}", f"of kind {i % 3}") for i in range(1, 25))
    np.save(folder / "a.npy", random.standard_normal((30, 7)).astype(np.float32))
    (folder / "ids.txt").write_text("".join(f"item/{i}\n" for i in range(30)))
    return folder


def prepare(data: Path, name: str, *words: object) -> Outcome:
    return run_here("prepare", name, *words, "--data_path", data, "--quiet")


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


OWN = ("--columns", "user=who", "item=what", "rating=stars", "time=when")


# Amazon


def test_amazon_2014_becomes_a_data_set_that_trains(raw, tmp_path):
    outcome = prepare(tmp_path, "baby", "--raw", raw)
    assert (outcome.code, outcome.err) == (0, "")
    folder = tmp_path / "baby"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "baby.inter", "u_id_mapping.csv", "i_id_mapping.csv", "content.lmdb", "text_feat.npy", "text_mask.npy",
        "image_feat.npy", "image_mask.npy", "manifest.json", ".prepare",
    }  # fmt: skip
    table = pd.read_csv(folder / "baby.inter", sep="\t")
    assert list(table.columns) == ["userID", "itemID", "rating", "timestamp", "x_label"]
    assert (table.userID.max() + 1, table.itemID.max() + 1, len(table)) == (60, 40, 600)
    assert not table.duplicated(["userID", "itemID"]).any()
    mask = np.load(folder / "image_mask.npy")
    assert (~mask).sum() == 8
    assert (np.load(folder / "image_feat.npy")[~mask] == 0).all()
    assert (~np.load(folder / "text_mask.npy")).sum() == 7
    outcome = trained(
        "-m", "VBPR", "-d", "baby", "--data_path", tmp_path, "--output_dir", tmp_path / "runs",
        "--cache_dir", tmp_path / "cache", "--epochs", 1, "--topk", 5, 10, 20, "--device", "cpu",
    )  # fmt: skip
    assert "40 items" in outcome.out


def test_the_report_adds_up_to_what_was_planted(raw, tmp_path):
    planted = json.loads((raw / "generated.json").read_text())["files"]
    out = prepare(tmp_path, "baby", "--raw", raw, "--use", "ratings").out
    lines = planted["ratings_Baby.csv"]["lines"]
    assert f"ratings_Baby.csv: {lines:,} lines = {lines - 3:,} kept + " in out
    without = out.split("  without entry: ")[1].partition(", ...")[0].split(", ")
    assert len(without) == 3
    meta = gzip.decompress((raw / "meta_Baby.json.gz").read_bytes())
    assert not any(f"'asin': '{name}'".encode() in meta for name in without)
    for text in (
        "4 repeated pairs, the first kept + 90 outside the 5-core",
        "split mmrec: 600 rows = ",
        "texts: 40 items = 33 with text + 2 with an entry but no text + 5 without entry",
        "features_image: 40 items = 32 present + 8 missing (filled with zeros)",
        "2 with NaN or infinite values + 3 of items that are not kept",
        "kept, with text that is not UTF-8: 3",
        "text: 40 items: 33 encoded to ",
    ):
        assert text in out, text
    sums = re.findall(r": ([\d,]+) (?:lines|rows|records|items) = (.+?)(?:;|\(|$)", out, re.MULTILINE)
    assert len(sums) >= 7
    for total, parts in sums:
        numbers = [int(part.split()[0].replace(",", "")) for part in parts.split(" + ")]
        assert int(total.replace(",", "")) == sum(numbers), parts


def test_ratings_and_the_published_core_give_the_same_interactions(raw, tmp_path):
    tables = []
    for use in ("ratings", "reviews"):
        assert prepare(tmp_path / use, "baby", "--raw", raw, "--use", use, "--text_encoder", "none").code == 0
        folder = tmp_path / use / "baby"
        ids = {name: pd.read_csv(folder / f"{name}_id_mapping.csv", sep="\t").original for name in "ui"}
        table = pd.read_csv(folder / "baby.inter", sep="\t")
        tables.append(set(zip(ids["u"][table.userID], ids["i"][table.itemID], table.timestamp, strict=True)))
    assert tables[0] == tables[1]
    assert len(tables[0]) == 600


def test_the_same_command_does_nothing_again_and_gives_the_same_bytes_elsewhere(raw, tmp_path):
    first = prepare(tmp_path / "a", "baby", "--raw", raw)
    before = contents(tmp_path / "a" / "baby", ".prepare")
    again = prepare(tmp_path / "a", "baby", "--raw", raw)
    assert contents(tmp_path / "a" / "baby", ".prepare") == before
    assert len(re.findall(": unchanged$", again.out, re.MULTILINE)) == 8
    # The report is the same: it is what was counted then.
    assert again.out.split("\n\n", 1)[1] == first.out.split("\n\n", 1)[1]
    prepare(tmp_path / "b", "baby", "--raw", raw)
    after = contents(tmp_path / "b" / "baby", ".prepare")
    assert {name for name in before if before[name] != after.get(name)} <= {"manifest.json"}
    assert before.keys() == after.keys()


def test_a_dry_run_tells_the_plan_and_writes_nothing(raw, tmp_path):
    outcome = prepare(tmp_path, "baby", "--raw", raw, "--dry_run")
    assert outcome.code == 0
    assert outcome.out.count("runs: not done yet") == 8
    assert list(tmp_path.iterdir()) == []
    prepare(tmp_path, "baby", "--raw", raw)
    before = contents(tmp_path, "nothing")
    out = prepare(tmp_path, "baby", "--raw", raw, "--dry_run", "--k_core", 4, "--seed", 3).out
    plan = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert plan["read"] == "unchanged, skipped"
    assert plan["filter"] == "runs: parameters changed: k_core 5 -> 4"
    assert plan["split"] == "runs: parameters changed: seed 0 -> 3"
    assert plan["content"].startswith("runs: if filter")
    assert contents(tmp_path, "nothing") == before


def test_another_seed_changes_the_split_alone(raw, tmp_path):
    prepare(tmp_path, "baby", "--raw", raw)
    before = contents(tmp_path / "baby", ".prepare")
    out = prepare(tmp_path, "baby", "--raw", raw, "--seed", 1).out
    after = contents(tmp_path / "baby", ".prepare")
    assert {name for name in before if before[name] != after[name]} == {"baby.inter", "manifest.json"}
    assert "encode_text: unchanged" in out
    assert manifest(tmp_path / "baby")["split"]["seed"] == 1


def test_several_splits_are_columns_that_runs_and_tables_pool(raw, tmp_path):
    out = prepare(tmp_path, "baby", "--raw", raw, "--seed", 4, "--splits", 3).out
    assert "further splits of these rows, each for runs with --split_field: x_label_2 x_label_3" in out
    table = pd.read_csv(tmp_path / "baby" / "baby.inter", sep="\t")
    for seed, column in ((4, "x_label"), (5, "x_label_2"), (6, "x_label_3")):
        prepare(tmp_path / column, "baby", "--raw", raw, "--seed", seed)
        alone = pd.read_csv(tmp_path / column / "baby" / "baby.inter", sep="\t")
        both = table.merge(alone, on=["userID", "itemID"])
        assert len(both) == len(table) == len(alone)
        assert (both[f"{column}_x" if column == "x_label" else column] == both.iloc[:, -1]).all()
    words = ["-m", "MostPop", "-d", "baby", "--data_path", tmp_path, "--output_dir", tmp_path / "runs", "--quiet"]
    outcome = trained(*words, "--topk", 5, 20, "--split_field", "x_label", "x_label_2", "x_label_3")
    assert "mean ± standard deviation over seeds and 3 splits: x_label, x_label_2, x_label_3" in outcome.out
    (row,) = [line for line in outcome.out.splitlines() if line.startswith("baby  ")]
    values = [json.loads((folder / "metrics.json").read_text())["test"]["recall@20"] for folder in outcome.folders]
    assert len(set(values)) == 3
    assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in row


def test_the_mean_may_fill_missing_rows(raw, tmp_path):
    prepare(tmp_path, "baby", "--raw", raw, "--fill_missing", "mean")
    for stem in ("image", "text"):
        matrix, mask = (np.load(tmp_path / "baby" / f"{stem}_{what}.npy") for what in ("feat", "mask"))
        assert (~mask).any()
        np.testing.assert_allclose(
            matrix[~mask], np.tile(matrix[mask].mean(axis=0), ((~mask).sum(), 1)), rtol=1e-4, atol=1e-6
        )


def test_what_is_not_asked_for_any_more_is_taken_away(raw, tmp_path):
    prepare(tmp_path, "baby", "--raw", raw)
    out = prepare(tmp_path, "baby", "--raw", raw, "--text_encoder", "none").out
    assert "encode_text: not asked for any more; text_feat.npy removed" in out
    assert not list((tmp_path / "baby").glob("text_*"))
    assert set(manifest(tmp_path / "baby")["modalities"]) == {"image"}


def test_the_manifest_says_how_it_was_made(raw, tmp_path):
    prepare(tmp_path, "baby", "--raw", raw)
    content = manifest(tmp_path / "baby")
    assert [entry["file"] for entry in content["inputs"]] == [
        "reviews_Baby_5.json.gz",
        "meta_Baby.json.gz",
        "image_features_Baby.b",
    ]
    assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in content["inputs"])
    assert content["source"] == {"name": "amazon2014", "category": "Baby"}
    assert content["counts"]["users"] == 60
    assert content["parameters"]["filter"] == {"threshold": None, "duplicates": "first", "k_core": 5, "keep_ids": False}
    assert content["modalities"]["text"]["encoder"] == "tfidf"
    assert {"numpy", "lmdb", "scipy"} <= content["versions"].keys()
    assert set(content["files"]) == {path.name for path in (tmp_path / "baby").iterdir()} - {
        ".prepare",
        "manifest.json",
    }


def test_amazon_2023(tmp_path):
    write_raw(RawSpec(**{**SIZES, "extra_images": 0}, malformed=2, non_utf8=2), tmp_path / "raw", "amazon2023")
    words = ("--source", "amazon2023", "--category", "Baby", "--raw", tmp_path / "raw")
    outcome = prepare(tmp_path, "new", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "split mmrec: 600 rows" in outcome.out
    assert "texts: 40 items = 40 with text + 0 " in outcome.out


@pytest.mark.parametrize(
    ("cut", "file", "planted"),
    [
        ("reviews", "reviews_Baby_5.json.gz", 600),
        ("meta", "meta_Baby.json.gz", 40),
        ("images", "image_features_Baby.b", 43),
    ],
)
def test_files_that_end_early_are_refused_unless_accepted(tmp_path, cut, file, planted):
    write_raw(RawSpec(**SIZES, cut=[cut]), tmp_path / "raw")
    outcome = prepare(tmp_path, "baby", "--raw", tmp_path / "raw", "--k_core", 0)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {file}: ")
    assert "--accept_truncated" in outcome.err
    assert outcome.err.count("\n") == 1
    outcome = prepare(tmp_path, "baby", "--raw", tmp_path / "raw", "--k_core", 0, "--accept_truncated")
    assert (outcome.code, outcome.err) == (0, "")
    assert "1 cut off at the end of the file" in outcome.out


# Downloads


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the tests read what the command prints."""


@pytest.fixture
def server(raw: Path, tmp_path: Path) -> Iterator[str]:
    """The raw files where their publisher would have them."""
    for folder, names in (
        ("categoryFiles", ("reviews_Baby_5.json.gz", "meta_Baby.json.gz")),
        ("image_features/categoryFiles", ("image_features_Baby.b",)),
    ):
        (tmp_path / "www" / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / "www" / folder / name).write_bytes((raw / name).read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "www"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_files_are_fetched_when_asked(server, raw, tmp_path):
    words = ("--raw", tmp_path / "raw", "--mirror", server)
    outcome = prepare(tmp_path, "baby", *words)
    assert outcome.code == 2
    assert "or add --download" in outcome.err
    assert not (tmp_path / "raw").exists()
    outcome = prepare(tmp_path, "baby", *words, "--download", "--dry_run")
    assert outcome.out.count("download: http://127.0.0.1") == 3
    assert not (tmp_path / "raw").exists()
    outcome = prepare(tmp_path, "baby", *words, "--download")
    assert (outcome.code, outcome.err) == (0, "")
    assert (tmp_path / "raw" / "meta_Baby.json.gz").read_bytes() == (raw / "meta_Baby.json.gz").read_bytes()
    again = prepare(tmp_path, "baby", *words, "--download")
    assert "download:" not in again.out


class Colours(Encoder):
    """The mean colour of an image."""

    def __init__(self, spec: EncoderSpec, reads: str) -> None:
        self.transform = lambda image: np.asarray(image, dtype=np.float32).mean(axis=(0, 1))

    def encode(self, batch: Any) -> Any:
        return np.stack(list(batch))

    def record(self) -> dict[str, Any]:
        return {"model": "mean colour"}


def test_images_are_fetched_by_their_addresses(server, tmp_path, monkeypatch):
    monkeypatch.setitem(ENCODERS, "colours", EncoderSource(("image",), Colours))
    spec = RawSpec(**{**SIZES, "extra_images": 0}, image_files=1, image_base=f"{server}/images/", missing_images=3)
    write_raw(spec, tmp_path / "raw", "amazon2023")
    (tmp_path / "raw" / "images").rename(tmp_path / "www" / "images")
    words = ("--source", "amazon2023", "--category", "Baby", "--raw", tmp_path / "raw", "--image_encoder", "colours")
    outcome = prepare(tmp_path, "new", *words)
    assert "there are no images; name their folder with --images, or add --download" in outcome.err
    prepare(tmp_path, "plain", *words[:-2])
    table = pd.read_csv(tmp_path / "plain" / "i_id_mapping.csv", sep="\t")
    lost, *_ = [name for name in table.original if (tmp_path / "www" / "images" / f"{name}.png").exists()]
    (tmp_path / "www" / "images" / f"{lost}.png").unlink()
    outcome = prepare(tmp_path, "new", *words, "--download")
    assert (outcome.code, outcome.err) == (0, "")
    assert "images: 37 addresses = 36 fetched + 1 failed" in outcome.out
    assert "  1 times: the server answers 404 (File not found): it is not there (any more)\n" in outcome.out
    assert f"  {lost}: " in outcome.out
    assert "images: 40 items = 36 stored + 4 without a file + 0 unreadable" in outcome.out
    mask = np.load(tmp_path / "new" / "image_mask.npy")
    assert (~mask).sum() == 4
    assert not mask[table.original.tolist().index(lost)]
    assert prepare(tmp_path, "new", *words, "--download").out.count(": unchanged") == 9
    before = contents(tmp_path / "new", ".prepare")
    prepare(tmp_path / "alone", "new", *words, "--download", "--fetch_threads", 1)
    alone = contents(tmp_path / "alone" / "new", ".prepare")
    assert {name for name in before if before[name] != alone[name]} <= {"manifest.json"}  # which has its date


# Own data


def test_own_data_of_any_ids_and_modalities(own, tmp_path):
    words = (
        "--interactions",
        own / "x.csv",
        *OWN,
        "--texts",
        own / "items.csv",
        "--features",
        f"audio={own / 'a.npy'}",
    )
    outcome = prepare(
        tmp_path, "mine", *words, "--feature_ids", own / "ids.txt", "--threshold", 2, "--split", "chronological"
    )
    assert (outcome.code, outcome.err) == (0, "")
    folder = tmp_path / "mine"
    items = pd.read_csv(folder / "i_id_mapping.csv", sep="\t")
    source = pd.read_csv(own / "x.csv")
    assert items.original.tolist() == source[source.stars >= 2].what.drop_duplicates().tolist()
    rows = [int(name.removeprefix("item/")) for name in items.original]
    assert (np.load(folder / "audio_feat.npy") == np.load(own / "a.npy")[rows]).all()
    assert not (folder / "audio_mask.npy").exists()
    assert (np.load(folder / "text_mask.npy") == [name != "item/0" for name in items.original]).all()
    assert "columns: user = who, item = what, rating = stars, time = when" in outcome.out
    table = pd.read_csv(folder / "mine.inter", sep="\t")
    latest = table.groupby(["userID", "x_label"]).timestamp.agg(["min", "max"]).unstack()
    held = latest.dropna()
    assert len(held) > 10
    assert (held["max"][0] < held["min"][1]).all()
    assert (held["max"][1] < held["min"][2]).all()


def test_numbers_and_a_given_split_may_stay(own, tmp_path):
    (tmp_path / "x.tsv").write_text(
        "userID\titemID\tx_label\n" + "".join(f"{u}\t{i}\t{(u + i) % 3}\n" for u in range(6) for i in range(24, -1, -1))
    )
    words = ("--interactions", tmp_path / "x.tsv", "--columns", "split=x_label", "--split", "given", "--keep_ids")
    outcome = prepare(tmp_path, "mine", *words, "--features", f"acoustic={own / 'a.npy'}")
    assert (outcome.code, outcome.err) == (0, "")
    table = pd.read_csv(tmp_path / "mine" / "mine.inter", sep="\t")
    assert (table.x_label == (table.userID + table.itemID) % 3).all()
    assert (np.load(tmp_path / "mine" / "audio_feat.npy") == np.load(own / "a.npy")[:25]).all()


def test_images_go_into_the_store_as_they_came(tmp_path):
    write_raw(RawSpec(**{**SIZES, "extra_images": 0}, missing_images=4), tmp_path / "raw", "own")
    (table,) = [path for path in (tmp_path / "raw").iterdir() if path.name.startswith("interactions")]
    outcome = prepare(tmp_path, "mine", "--interactions", table, "--k_core", 5, "--images", tmp_path / "raw" / "images")
    assert (outcome.code, outcome.err) == (0, "")
    assert "images: 40 items = 36 stored + 4 without a file + 0 unreadable" in outcome.out
    files, kept = len(list((tmp_path / "raw" / "images").iterdir())), 36
    assert f"files of no item that is kept: {files - kept}: " in outcome.out
    with ContentStore.open(tmp_path / "mine" / "content.lmdb") as store:
        names = store.keys("image")
        assert len(names) == 36
        for name in names:
            content = store.get("image", name)
            assert content is not None
            assert bytes(content) == (tmp_path / "raw" / "images" / f"{name}.png").read_bytes()


@pytest.mark.parametrize("pillow", [True, False])
def test_broken_images_are_counted_without_an_encoder(tmp_path, monkeypatch, pillow):
    monkeypatch.setitem(ENCODERS, "colours", EncoderSource(("image",), Colours))
    if not pillow:
        monkeypatch.setattr(steps, "check_library", lambda: "")
    write_raw(RawSpec(**{**SIZES, "extra_images": 0}, missing_images=4, broken_images=5), tmp_path / "raw", "own")
    raw = tmp_path / "raw"
    words = ("--interactions", raw / "interactions.csv", "--k_core", 5, "--images", raw / "images")
    outcome = prepare(tmp_path, "mine", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "images: 40 items = 36 stored + 4 without a file + 0 unreadable" in outcome.out
    if not pillow:
        assert "images: 36 stored were not checked, since Pillow is not installed: pip install pillow" in outcome.out
        return
    assert f"images decoded by Pillow {Image.__version__}: 36 stored = 31 whole + 5 broken" in outcome.out
    broken = manifest(tmp_path / "mine")["steps"]["check_images"]["broken"]
    assert len(broken) == 5
    assert all(f"  {name}: {reason}\n" in outcome.out for name, reason in broken.items())
    assert any(reason.startswith("not an image") for reason in broken.values())
    assert "check_images: unchanged" in prepare(tmp_path, "mine", *words).out
    # An encoder finds the same ones, and then they are not looked for twice.
    outcome = prepare(tmp_path, "mine", *words, "--image_encoder", "colours")
    assert "images decoded" not in outcome.out
    assert "31 encoded to 3 features, 4 missing, 0 empty, 5 unreadable" in outcome.out
    assert all(f"unreadable {name}: " in outcome.out for name in broken)


def test_a_folder_of_somebody_elses_is_left_alone(own, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.inter").write_text("precious")
    outcome = prepare(tmp_path, "mine", "--interactions", own / "x.csv", *OWN)
    assert outcome.code == 2
    assert "not made by prepare" in outcome.err
    assert (tmp_path / "mine" / "mine.inter").read_text() == "precious"


# Mistakes


def test_a_folder_that_cannot_be_made_names_the_option(own, tmp_path):
    (tmp_path / "file").write_text("")
    for words, option in (
        (("prepare", "mine", "--interactions", own / "x.csv", *OWN, "--data_path", tmp_path / "file"), "--data_path"),
        (
            ("prepare", "baby", "--raw", tmp_path / "file" / "raw", "--download", "--mirror", "http://127.0.0.1:9"),
            "--raw",
        ),
        (("generate_raw", tmp_path / "file"), "DIR"),
    ):
        outcome = run_here(*words)
        assert outcome.code == 2
        assert outcome.err.endswith(f"; choose another {option}\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "prepare: 'mine' names no category of amazon2014"),
        (["--interactions", "none.csv"], "there is no file none.csv"),
        (["--interactions", "X"], "which column is the user?"),
        (["--interactions", "X", "--columns", "usr=who"], "--columns: unknown column 'usr' (did you mean 'user'?)"),
        (["--interactions", "X", "--raw", "x"], "--raw does not go with --interactions"),
        (["--interactions", "X", "--ratios", "0.5", "0.5", "0.5"], "--ratios: expected three shares"),
        (["--interactions", "X", "--threshold", "high"], "--threshold: expected a number or null, got 'high'"),
        (["--interactions", "X", "--kcore", "1"], "unknown option --kcore (did you mean 'k_core'?)"),
        (["--interactions", "X", "--features", "audio=A"], "which item is which row?"),
        (["--interactions", "X", "--text_encoder", "tfidf"], "there are no texts; name a table of them with --texts"),
        (
            ["--interactions", "X", "--texts", "T", "--text_encoder", "tfdif"],
            "unknown encoder 'tfdif' (did you mean 'tfidf'?)",
        ),
        (["--interactions", "X", "--columns", "user=who,item=what", "--k_core", "90"], "no interaction is left of"),
        (
            ["--interactions", "X", "--columns", "user=who,item=what", "--threshold", "2"],
            "--threshold: the interactions have no ratings; name their column",
        ),
        (
            ["--raw", "x", "--source", "amazon2015", "--category", "Baby"],
            "--source: expected amazon2014, amazon2023, micro",
        ),
    ],
)
def test_mistakes_are_a_line_each_and_code_2(own, tmp_path, words, problem):
    table = tmp_path / "table.csv"
    table.write_text("who,what\n" + "".join(f"{u},{i}\n" for u in "abc" for i in range(9)))
    places = {
        "X": table,
        "audio=A": f"audio={own / 'a.npy'}",
        "T": own / "items.csv",
    }
    outcome = prepare(tmp_path / "data", "mine", *(places.get(word, word) for word in words))
    assert outcome.code == 2
    assert problem in outcome.err
    assert all(line.startswith("error: ") for line in outcome.err.splitlines())
    assert not (tmp_path / "data" / "mine" / "mine.inter").exists()


def test_content_that_is_of_no_item_is_shown_beside_the_items(own, tmp_path):
    (tmp_path / "shop.csv").write_text("sku,title\nP-0,a thing\n")
    (tmp_path / "below" / "deeper").mkdir(parents=True)
    (tmp_path / "pictures").mkdir()
    np.save(tmp_path / "a.npy", np.ones((1, 2), dtype=np.float32))
    (tmp_path / "ids.txt").write_text("P-0\n")
    for place in ("pictures/image_0.png", "pictures/image_1.png", "below/deeper/0.png"):
        (tmp_path / place).write_bytes(b"x")
    first = pd.read_csv(own / "x.csv").what[0]
    ids = f": its ids look like 'P-0', those of the interactions like '{first}'"
    for words, problem in (
        (("--images", tmp_path / "pictures"), "no image of any of 25 items, among 2 such as image_0.png; expected"),
        (("--images", tmp_path / "below"), "no image of any of 25 items, nor another image file; expected"),
        (("--texts", tmp_path / "shop.csv", "--text_id", "sku"), f"no text for any of 25 items{ids}"),
        (
            ("--features", f"x={tmp_path / 'a.npy'}", "--feature_ids", tmp_path / "ids.txt"),
            f"no row for any of 25 items{ids}",
        ),
    ):
        outcome = prepare(tmp_path / "data", "mine", "--interactions", own / "x.csv", *OWN, *words)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert problem in outcome.err
        assert not (tmp_path / "data" / "mine" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("source", "name"), [("movielens", "ml-100k"), ("movielens", "ml-1m"), ("microlens", "microlens")]
)
def test_other_published_sources_become_data_sets(tmp_path, source, name):
    category = "MicroLens-50k" if source == "microlens" else name
    spec = RawSpec(**{**SIZES, "extra_images": 0}, category=category, malformed=2, duplicated=3, missing_metadata=2)
    write_raw(spec, tmp_path / "raw", source)
    outcome = prepare(tmp_path, name, "--raw", tmp_path / "raw", "--source", source, "--k_core", 5)
    assert (outcome.code, outcome.err) == (0, "")
    assert "split mmrec: 600 rows" in outcome.out
    assert "texts: 40 items = 38 with text + 0 with an entry but no text + 2 without entry" in outcome.out
    if source == "microlens":
        assert "images decoded by Pillow" in outcome.out
    assert manifest(tmp_path / name)["source"] == {"name": source, "category": category}
    outcome = trained(
        "-m", "MostPop", "-d", name, "--data_path", tmp_path, "--output_dir", tmp_path / "runs", "--topk", 5, 10, 20,
        "--device", "cpu",
    )  # fmt: skip
    assert "40 items" in outcome.out


def test_a_dry_run_reads_the_beginning_of_every_input(own, tmp_path):
    (tmp_path / "texts.csv").write_text("sku,title\n1,a\n")
    np.save(tmp_path / "a.npy", np.zeros((29, 2)))
    (tmp_path / "ratings_Baby.csv").write_text("no,ratings\n" * 3)
    features = ("--features", f"audio={tmp_path / 'a.npy'}", "--feature_ids", own / "ids.txt")
    words = ("--interactions", own / "x.csv", *OWN[:3], "--split", "leave_one_out", "--texts", tmp_path / "texts.csv")
    outcome = prepare(tmp_path, "mine", *words, *features, "--dry_run")
    assert (outcome.code, outcome.err.splitlines()) == (2, [
        "error: --split leave_one_out: the interactions have no times; name their column with --columns time=NAME",
        "error: texts.csv: which column holds the item's id? add --text_id NAME; its columns are sku, title",
        "error: a.npy: 29 rows, but 30 ids were given for them",
    ])  # fmt: skip
    outcome = prepare(tmp_path, "baby", "--raw", tmp_path, "--dry_run")
    assert outcome.err.startswith(
        "error: ratings_Baby.csv: no interaction in 3 lines: 3 malformed: not user,item,rating"
    )


def test_columns_of_texts_with_holes_are_reported(own, tmp_path):
    (tmp_path / "t.csv").write_text(
        "what,title,plot\n" + "".join(f"item/{i},t{i},{'p' * (i > 2)}\n" for i in range(25))
    )
    outcome = prepare(tmp_path, "mine", "--interactions", own / "x.csv", *OWN, "--texts", tmp_path / "t.csv")
    assert "  kept, with an empty column 'plot': 3, first line 2: item/0" in outcome.out
    assert "warning: 3 of 25 texts are with an empty column 'plot' (first: item/0)" in outcome.out
