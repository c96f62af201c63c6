"""What `prepare` is asked to do: typed options, and the raw files that they stand for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from prepare.content.encoder_registry import check_spec
from prepare.sources import own
from prepare.sources.own import OWN, TEXTS
from prepare.sources.source import Source, published_source, source_names
from prepare.splits import FEWEST, KINDS
from utils.config.request import Request, data_folder
from utils.config.schema import check_value, keys_of, setting
from utils.config.yaml_files import parse_yaml, read_yaml
from utils.data.dataset import SPLITS
from utils.data.interaction_file import KNOWN_COLUMNS
from utils.errors import UserError, nearest

STEMS = {"visual": "image", "textual": "text", "acoustic": "audio"}  # modality to the beginning of its file's name
ALL = "all"  # of feature_ids: every modality
OWN_ONLY = ("columns", "keep_ids")
PUBLISHED_ONLY = ("raw", "source", "category", "use", "download", "mirror", "fetch_threads")
Checked = TypeVar("Checked", bound="CheckedOptions")


class CheckedOptions:
    """A base of dataclasses of options: values are checked by `utils.config.schema`, all problems reported at once."""

    command: ClassVar[str] = ""

    def __post_init__(self) -> None:
        problems = []
        for name, key in keys_of(type(self)).items():
            try:
                object.__setattr__(self, name, check_value(key, getattr(self, name)))
            except ValueError as error:
                problems.append(f"{self.command}: --{name}: {error}")
        if problems := problems or self.contradictions():
            raise UserError(*problems)

    def contradictions(self) -> list[str]:
        """What is wrong with values that are of the right type each."""
        return []

    @classmethod
    def of(cls: type[Checked], values: Mapping[str, Any]) -> Checked:
        """The options of a mapping of names to values.

        Raises:
            UserError: for names that are not known, or else for values that are wrong.
        """
        known = keys_of(cls)
        unknown = [name for name in values if name not in known]
        if unknown:
            raise UserError(*(f"{cls.command}: unknown option --{name}{nearest(name, known)}" for name in unknown))
        return cls(**values)


@dataclass(frozen=True)
class PrepareOptions(CheckedOptions):
    """The options of `prepare`; `docs/data.md` explains them."""

    command: ClassVar[str] = "prepare"

    name: str = setting("of the data set; a published source knows its category by it")
    # published sources
    raw: str | None = setting("folder of the published files", default=None)
    source: str = setting(f"one of {', '.join(source_names())}", default="amazon2014")
    category: str | None = setting("as in the files' names: Baby, Electronics, ml-1m...", default=None)
    use: str | None = setting("which interactions, where several are there: reviews, ratings...", default=None)
    download: bool = setting("fetch files that are missing, and images for --image_encoder", default=False)
    mirror: str | None = setting("address that takes the place of the publisher's server", default=None)
    fetch_threads: int = setting("images fetched at a time", default=8, low=1)
    # own data
    interactions: str | None = setting("a CSV or TSV file with a header, plain or gzip", default=None)
    columns: dict[str, str] = setting("ROLE=NAME: columns for user, item, rating, time, split", default={})
    texts: str | None = setting("a CSV or TSV file with a row for each item", default=None)
    text_id: str | None = setting("column of the item ids in --texts", default=None)
    text_columns: list[str] | None = setting("columns that make the text (default: all others)", default=None)
    images: str | None = setting("folder of images, named by item id", default=None)
    features: dict[str, str] = setting("NAME=FILE: a .npy or .pt matrix for a modality", default={})
    feature_ids: dict[str, str] = setting("FILE or NAME=FILE: the item id of each row, one a line", default={})
    keep_ids: bool = setting("ids are numbers from 0 already: keep them; feature rows go by item id", default=False)
    # interactions
    threshold: float | None = setting("keep only interactions rated so or better", default=None)
    duplicates: str = setting("which of repeated pairs to keep, by time", default="first", choices=("first", "last"))
    k_core: int | None = setting("fewest interactions of users and items; 0: off (default: 5 for Amazon, else 0)",
                                 default=None, low=0)  # fmt: skip
    split: str = setting("how interactions are split", default="mmrec", choices=KINDS)
    seed: int | None = setting("of the split mmrec (default 0)", default=None, low=0)
    splits: int = setting("how many splits mmrec draws, with this seed and those after it; each is a column",
                          default=1, low=1)  # fmt: skip
    ratios: list[float] = setting("shares of train, validation, test", default=[0.8, 0.1, 0.1], above=0)
    few: int = setting("users with fewer rows hold out one each for validation and test", default=10, low=FEWEST)
    least: int = setting("users with fewer rows stay in training", default=FEWEST, low=FEWEST)
    # content
    text_encoder: str | dict[str, Any] | None = setting(
        "a name, {encoder: NAME, ...}, a YAML file, or none (default: sentence-transformers if installed, else tfidf)",
        default=None,
    )
    image_encoder: str | dict[str, Any] | None = setting("the same; default: none", default=None)
    fill_missing: str = setting("rows of items without content", default="zero", choices=("zero", "mean"))
    # other
    accept_truncated: bool = setting("take the complete lines or records of files that end early", default=False)
    data_path: str | None = setting("folder of data sets", default=None)
    dry_run: bool = setting("check the inputs and print what would be done, and why", default=False)
    quiet: bool = setting("no progress bars", default=False)

    def contradictions(self) -> list[str]:
        is_own = self.interactions is not None
        keys = keys_of(type(self))
        problems = [
            f"prepare: --{name} does not go {'with' if is_own else 'without'} --interactions"
            for name in (PUBLISHED_ONLY if is_own else OWN_ONLY)
            if getattr(self, name) != keys[name].default
        ]
        problems += [
            f"prepare: --columns: unknown column '{role}'{nearest(role, KNOWN_COLUMNS)}; there are "
            f"{', '.join(KNOWN_COLUMNS)}"
            for role in self.columns
            if role not in KNOWN_COLUMNS
        ]
        if len(self.ratios) != 3 or abs(sum(self.ratios) - 1) > 1e-9:
            problems.append(f"prepare: --ratios: expected three shares above 0 whose sum is 1, got {self.ratios}")
        if self.split != "mmrec" and self.seed is not None:
            problems.append(f"prepare: --seed: the split {self.split} draws nothing; leave it out")
        if self.split != "mmrec" and self.splits > 1:
            problems.append(
                f"prepare: --splits: the split {self.split} draws nothing, so there is one of it; leave it out"
            )
        problems += [
            f"prepare: --features: '{stem}' cannot name a modality; expected letters, digits and _"
            for stem in self.features
            if not stem.isidentifier() or stem in SPLITS
        ]
        problems += [f"prepare: --feature_ids: no --features {stem}=..."
                     for stem in self.feature_ids if stem not in (*self.features, ALL)]  # fmt: skip
        problems += [
            f"prepare: --features {stem}: which item is which row? add --feature_ids FILE with an id a line, or --keep_ids"
            for stem in self.features
            if not {stem, ALL} & self.feature_ids.keys() and not self.keep_ids
        ]
        given = [self.interactions, self.texts, *self.features.values(), *self.feature_ids.values()]
        problems += [f"prepare: there is no file {path}" for path in given if path and not expanded(path).is_file()]
        if self.images and not expanded(self.images).is_dir():
            problems.append(f"prepare: --images: there is no folder {self.images}")
        return problems

    @property
    def folder(self) -> Path:
        """The folder of the data set."""
        return data_folder(Request([], [], {"data_path": self.data_path} if self.data_path else {})) / self.name


def expanded(path: str) -> Path:
    return Path(path).expanduser()


@dataclass(frozen=True)
class Inputs:
    """The raw files that options stand for, and what is made of them.

    Attributes:
        source, files: of the interactions; item_source: of the items, if `item_file` is not None.
        images: a folder of images; fetch_images: fetch them from the addresses that the items have.
        features, feature_ids: beginning of a feature file's name to a user's matrix, and to the file of its rows' ids.
        text_encoder, image_encoder: keys of EncoderSpec, or None.
    """

    source: Source
    files: dict[str, Path]
    category: str
    k_core: int
    item_source: Source
    item_file: Path | None
    images: Path | None
    fetch_images: bool
    features: dict[str, Path]
    feature_ids: dict[str, Path]
    text_encoder: dict[str, Any] | None
    image_encoder: dict[str, Any] | None

    def paths(self) -> list[Path]:
        """The files that all is made from."""
        used = [*(path for kind, path in self.files.items() if kind != "images"), *self.features.values()]
        return list(dict.fromkeys([*used, *self.feature_ids.values()]))


def category_of(options: PrepareOptions) -> str:
    """The category in the names of a published source's files; empty if they have none.

    Raises:
        UserError: if it is needed and not known.
    """
    source = published_source(options.source)
    known = source.settings["categories"]
    category = options.category or known.get(options.name, "")
    if not category and (source.needs_category() or options.download):
        raise UserError(
            f"prepare: '{options.name}' names no category of {options.source} ({', '.join(known)} do); add --category C as "
            "in the files' names, or --interactions FILE for data of your own"
        )
    return str(category)


def raw_folder(options: PrepareOptions) -> Path:
    return expanded(options.raw) if options.raw else options.folder.parent / "raw"


def files_to_download(options: PrepareOptions) -> list[tuple[str, Path]]:
    """Address and place of each published file that is missing, if they are to be downloaded."""
    if not options.download:
        return []
    source = published_source(options.source)
    missing: list[tuple[str, Path]] = source.to_download(
        raw_folder(options), category_of(options), options.use, options.mirror
    )
    return missing


def find_inputs(options: PrepareOptions) -> Inputs:
    """Finds the raw files and checks that the rest of the options fits them.

    Raises:
        UserError: with every mistake.
    """
    source: Source = own.SOURCE
    category, k_core, files = "", 0, {}
    if options.interactions:
        files[OWN] = expanded(options.interactions)
    else:
        published = published_source(options.source)
        category, k_core = category_of(options), published.settings["k_core"]
        files |= published.find(raw_folder(options), category, options.use)
        source = published
    item_source: Source = source
    if options.texts:
        files[TEXTS] = expanded(options.texts)
        item_source = own.SOURCE
    item_file = item_source.item_file(files)
    images = expanded(options.images) if options.images else files.get("images")
    features = {STEMS.get(stem, stem): expanded(path) for stem, path in options.features.items()}
    ids = {STEMS.get(stem, stem): expanded(path) for stem, path in options.feature_ids.items()}
    ids = dict.fromkeys(features, ids[ALL]) | ids if ALL in ids else ids
    encoders = {"text": _encoder(options.text_encoder, "text"), "image": _encoder(options.image_encoder, "image")}
    if options.text_encoder is None and item_file and "text" not in features:
        encoders["text"] = default_text_encoder()
    fetch_images = encoders["image"] is not None and images is None and options.download
    problems = []
    if encoders["text"] and not item_file:
        problems.append("prepare: --text_encoder: there are no texts; name a table of them with --texts")
    if encoders["image"] and not (images or fetch_images):
        more = ", or add --download, which fetches them" if not options.interactions else ""
        problems.append(f"prepare: --image_encoder: there are no images; name their folder with --images{more}")
    problems += [
        f"prepare: --features {stem}=... and --{stem}_encoder both make {stem}_feat.npy; leave one out"
        for stem, encoder in encoders.items()
        if encoder and stem in features
    ]
    if problems:
        raise UserError(*problems)
    for stem, encoder in encoders.items():
        if encoder:
            check_spec(encoder, stem)
    if encoders["image"] or "image" in features:
        files.pop("image_features", None)
    return Inputs(
        source, files, category, k_core if options.k_core is None else options.k_core, item_source, item_file, images,
        fetch_images, features, {stem: path for stem, path in ids.items() if stem != ALL}, encoders["text"],
        encoders["image"],
    )  # fmt: skip


def default_text_encoder() -> dict[str, Any]:
    """sentence-transformers where it is installed, else tfidf."""
    installed = importlib.util.find_spec("sentence_transformers") is not None
    return {"encoder": "sentence-transformers" if installed else "tfidf"}


def _encoder(given: str | dict[str, Any] | None, stem: str) -> dict[str, Any] | None:
    """The settings that a name, a YAML mapping or the name of a YAML file stands for."""
    if given is None or given == "none" or isinstance(given, dict):
        return given if isinstance(given, dict) else None
    if given.endswith((".yaml", ".yml")):
        return read_yaml(expanded(given), given)
    content = parse_yaml(given, f"--{stem}_encoder") if given.startswith("{") else {"encoder": given}
    if not isinstance(content, dict):
        raise UserError(f"prepare: --{stem}_encoder: expected a name or {{encoder: NAME, ...}}, got '{given}'")
    return content
