"""Studies and trials as the tests of selection, statistics and reports need them: made, not trained."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study.results import TrialResult
from study.spec import Entry, Report, Search, Study

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
VALID = "recall@20"


def make_study(
    labels: Sequence[str],
    datasets: Sequence[str] = ("demo",),
    seeds: Sequence[int] = (1, 2),
    reference: str | None = None,
    **report: Any,
) -> Study:
    """A study of entries that are all of the model GTC."""
    entries = tuple(Entry(label, "GTC", tuple(datasets)) for label in labels)
    shown = Report(**{"metrics": METRICS, "figures": (), **report})
    return Study("toy", "A toy study", tuple(datasets), tuple(seeds), entries, {}, Search(), reference, shown)


def make_trial(
    root: Path,
    label: str,
    seed: int,
    valid: float,
    test: float | Mapping[str, float],
    point: Mapping[str, Any] | None = None,
    dataset: str = "demo",
    status: str = "finished",
    users: Mapping[int, float] | None = None,
    manifest: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, Any]] = (),
) -> TrialResult:
    """A trial with its folder under root/trials.

    Args:
        test: the value of every test metric, or one for each.
        users: user to the test value of every metric; None: no per_user.csv.
        manifest, metrics: what differs from the usual.
    """
    words = "-".join(f"{k}{v}" for k, v in (point or {}).items()) or "x"
    folder = root / "trials" / dataset / label.replace("/", "_").replace(" ", "_") / f"{words}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    told = test if isinstance(test, Mapping) else dict.fromkeys(METRICS, test)
    found: dict[str, Any] = {"status": status, "valid_metric": VALID, "seconds": 2.5, "epochs": len(history) or 3}
    if status == "finished":
        found |= {"valid": dict.fromkeys(METRICS, valid), "test": dict(told), "best_epoch": 2}
    found = {**found, **(metrics or {})} if status in ("finished", "diverged") else {}
    about: dict[str, Any] = {
        "protocol": "mmrec",
        "versions": {"code": "c0de", "torch": "2.9", "python": "3.11"},
        "hashes": {"train": f"t-{dataset}", "valid": f"v-{dataset}", "test": f"e-{dataset}", "visual": "feat"},
        "features": {"visual": [4, 2]},
        "seconds": {"total": 2.5},
        "peak_memory_bytes": {"resident": 300 * 2**20},
        **(manifest or {}),
    }
    if users is not None:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["split", "user", *METRICS])
        writer.writerows([split, user, *[value] * len(METRICS)] for split in ("valid", "test")
                         for user, value in users.items())  # fmt: skip
        (folder / "per_user.csv").write_text(text.getvalue())
    error = {"failed": "out of memory", "diverged": "loss term 'bpr' is nan"}.get(status, "")
    (folder / "manifest.json").write_text(json.dumps(about))
    return TrialResult(
        label, "GTC", dataset, dict(point or {}), seed, folder, status, found, about, list(map(dict, history)), error
    )


def full_results(root: Path, study: Study, epochs: int = 30, n_users: int = 60) -> list[TrialResult]:
    """Trials of every kind for a study: two searched keys, histories with analyses, groups, catalogue measures.

    The k-th entry is the better the larger k is.
    """
    random = np.random.default_rng(0)
    results = []
    for d, dataset in enumerate(study.datasets):
        base = random.random(n_users) * 0.2
        for k, entry in enumerate(study.entries):
            points = [{"tc_weight": w, "n_ui_layers": n} for w in (0.001, 0.01, 0.1) for n in (1, 2)]
            for p, point in enumerate(points):
                for seed in study.seeds:
                    level = 0.05 + 0.02 * k + 0.01 * d - 0.004 * abs(p - 2) + 0.003 * random.random()
                    users = dict(enumerate(np.clip(base + level + random.normal(0, 0.05, n_users), 0, 1).tolist()))
                    test = float(np.mean(list(users.values())))
                    groups = {
                        name: {"n_users": 9, **{m: test * f for m in METRICS}}
                        for name, f in (
                            ("1-4 interactions", 0.8),
                            ("5-9 interactions", 1.1),
                            ("10-80 interactions", 1.2),
                        )
                    }
                    history = [
                        {
                            "epoch": float(e + 1),
                            f"valid_{VALID}": level * (1 - 2.0 ** (-e / 4)) + 0.001 * random.random(),
                            "balance": 0.9 - 0.5 * 2.0 ** (-e / 6) - 0.02 * k,
                            "dot_id": 0.1 * e,
                            "dot_visual": 0.05 * e + 0.1,
                        }
                        for e in range(epochs)
                    ]
                    beyond = {"coverage@20": 0.4 + 0.01 * k, "novelty@20": 9.1, "gini@20": 0.7, "popularity@20": 1.9}
                    manifest = {
                        "seconds": {"total": 3.0 * 1.6**k},
                        "peak_memory_bytes": {"resident": (300 + 7 * k) * 2**20},
                    }
                    told = {"groups": {"user_activity": groups}, "beyond": beyond}
                    results.append(
                        make_trial(
                            root,
                            entry.label,
                            seed,
                            level,
                            test,
                            point,
                            dataset,
                            "finished",
                            users,
                            manifest,
                            told,
                            history,
                        )
                    )
    return results
