"""Where the files of published sources are looked for, and what is said when they are not there."""

from __future__ import annotations

import pytest
from helpers import problems_of

from prepare.sources.source import Published, published_source, source_names


def test_files_are_found_by_category(tmp_path):
    source = published_source("amazon2014")
    (problem,) = problems_of(lambda: source.find(tmp_path / "none", "Baby"))
    assert problem.startswith(
        f"{tmp_path / 'none'}: no reviews_Baby_5.json.gz or ratings_Baby.csv; no such folder. Put it"
    )
    assert "/categoryFiles/reviews_Baby_5.json.gz), or add --download" in problem
    for name in ("ratings_Baby.csv", "meta_Baby.json.gz"):
        (tmp_path / name).touch()
    assert set(source.find(tmp_path, "Baby")) == {"ratings", "meta"}
    (tmp_path / "reviews_Baby_5.json.gz").touch()
    assert set(source.find(tmp_path, "Baby")) == {"reviews", "meta"}
    assert set(source.find(tmp_path, "Baby", "ratings")) == {"ratings", "meta"}
    (problem,) = problems_of(lambda: source.find(tmp_path, "X"))
    assert "there is meta_Baby.json.gz, ratings_Baby.csv" in problem
    (problem,) = problems_of(lambda: source.find(tmp_path, "Baby", "rating"))
    assert problem == "--use: amazon2014 has reviews, ratings, got 'rating' (did you mean 'ratings'?)"


def test_what_is_to_be_downloaded(tmp_path):
    source = published_source("amazon2014")
    (tmp_path / "ratings_Baby.csv").touch()
    assert source.to_download(tmp_path, "Baby", None, "http://h/x/") == [
        ("http://h/x/categoryFiles/meta_Baby.json.gz", tmp_path / "meta_Baby.json.gz"),
        ("http://h/x/image_features/categoryFiles/image_features_Baby.b", tmp_path / "image_features_Baby.b"),
    ]
    (url, path), *_ = source.to_download(tmp_path, "Baby", "reviews", None)
    assert (url.rpartition("/")[2], path.name) == ("reviews_Baby_5.json.gz",) * 2
    movies = published_source("movielens")
    address = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
    assert movies.to_download(tmp_path, "ml-1m", None, None) == [(address, tmp_path / "ml-1m.zip")]
    (problem,) = problems_of(lambda: published_source("microlens").to_download(tmp_path, "MicroLens-50k", None, None))
    assert problem.startswith("--download: microlens has to be fetched by hand from https://github.com/")


def test_an_unpacked_archive_is_found_and_a_packed_one_named(tmp_path):
    source = published_source("movielens")
    (tmp_path / "ml-100k.zip").touch()
    assert "unpack the .zip file" in problems_of(lambda: source.find(tmp_path, "ml-100k"))[0]
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").touch()
    assert source.find(tmp_path, "ml-100k") == {"data": tmp_path / "ml-100k" / "u.data"}


def test_every_source_has_a_file_and_a_yaml():
    assert source_names() == ["amazon2014", "amazon2023", "microlens", "movielens"]
    for name in source_names():
        source = published_source(name)
        assert isinstance(source, Published)
        assert {"categories", "files", "interactions", "items", "k_core"} <= source.settings.keys()
        assert "url" in source.settings or "page" in source.settings
    (problem,) = problems_of(lambda: published_source("movilens"))
    assert problem.endswith("got 'movilens' (did you mean 'movielens'?)")


@pytest.mark.parametrize("name", source_names())
def test_the_kinds_of_interactions_and_items_are_files(name):
    settings = published_source(name).settings
    assert {*settings["interactions"], *settings["items"]} <= settings["files"].keys()
