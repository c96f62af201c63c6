"""The steps from raw files to a data set's folder: what each reads, makes and reports."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prepare import interactions, splits
from prepare.content import feature_files as features
from prepare.content.encode import encode
from prepare.content.image_check import checker
from prepare.content.store import FILE, ContentStore, compact, file_rows, image_files
from prepare.lines import NOT_KEPT, Tally
from prepare.pipeline import Pipeline, Progress, Step, whole_file
from prepare.sources import amazon
from prepare.sources import item_texts as texts
from prepare.sources import separated as tables
from utils.data.missing_modalities import mask_path
from utils.errors import UserError
from utils.files import make_folder, write_json

OWN = "own"
SOURCES = ("amazon2014", "amazon2023", OWN)
FEW = 3  # examples
LONGEST_NAME = 200  # bytes of an item's id that names a file, with room for what downloads add to it
FETCHED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
STEMS = {"visual": "image", "textual": "text", "acoustic": "audio"}  # modality to the stem of its file


@dataclass(frozen=True)
class Options:
    """What is to be prepared, checked.

    Attributes:
        raw: kind of raw file (reviews, ratings, meta, image_features) to its path; for own data `own`.
        columns: of own interactions: user, item, rating, time, split, as far as named.
        features: stem of a feature file to the user's matrix; feature_ids: to the file of its rows' ids.
        text_encoder, image_encoder: keys of EncoderSpec, or None.
        fetch_images: fetch the images whose addresses the metadata have; fetch_threads: so many at a time.
    """

    name: str
    folder: Path
    source: str
    raw: Mapping[str, Path]
    category: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None
    k_core: int = 0
    duplicates: str = "first"
    keep_ids: bool = False
    split: str = "mmrec"
    seed: int = 0
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
    few: int = 10
    least: int = splits.LEAST
    images: Path | None = None
    texts: Path | None = None
    text_columns: Sequence[str] = ()
    text_id: str | None = None
    features: Mapping[str, Path] = field(default_factory=dict)
    feature_ids: Mapping[str, Path] = field(default_factory=dict)
    fill: str = "zero"
    text_encoder: Mapping[str, Any] | None = None
    image_encoder: Mapping[str, Any] | None = None
    fetch_images: bool = False
    fetch_threads: int = 8
    accept_truncated: bool = False


class Steps:
    """Makes the steps of a pipeline; each method is what one of them does and returns its report."""

    def __init__(self, options: Options, pipeline: Pipeline) -> None:
        self.o, self.pipeline = options, pipeline
        self.folder, self.work = pipeline.folder, pipeline.work
        self.inter = self.folder / f"{options.name}.inter"
        self.user_map, self.item_map = self.folder / "u_id_mapping.csv", self.folder / "i_id_mapping.csv"
        self.store = self.folder / FILE
        self.pictures = options.images or (self.work / "images" if options.fetch_images else None)

    def all(self) -> list[Step]:
        """The steps in their order."""
        o = self.o
        table, filtered, items = (self.work / name for name in ("interactions.npz", "filtered.npz", "items.jsonl"))
        strict = {"accept_truncated": o.accept_truncated}
        kind = next(kind for kind in ("reviews", "ratings", OWN) if kind in o.raw)
        cleaning = {"threshold": o.threshold, "duplicates": o.duplicates, "k_core": o.k_core, "keep_ids": o.keep_ids}
        splitting = {"kind": o.split, "seed": o.seed, "ratios": list(o.ratios), "few": o.few, "least": o.least}
        if o.split != "mmrec":
            splitting.pop("seed")  # nothing else draws
        steps = [
            Step(
                "read",
                self.read,
                [o.raw[kind]],
                [table],
                parameters={"as": [o.source, kind], "columns": dict(o.columns), **strict},
            ),
            Step("filter", self.filter, [table], [filtered, self.user_map, self.item_map], parameters=cleaning),
            Step("split", self.split, [filtered], [self.inter], parameters=splitting),
        ]
        described = o.texts or o.raw.get("meta")
        if described:
            chosen = {"columns": list(o.text_columns), "id": [o.text_id, o.columns.get("item")]} if o.texts else {}
            parameters = {"as": OWN if o.texts else o.source, **chosen, **strict}
            inputs = [described, self.item_map]
            steps.append(Step("items", self.items, inputs, [items], parameters=parameters, version=2))
        if o.fetch_images:
            steps.append(Step("fetch", self.fetch, [items], [self.work / "images.json"], version=2))
        kinds = {"text": described, "image": self.pictures}
        if any(kinds.values()):
            inputs = [self.item_map, *([items] if described else []), *([self.pictures] if self.pictures else [])]
            inputs += [self.work / "images.json"] if o.fetch_images else []
            outputs = [self.store, *(self._digests(kind) for kind, there in kinds.items() if there)]
            steps.append(Step("content", self.content, inputs, outputs, version=2))
        if self.pictures and o.image_encoder is None:  # which would find the broken ones
            inputs, outputs = [self._digests("image")], [self.work / "images_checked.json"]
            steps.append(Step("check_images", self.check_images, inputs, outputs, parameters={"by": checker()[0]}))
        for stem, spec in (("text", o.text_encoder), ("image", o.image_encoder)):
            if spec is not None:
                inputs = [self._digests(stem), self.item_map]
                steps.append(
                    self._features(f"encode_{stem}", self._encode(stem, spec), stem, inputs, {"spec": dict(spec)})
                )
        if "image_features" in o.raw:
            inputs = [o.raw["image_features"], self.item_map]
            steps.append(self._features("features_image", self.image_records, "image", inputs, strict))
        for stem, path in o.features.items():
            inputs = [path, self.item_map, *([o.feature_ids[stem]] if stem in o.feature_ids else [])]
            steps.append(self._features(f"features_{stem}", self._matrix(stem), stem, inputs, {}))
        made = [path for step in steps for path in step.outputs if path.parent == self.folder]
        steps.append(Step("verify", self.verify, made, [self.work / "verified.json"]))
        return steps

    def _features(self, name: str, run: Any, stem: str, inputs: Sequence[Path], parameters: Mapping[str, Any]) -> Step:
        out = self.folder / f"{stem}_feat.npy"
        given = {"fill": self.o.fill, **parameters}
        return Step(name, run, inputs, [out], [mask_path(out)], given)

    def _digests(self, kind: str) -> Path:
        return self.work / f"content_{kind}.json"

    # Interactions

    def read(self, progress: Progress) -> dict[str, Any]:
        o = self.o
        used: dict[str, str] = {}
        if OWN in o.raw:
            table, tally, used = tables.read_own(o.raw[OWN], o.columns, o.accept_truncated, progress)
        elif "ratings" in o.raw:
            table, tally = amazon.read_ratings(o.raw["ratings"], o.accept_truncated, progress)
        else:
            table, tally = amazon.read_reviews(o.raw["reviews"], o.source, o.accept_truncated, progress)
        record = tally.record()
        if not len(table):
            reasons = ", ".join(
                f"{entry['count']:,} {reason} (first: {entry['example']})"
                for reason, entry in record["dropped"].items()
            )
            raise UserError(
                f"{tally.name}: no interaction in {tally.read:,} {tally.unit}" + (f": {reasons}" if reasons else "")
            )
        interactions.save(table, self.work / "interactions.npz")
        sizes = {"users": len(table.user_ids), "items": len(table.item_ids), "rows": len(table)}
        return {"tally": record, "columns": used, **sizes}

    def filter(self, progress: Progress) -> dict[str, Any]:
        o = self.o
        table = interactions.load(self.work / "interactions.npz")
        tally = Tally("interactions", "rows")
        tally.read = len(table)
        table = interactions.above(table, o.threshold, tally)
        table = interactions.without_repeats(table, o.duplicates, tally)
        rounds: list[dict[str, int]] = []
        if o.k_core:
            table, rounds = interactions.k_core(table, o.k_core, tally)
        tally.kept = len(table)
        if not len(table):
            reasons = ", ".join(f"{entry['count']:,} {reason}" for reason, entry in tally.dropped.items())
            raise UserError(
                f"no interaction is left of {tally.read:,}: {reasons}; take a lower --k_core or --threshold"
            )
        table = interactions.renumbered(table, o.keep_ids)
        interactions.save(table, self.work / "filtered.npz")
        interactions.write_mapping(self.user_map, table.user_ids, "userID")
        interactions.write_mapping(self.item_map, table.item_ids, "itemID")
        sizes = {"users": len(table.user_ids), "items": len(table.item_ids), "rows": len(table)}
        return {"tally": tally.record(), "k_core_rounds": rounds, **sizes}

    def split(self, progress: Progress) -> dict[str, Any]:
        o = self.o
        table = interactions.load(self.work / "filtered.npz")
        labels = splits.split(table, o.split, o.seed, o.ratios, o.few, o.least)
        write_inter(self.inter, table, labels)
        counts = splits.counts_of(table.users, table.items, labels)
        trained = np.zeros(counts["users"], dtype=bool)
        trained[table.users[labels == splits.TRAIN]] = True
        return {
            **counts,
            "rows": len(table),
            "users_without_training_rows": len(np.unique(table.users[~trained[table.users]])),
            "published": splits.recognise(table.users, table.items, labels),
        }

    # Content

    def _item_ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(read_mapping(self.item_map))}

    def items(self, progress: Progress) -> dict[str, Any]:
        o = self.o
        wanted = self._item_ids()
        if o.texts:
            arguments = (o.texts, o.text_columns, o.text_id, wanted, o.accept_truncated, progress)
            found = texts.read_texts(*arguments, o.columns.get("item"))
        else:
            found = amazon.read_meta(o.raw["meta"], o.source, wanted, o.accept_truncated, progress)
        counts = {"items": len(wanted), "with_text": 0, "with_image_address": 0}
        tallies: list[Tally] = []
        without = dict.fromkeys(wanted)

        def kept() -> Iterator[texts.Item]:
            for item in found:
                if isinstance(item, Tally):
                    tallies.append(item)
                else:
                    del without[item.id]
                    counts["with_text"] += bool(item.text)
                    counts["with_image_address"] += bool(item.image)
                    yield item

        texts.write_items(self.work / "items.jsonl", kept())
        (tally,) = tallies
        counts["without_text"] = tally.kept - counts["with_text"]
        counts["without_entry"] = len(without)
        if not counts["with_text"]:
            raise UserError(f"{tally.name}: no text for any of {len(wanted):,} items{_strangers(tally, list(wanted))}")
        return {"tally": tally.record(), **counts, "first_without_entry": list(without)[:FEW]}

    def fetch(self, progress: Progress) -> dict[str, Any]:
        from prepare.download import download_all

        folder = self.work / "images"
        make_folder(folder)
        addresses = {item.id: item.image for item in texts.stored_items(self.work / "items.jsonl") if item.image}
        failed: dict[str, str] = {}
        wanted: dict[str, tuple[str, Path]] = {}
        for name, url in addresses.items():
            suffix = Path(url.partition("?")[0]).suffix.lower()
            if Path(name).name != name or name.startswith(".") or len(name.encode()) > LONGEST_NAME:
                failed[name] = "its id cannot name a file"
            else:
                wanted[name] = url, folder / f"{name}{suffix if suffix in FETCHED_SUFFIXES else '.jpg'}"
        failed |= download_all(wanted, self.o.fetch_threads, progress)
        if not addresses:
            raise UserError(f"{self.o.raw['meta'].name}: no address of an image for any of the items that are kept")
        if len(failed) == len(addresses):
            raise UserError(f"none of {len(failed):,} images could be fetched (first: {next(iter(failed.values()))})")
        write_json(self.work / "images.json", {"failed": failed})
        reasons = Counter(
            why.removeprefix(f"{addresses[name]}: ").partition(";")[0] for name, why in sorted(failed.items())
        )
        fetched = len(addresses) - len(failed)
        return {"addresses": len(addresses), "fetched": fetched, "failed": failed, "reasons": dict(reasons)}

    def content(self, progress: Progress) -> dict[str, Any]:
        ids = list(self._item_ids())
        items = self.work / "items.jsonl"
        pictures = self.pictures
        described = self.o.texts or self.o.raw.get("meta")
        # What an earlier, killed call has stored is gone on with, if it was of the same content.
        used = [path for path in (self.item_map, items if described else None, pictures) if path]
        key = hashlib.sha256(" ".join(str(self.pipeline.hashes.of(path)) for path in used).encode()).hexdigest()[:16]
        working = self.work / f"content-{key}.lmdb"
        for left in self.work.glob("content-*.lmdb"):
            if left != working:
                left.unlink()
        report: dict[str, Any] = {"items": len(ids)}
        with ContentStore.open(working, write=True) as store:
            if described:
                rows = ((item.id, item.text.encode()) for item in texts.stored_items(items) if item.text)
                report["text"] = {"stored": store.put_many("text", rows).rows}
            if pictures:
                unreadable: list[tuple[str, str]] = []
                files, missing, others = image_files(pictures, ids)
                if not files:
                    found = f"among {len(others):,} such as {others[0]}" if others else "nor another image file"
                    raise UserError(
                        f"{pictures}: no image of any of {len(ids):,} items, {found}; expected files called by item id, "
                        f"such as {ids[0]}.jpg, not in folders below"
                    )
                stored = store.put_many("image", self._shown(file_rows(files, unreadable), len(files), progress)).rows
                counts = {"stored": stored, "missing": len(missing), "of_no_item": len(others)}
                report["image"] = counts | {"unreadable": dict(unreadable), "first_of_no_item": others[:1]}
        compact(working)
        with ContentStore.open(working) as store:
            for kind in ("text", "image"):
                if kind in report:
                    digest = hashlib.sha256()
                    for name in store.keys(kind):
                        digest.update(f"{name}\0".encode() + (store.digest(kind, name) or b""))
                    write_json(self._digests(kind), {"sha256": digest.hexdigest(), "items": store.count(kind)})
        os.replace(working, self.store)
        return report

    def check_images(self, progress: Progress) -> dict[str, Any]:
        by, problem_of = checker()
        broken: dict[str, str] = {}
        with ContentStore.open(self.store) as store:
            names = store.keys("image")
            for done, name in enumerate(names, 1):
                if problem := problem_of(bytes(store.get("image", name) or b"")):
                    broken[name] = problem
                progress(done, len(names))
        write_json(self.work / "images_checked.json", {"broken": broken})
        return {"by": by, "items": len(names), "broken": broken}

    @staticmethod
    def _shown(rows: Iterator[tuple[str, bytes]], n: int, progress: Progress) -> Iterator[tuple[str, bytes]]:
        for done, row in enumerate(rows):
            progress(done, n)
            yield row

    def _encode(self, kind: str, spec: Mapping[str, Any]) -> Any:
        def run(progress: Progress) -> dict[str, Any]:
            out = self.folder / f"{kind}_feat.npy"
            mask = mask_path(out)
            with contextlib.suppress(FileNotFoundError):
                mask.unlink()  # of an earlier run
            with ContentStore.open(self.store) as store:
                report = encode(store, kind, list(self._item_ids()), spec, out, progress)
            if mask.is_file() and self.o.fill == "mean":
                fill_mean(out, np.load(mask, allow_pickle=False))
            return report.record() | {"lines": report.lines()}

        return run

    def image_records(self, progress: Progress) -> dict[str, Any]:
        o = self.o
        source, target = o.raw["image_features"], self.folder / "image_feat.npy"
        tally, mask = features.from_records(source, self._item_ids(), target, o.fill, o.accept_truncated, progress)
        return self._coverage(tally, mask)

    def _matrix(self, stem: str) -> Any:
        def run(progress: Progress) -> dict[str, Any]:
            o = self.o
            ids = read_ids(o.feature_ids[stem]) if stem in o.feature_ids else None
            target = self.folder / f"{stem}_feat.npy"
            return self._coverage(
                *features.from_matrix(o.features[stem], ids, self._item_ids(), target, o.fill, progress)
            )

        return run

    def _coverage(self, tally: Tally, mask: Any) -> dict[str, Any]:
        record = tally.record()
        if not mask.any():
            strangers = _strangers(tally, read_mapping(self.item_map))
            raise UserError(f"{tally.name}: no row for any of {len(mask):,} items{strangers}")
        return {
            "tally": record,
            "items": len(mask),
            "present": int(mask.sum()),
            "missing": int((~mask).sum()),
            "fill": self.o.fill,
        }

    # The whole

    def verify(self, progress: Progress) -> dict[str, Any]:
        """Reads the data set as a run would, and checks that its parts belong together."""
        from prepare.describe import describe
        from utils.config.request import Request, resolve
        from utils.data.loading import load_dataset

        o = self.o
        problems = []
        if self.store.is_file() and any(self._digests(kind).is_file() for kind in ("text", "image")):
            with ContentStore.open(self.store) as store:
                problems += store.verify()
        progress(1, 3)
        overrides = {"data_path": [str(self.folder.parent)]}
        (config,), _ = resolve(Request(["prepare"], [o.name], overrides), {"prepare": None})
        named = sorted(path.name for path in self.folder.glob("*_feat.npy"))
        dataset = load_dataset(config, needs_features=bool(named))
        n_users, n_items = len(read_mapping(self.user_map)), len(read_mapping(self.item_map))
        if (dataset.n_users, dataset.n_items) != (n_users, n_items):
            problems.append(
                f"{self.inter.name}: {dataset.n_users:,} users and {dataset.n_items:,} items, but the mappings have "
                f"{n_users:,} and {n_items:,}"
            )
        for path in sorted(self.folder.glob("*_mask.npy")):
            mask = np.load(path, allow_pickle=False)
            if mask.shape != (n_items,) or mask.dtype != bool:
                problems.append(f"{path.name}: expected bool [{n_items}], got {mask.dtype} {list(mask.shape)}")
        if problems:
            raise UserError(*problems)
        progress(2, 3)
        lines = dataset.statistics()
        warnings = list(dataset.warnings)
        del dataset
        description = describe(self.folder, o.name)
        report = {"statistics": lines, "warnings": warnings, "files": named, "description": description.record()}
        write_json(self.work / "verified.json", report)
        return report


def _strangers(tally: Tally, ids: Sequence[str]) -> str:
    """How the ids of a file that has none of the items look, beside theirs."""
    found = tally.dropped.get(NOT_KEPT, {}).get("example")
    return f": its ids are such as '{found}', those of the interactions such as '{ids[0]}'" if found else ""


def write_inter(path: Path, table: interactions.Interactions, labels: Any) -> None:
    """Writes NAME.inter, rows by user, then split, then item."""
    order = np.lexsort((table.items, labels, table.users))
    columns: dict[str, list[Any]] = {"userID": table.users[order].tolist(), "itemID": table.items[order].tolist()}
    if table.ratings is not None:
        columns["rating"] = [f"{rating:g}" for rating in table.ratings[order].tolist()]
    if table.times is not None:
        columns["timestamp"] = table.times[order].tolist()
    columns["x_label"] = labels[order].tolist()
    with whole_file(path) as file:
        file.write(("\t".join(columns) + "\n").encode())
        for row in zip(*columns.values(), strict=True):
            file.write(("\t".join(map(str, row)) + "\n").encode())


def read_mapping(path: Path) -> list[str]:
    """The original ids in order of their numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        return [row[0] for row in csv.reader(file, delimiter="\t")][1:]


def read_ids(path: Path) -> list[str]:
    """The ids in a file, one a line."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of ids, one a line ({error})") from None


def fill_mean(path: Path, mask: Any) -> None:
    """Puts the mean of the present rows in place of the missing ones."""
    matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    rows = ((item, np.asarray(matrix[item], dtype=np.float32)) for item in np.flatnonzero(mask).tolist())
    features.write_rows(path, len(matrix), matrix.shape[1], rows, "mean", matrix.dtype.str)
