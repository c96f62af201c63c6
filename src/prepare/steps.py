"""The steps from raw files to a data set's folder: what each one reads, makes and reports."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audit.dataset_description import describe
from audit.published_splits import counts_of, recognise
from prepare import interactions, splits
from prepare.content import feature_files
from prepare.content.encode import encode
from prepare.content.encoder_registry import BadContent
from prepare.content.images import check_library, file_rows, find_images, image_of
from prepare.content.item_file import stored_items, write_items
from prepare.content.store import FILE, ContentStore, compact
from prepare.download import download_all
from prepare.lines import NOT_KEPT, Reading, Tally
from prepare.options import Inputs, PrepareOptions
from prepare.pipeline import Pipeline, Step
from prepare.sources.source import Item
from utils.config.request import Request, resolve
from utils.data.loading import load_dataset
from utils.data.missing_modalities import mask_path
from utils.errors import UserError
from utils.files import make_folder, write_json
from utils.progress import ProgressBar

FEW = 3  # examples
LONGEST_NAME = 200  # bytes of an item's id that names a file, with room for what downloads add to it
FETCHED_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


class Steps:
    """The steps of a pipeline; each method does what one of them does and returns its report."""

    def __init__(self, options: PrepareOptions, inputs: Inputs, pipeline: Pipeline) -> None:
        self.o, self.inputs, self.pipeline = options, inputs, pipeline
        self.folder, self.work = pipeline.folder, pipeline.work
        self.inter = self.folder / f"{options.name}.inter"
        self.user_map, self.item_map = self.folder / "u_id_mapping.csv", self.folder / "i_id_mapping.csv"
        self.store = self.folder / FILE
        self.images = inputs.images or (self.work / "images" if inputs.fetch_images else None)
        self.how = Reading(
            options.accept_truncated, None, 0, options.columns, tuple(options.text_columns or ()), options.text_id
        )

    def all(self) -> list[Step]:
        """The steps in their order."""
        o, found = self.o, self.inputs
        table, filtered, items = (self.work / name for name in ("interactions.npz", "filtered.npz", "items.jsonl"))
        strict = {"accept_truncated": o.accept_truncated}
        path = found.source.interaction_file(found.files)
        kind = next(kind for kind, place in found.files.items() if place == path)
        reading = {"as": [found.source.name, kind], "columns": o.columns, **strict}
        cleaning = {
            "threshold": o.threshold,
            "duplicates": o.duplicates,
            "k_core": found.k_core,
            "keep_ids": o.keep_ids,
        }
        splitting = {"kind": o.split, "ratios": o.ratios, "few": o.few, "least": o.least}
        if o.split in splits.DRAWN:
            splitting |= {"seed": o.seed or 0, "splits": o.splits}
        steps = [
            Step("read", self.read, [path], [table], parameters=reading),
            Step("filter", self.filter, [table], [filtered, self.user_map, self.item_map], parameters=cleaning),
            Step("split", self.split, [filtered], [self.inter], parameters=splitting),
        ]
        described = found.item_file
        if described:
            columns = {"columns": o.text_columns, "id": [o.text_id, o.columns.get("item")]}
            parameters = {"as": found.item_source.name, **columns, **strict}
            steps.append(
                Step("items", self.items, [described, self.item_map], [items], parameters=parameters, version=3)
            )
        if found.fetch_images:
            steps.append(Step("fetch", self.fetch, [items], [self.work / "images.json"], version=2))
        kinds = {"text": described, "image": self.images}
        if any(kinds.values()):
            inputs = [self.item_map, *([items] if described else []), *([self.images] if self.images else [])]
            inputs += [self.work / "images.json"] if found.fetch_images else []
            outputs = [self.store, *(self._digests(kind) for kind, present in kinds.items() if present)]
            steps.append(Step("content", self.content, inputs, outputs, version=2))
        if self.images and found.image_encoder is None:  # which would find the broken ones
            inputs, outputs = [self._digests("image")], [self.work / "images_checked.json"]
            steps.append(
                Step("check_images", self.check_images, inputs, outputs, parameters={"by": check_library()}, version=2)
            )
        for stem, spec in (("text", found.text_encoder), ("image", found.image_encoder)):
            if spec is not None:
                inputs = [self._digests(stem), self.item_map]
                run = self._encode(stem, spec)
                steps.append(self._features(f"encode_{stem}", run, stem, inputs, {"spec": dict(spec)}))
        if "image_features" in found.files:
            inputs = [found.files["image_features"], self.item_map]
            steps.append(self._features("features_image", self.image_records, "image", inputs, strict))
        for stem, path in found.features.items():
            inputs = [path, self.item_map, *([found.feature_ids[stem]] if stem in found.feature_ids else [])]
            steps.append(self._features(f"features_{stem}", self._matrix(stem), stem, inputs, {}))
        made = [path for step in steps for path in step.outputs if path.parent == self.folder]
        steps.append(Step("verify", self.verify, made, [self.work / "verified.json"]))
        return steps

    def _features(self, name: str, run: Any, stem: str, inputs: Sequence[Path], parameters: Mapping[str, Any]) -> Step:
        out = self.folder / f"{stem}_feat.npy"
        return Step(name, run, inputs, [out], [mask_path(out)], {"fill": self.o.fill_missing, **parameters}, version=2)

    def _digests(self, kind: str) -> Path:
        return self.work / f"content_{kind}.json"

    def _reading(self, progress: ProgressBar) -> Reading:
        return replace(self.how, progress=progress)

    # Interactions

    def read(self, progress: ProgressBar) -> dict[str, Any]:
        table, tally, used = self.inputs.source.interactions(self.inputs.files, self._reading(progress))
        record = tally.record()
        if not len(table):
            raise UserError(
                f"{tally.name}: no interaction in {tally.read:,} {tally.unit}: {tally.reasons()}".rstrip(": ")
            )
        interactions.save(table, self.work / "interactions.npz")
        return {"tally": record, "columns": used, **table.sizes()}

    def filter(self, progress: ProgressBar) -> dict[str, Any]:
        table = interactions.load(self.work / "interactions.npz")
        tally = Tally("interactions", "rows")
        tally.read = len(table)
        table = interactions.above(table, self.o.threshold, tally)
        table = interactions.without_repeats(table, self.o.duplicates, tally)
        rounds: list[dict[str, int]] = []
        if self.inputs.k_core:
            table, rounds = interactions.k_core(table, self.inputs.k_core, tally)
        tally.kept = len(table)
        if not len(table):
            reasons = ", ".join(f"{entry['count']:,} {reason}" for reason, entry in tally.dropped.items())
            raise UserError(f"no interaction is left of {tally.read:,}: {reasons}; use a lower --k_core or --threshold")
        table = interactions.renumbered(table, self.o.keep_ids)
        interactions.save(table, self.work / "filtered.npz")
        interactions.write_mapping(self.user_map, table.user_ids, "userID")
        interactions.write_mapping(self.item_map, table.item_ids, "itemID")
        return {"tally": tally.record(), "k_core_rounds": rounds, **table.sizes()}

    def split(self, progress: ProgressBar) -> dict[str, Any]:
        o = self.o
        table = interactions.load(self.work / "filtered.npz")
        first = o.seed or 0
        drawn = [
            splits.split(table, o.split, seed, o.ratios, o.few, o.least) for seed in range(first, first + o.splits)
        ]
        interactions.write_inter(self.inter, table, drawn)
        labels = drawn[0]
        counts = counts_of(table.users, table.items, labels)
        trained = np.zeros(counts["users"], dtype=bool)
        trained[table.users[labels == splits.TRAIN]] = True
        untrained = len(np.unique(table.users[~trained[table.users]]))
        published = recognise(table.users, table.items, labels)
        return {**counts, "rows": len(table), "users_without_training_rows": untrained, "published": published}

    # Content

    def _item_ids(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(read_mapping(self.item_map))}

    def items(self, progress: ProgressBar) -> dict[str, Any]:
        wanted = self._item_ids()
        counts = {"items": len(wanted), "with_text": 0, "with_image_address": 0}
        tallies: list[Tally] = []
        without = dict.fromkeys(wanted)

        def kept() -> Iterator[Item]:
            for item in self.inputs.item_source.items(self.inputs.files, wanted, self._reading(progress)):
                if isinstance(item, Tally):
                    tallies.append(item)
                else:
                    del without[item.id]
                    counts["with_text"] += bool(item.text)
                    counts["with_image_address"] += bool(item.image)
                    yield item

        write_items(self.work / "items.jsonl", kept())
        (tally,) = tallies
        counts["without_text"] = tally.kept - counts["with_text"]
        counts["without_entry"] = len(without)
        if not counts["with_text"]:
            raise UserError(f"{tally.name}: no text for any of {len(wanted):,} items{_other_ids(tally, list(wanted))}")
        return {"tally": tally.record(), **counts, "first_without_entry": list(without)[:FEW]}

    def fetch(self, progress: ProgressBar) -> dict[str, Any]:
        folder = self.work / "images"
        make_folder(folder)
        addresses = {item.id: item.image for item in stored_items(self.work / "items.jsonl") if item.image}
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
            raise UserError(f"{self.inputs.item_file}: no address of an image for any of the items that are kept")
        if len(failed) == len(addresses):
            raise UserError(f"none of {len(failed):,} images could be fetched (first: {next(iter(failed.values()))})")
        write_json(self.work / "images.json", {"failed": failed})
        plain = (why.removeprefix(f"{addresses[name]}: ").partition(";")[0] for name, why in sorted(failed.items()))
        n = len(addresses)
        return {"addresses": n, "fetched": n - len(failed), "failed": failed, "reasons": dict(Counter(plain))}

    def content(self, progress: ProgressBar) -> dict[str, Any]:
        ids, items, described = list(self._item_ids()), self.work / "items.jsonl", self.inputs.item_file
        # What an earlier, killed call has stored is kept if it was of the same content.
        used = [path for path in (self.item_map, items if described else None, self.images) if path]
        key = hashlib.sha256(" ".join(str(self.pipeline.hashes.of(path)) for path in used).encode()).hexdigest()[:16]
        working = self.work / f"content-{key}.lmdb"
        for left in self.work.glob("content-*.lmdb"):
            if left != working:
                left.unlink()
        report: dict[str, Any] = {"items": len(ids)}
        with ContentStore.open(working, write=True) as store:
            if described:
                rows = ((item.id, item.text.encode()) for item in stored_items(items) if item.text)
                report["text"] = {"stored": store.put_many("text", rows)}
            if self.images:
                unreadable: dict[str, str] = {}
                files, missing, others = find_images(self.images, ids)
                stored = store.put_many("image", file_rows(files, unreadable, progress))
                report["image"] = {"stored": stored, "missing": len(missing), "of_no_item": len(others)}
                report["image"] |= {"unreadable": unreadable, "first_of_no_item": others[:1]}
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

    def check_images(self, progress: ProgressBar) -> dict[str, Any]:
        by = check_library()
        broken: dict[str, str] = {}
        with ContentStore.open(self.store) as store:
            names = store.keys("image")
            for done, name in enumerate(names if by else [], 1):
                try:
                    image_of(store.get("image", name) or b"")
                except BadContent as error:
                    broken[name] = str(error)
                progress(done, len(names))
        write_json(self.work / "images_checked.json", {"broken": broken})
        return {"by": by, "items": len(names), "broken": broken}

    def _encode(self, kind: str, spec: Mapping[str, Any]) -> Any:
        def run(progress: ProgressBar) -> dict[str, Any]:
            out = self.folder / f"{kind}_feat.npy"
            with ContentStore.open(self.store) as store:
                report = encode(store, kind, list(self._item_ids()), spec, out, self.o.fill_missing, progress)
            return report.record() | {"lines": report.lines()}

        return run

    def image_records(self, progress: ProgressBar) -> dict[str, Any]:
        source, target = self.inputs.files["image_features"], self.folder / "image_feat.npy"
        arguments = (self._item_ids(), target, self.o.fill_missing, self.o.accept_truncated, progress)
        return self._coverage(*feature_files.from_records(source, *arguments))

    def _matrix(self, stem: str) -> Any:
        def run(progress: ProgressBar) -> dict[str, Any]:
            found = self.inputs
            ids = feature_files.read_ids(found.feature_ids[stem]) if stem in found.feature_ids else None
            arguments = (ids, self._item_ids(), self.folder / f"{stem}_feat.npy", self.o.fill_missing, progress)
            return self._coverage(*feature_files.from_matrix(found.features[stem], *arguments))

        return run

    def _coverage(self, tally: Tally, mask: Any) -> dict[str, Any]:
        record, present = tally.record(), int(mask.sum())
        if not present:
            others = _other_ids(tally, read_mapping(self.item_map))
            raise UserError(f"{tally.name}: no row for any of {len(mask):,} items{others}")
        counts = {"items": len(mask), "present": present, "missing": len(mask) - present}
        return {"tally": record, **counts, "fill": self.o.fill_missing}

    # The data set as a whole

    def verify(self, progress: ProgressBar) -> dict[str, Any]:
        """Reads the data set as a run would, and checks that its parts belong together."""
        problems = []
        if self.store.is_file() and any(self._digests(kind).is_file() for kind in ("text", "image")):
            with ContentStore.open(self.store) as store:
                problems += store.verify()
        progress(1, 3)
        overrides = {"data_path": [str(self.folder.parent)]}
        (config,), _ = resolve(Request(["prepare"], [self.o.name], overrides), {"prepare": None})
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
        report: dict[str, Any] = {
            "statistics": dataset.statistics(),
            "warnings": list(dataset.warnings),
            "files": named,
        }
        del dataset
        report["description"] = describe(self.folder, self.o.name).record()
        write_json(self.work / "verified.json", report)
        return report


def _other_ids(tally: Tally, ids: Sequence[str]) -> str:
    """How the ids of a file that has none of the items look, beside those of the items."""
    found = tally.dropped.get(NOT_KEPT, {}).get("example")
    return f": its ids look like '{found}', those of the interactions like '{ids[0]}'" if found else ""


def read_mapping(path: Path) -> list[str]:
    """The original ids in order of their numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        return [row[0] for row in csv.reader(file, delimiter="\t")][1:]
