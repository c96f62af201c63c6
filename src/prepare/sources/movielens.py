"""MovieLens 100K and 1M (Harper and Konstan, TiiS 2015): ratings, and titles and genres of films as text.

100K: u.data (user, item, rating, time between tabs) and u.item (fields between |, the last 19 say which genres).
1M: ratings.dat and movies.dat (fields between ::, genres by name between |). Texts are in Latin-1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prepare.interactions import Interactions
from prepare.lines import Reading, Tally, records
from prepare.sources.amazon import read_ratings
from prepare.sources.source import Item, Published, id_problem, is_first_wanted, item_of_words

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
N_FIELDS = 5 + len(GENRES)  # of u.item: id, title, two dates and an address come first


class MovieLens(Published):
    """The files of one size, 100K or 1M; the names of the files say which."""

    def interactions(self, files: Mapping[str, Path], how: Reading) -> tuple[Interactions, Tally, dict[str, str]]:
        path, separator = (files["data"], "\t") if "data" in files else (files["ratings"], "::")
        return read_ratings(path, separator, separator.join(("user", "item", "rating", "time")), how)

    def items(self, files: Mapping[str, Path], wanted: Mapping[str, int], how: Reading) -> Iterator[Item | Tally]:
        flags = "item" in files
        path = files["item" if flags else "movies"]
        n_fields = N_FIELDS if flags else 3
        tally, seen = Tally(path.name), set[str]()

        def fields_of(line: bytes) -> list[str] | None:
            fields = line.decode("latin-1").split("|" if flags else "::")
            return fields if len(fields) == n_fields else None

        for at, line, fields in records(path, tally, how, f"the {n_fields} fields of {path.name}", fields_of):
            if problem := id_problem(fields[0].strip(), "item"):
                tally.drop(f"malformed: {problem}", at, line)
            elif is_first_wanted(fields[0].strip(), wanted, seen, tally, at):
                chosen = [genre for genre, flag in zip(GENRES, fields[5:], strict=False) if flag.strip() == "1"]
                words = [fields[1], *(chosen if flags else fields[2].split("|"))]
                yield item_of_words(fields[0].strip(), words, tally, at)
        yield tally


SOURCE = MovieLens("movielens")
