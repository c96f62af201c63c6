"""Generates raw files in the layouts that publishers and users have, with as many defects as wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.parser import Parser, checked_values
from utils.config.schema import keys_of, setting
from utils.errors import UserError


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.synthetic_raw.raw_spec import SIZES, RawSpec
    from prepare.synthetic_raw.write_raw import WRITERS, write_raw

    @dataclass(frozen=True)
    class RawOptions:
        folder: str = setting("where the files go")
        source: str = setting("layout of the files", choices=tuple(WRITERS), default="amazon2014")
        size: str = setting("size that the keys below are laid over", choices=tuple(SIZES), default="small")

    parser = Parser("generate_raw", __doc__ or "", ["folder"])
    parser.add_options(RawOptions)
    parser.add_keys(keys_of(RawSpec).values(), asdict(SIZES["small"]), "keys (values of the size small in brackets)")
    if not words or not {"-h", "--help"}.isdisjoint(words):
        print(parser.format_help(), end="")
        return 0
    given = parser.split(words)
    options = checked_values(RawOptions, given, "generate_raw")
    own = {
        name: value for name, value in checked_values(RawSpec, given, "generate_raw").items() if name in given.values
    }
    if given.problems:
        raise UserError(*given.problems)
    folder = Path(options["folder"]).expanduser()
    record = write_raw(RawSpec.of(asdict(SIZES[options["size"]]) | own), folder, options["source"])
    for name, counts in record["files"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items()))
    print(f"written to {folder}; the 5-core holds " + ", ".join(f"{n:,} {k}" for k, n in record["core"].items()))
    return 0
