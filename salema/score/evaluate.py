"""Maps x annotations -> scores clip by clip, with confidence intervals over clips.

Anybody's maps, by any named protocol, on all cores; never a clip that the weights saw in
training, unless that is asked for and marked.
"""

import csv
import json
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from salema import data as datasets
from salema.data import Clip
from salema.files import SalemaError, atomic
from salema.params import Params, choose
from salema.score import baselines, metrics, protocols
from salema.score.maps import Maps
from salema.score.protocols import METRICS

NAMES = {"auc_judd": "AUC-J", "auc_shuffled": "s-AUC", "nss": "NSS", "cc": "CC", "sim": "SIM",
         "kld": "KLD"}  # fmt: skip
COMPARED = 400  # frames of a set, about, to see how far the protocols differ
COLUMNS = ("dataset", "clip", "frames", "skipped", "seen", *METRICS)


@dataclass(frozen=True)
class Job:
    """One clip to score, all that a worker needs."""

    clip: Clip
    maps: Maps
    protocol: str
    every: int
    seed: int
    negatives: protocols.Negatives
    seen: bool


@dataclass
class Scores:
    """A clip's scores, frame by frame; None where nobody fixated."""

    clip: str
    dataset: str
    seen: bool
    frames: list[dict[str, float] | None]

    def row(self) -> dict:
        """Means over the frames that have gaze, and how many do and do not."""
        scored = [frame for frame in self.frames if frame is not None]
        row = {"dataset": self.dataset, "clip": self.clip, "frames": len(scored),
               "skipped": len(self.frames) - len(scored), "seen": int(self.seen)}  # fmt: skip
        for key in METRICS:
            values = [frame[key] for frame in scored if key in frame]
            row[key] = float(np.mean(values)) if values else None
        return row


def score_clip(job: Job) -> Scores:
    """Score every frame that the protocol takes.

    Raises:
        SalemaError: A map is missing or broken.
    """
    cv2.setNumThreads(1)
    clip, protocol = job.clip, protocols.get(job.protocol, job.clip.dataset)
    wanted = set(list(protocol.frames(clip.n_frames))[:: job.every])
    human = job.maps.baseline == "human"
    saliencies = repeat(None) if human else job.maps.of(clip)
    frames, count, end = [], 0, object()
    observers = _observers(clip) if human else None
    for index, fixations in enumerate(clip.fixations()):
        saliency = next(saliencies, end)
        if saliency is end:
            break
        count += 1
        if index not in wanted:
            continue
        if human:
            rng = protocols.generator(job.seed, clip.name, "halves")
            first, fixations = baselines.split_half(fixations, observers, rng)
            if not len(first) or not len(fixations):
                frames.append(None)
                continue
            sigma = datasets.sigma(clip.size)
            saliency = datasets.blur(first, clip.size, sigma)
            density = datasets.blur(fixations, clip.size, sigma)
        else:  # made for this frame only: of a large clip it costs as much as all metrics
            density = None if protocol.own_density else next(clip.maps(index, index + 1))
        try:
            scores = protocol.score(saliency, fixations, density, clip.size, job.negatives, index)
        except ValueError as error:
            where = f"{clip.dataset} {clip.name}, frame {clip.frame_names[index]}"
            raise SalemaError(f"bad map of {where}: {error} (predict this clip again)") from error
        frames.append(scores)
    more = job.maps.folder is not None and next(saliencies, end) is not end
    if count < clip.n_frames or more:
        raise SalemaError(
            f"{'more than ' * more}{count} maps for the {clip.n_frames} frames of "
            f"{clip.dataset} {clip.name} (predict this clip again)"
        )
    return Scores(clip.name, clip.dataset, job.seen, frames)


def _observers(clip: Clip) -> np.ndarray:
    found = [np.unique(points[:, 2]) for points in clip.fixations() if len(points)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0)


# ---------------------------------------------------------------------- many clips


def score_clips(
    clips: Sequence[Clip],
    maps: Maps,
    protocol: str = "exact",
    *,
    every: int = 1,
    seed: int = 0,
    seen: dict[str, list[str]] | None = None,
    allow_seen: bool = False,
    everyone: Sequence[Clip] | None = None,
) -> list[Scores]:
    """Score clips of one data set on all cores.

    Args:
        clips: Of one set; their fixations are each other's negatives in s-AUC.
        maps: Where the maps come from.
        protocol: See `salema.score.protocols`.
        every: Score each n-th of the frames that the protocol takes, at least 1.
        seed: Of every draw.
        seen: Data set -> clips that the weights were trained on.
        allow_seen: Score those too, marked; otherwise they are refused.
        everyone: All clips of the set: where the protocol wants it, theirs are the negatives.

    Raises:
        SalemaError: A clip was seen in training, or maps are missing or broken.
    """
    if every < 1:
        raise SalemaError(f"--every must be at least 1, not {every} (1 scores each frame)")
    chosen = protocols.get(protocol, clips[0].dataset)
    leaked = [c.name for c in clips if c.name in set((seen or {}).get(c.dataset, []))]
    if leaked and not allow_seen:
        raise SalemaError(
            f"{len(leaked)} clips of {clips[0].dataset}, {leaked[0]} first, were seen in training "
            "(their scores prove nothing; --allow-seen marks the row)"
        )
    others = everyone if everyone is not None and chosen.whole_set else clips
    pool = protocols.Pool({c.name: (c.size, list(c.fixations())) for c in others})
    jobs = [
        Job(clip, maps, protocol, every, seed, chosen.negatives(pool, clip.name, seed),
            clip.name in leaked)
        for clip in clips
    ]  # fmt: skip
    bar = {"total": len(jobs), "desc": clips[0].dataset, "unit": "clip", "disable": None}
    workers = min(os.cpu_count() or 1, len(jobs))
    if workers == 1 or sum(clip.n_frames for clip in clips) < 50:
        return [score_clip(job) for job in tqdm(jobs, **bar)]
    # spawn: a fork of a process with threads (torch, notebooks) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        share = max(1, len(jobs) // (8 * workers))
        return list(tqdm(executor.map(score_clip, jobs, chunksize=share), **bar))


def summary(scores: Sequence[Scores], protocol: str, resamples: int, seed: int) -> dict:
    """Means with 95 % bootstrap intervals over clips, and what was counted.

    Keys: clips, frames, skipped, seen, protocol, and for each metric `m`: m, m_low, m_high.
    A metric that no frame has is left out.
    """
    rows = [s.row() for s in scores]
    chosen = protocols.get(protocol, scores[0].dataset)
    totals = chosen.aggregate({s.clip: s.frames for s in scores}, seed)
    result = {"clips": len(rows), "frames": sum(r["frames"] for r in rows),
              "skipped": sum(r["skipped"] for r in rows), "seen": sum(r["seen"] for r in rows),
              "protocol": protocol}  # fmt: skip
    for key, mean in totals.items():
        used = [r for r in rows if r[key] is not None]
        values = np.array([r[key] for r in used])
        weights = np.array([r["frames"] if chosen.mean == "frames" else 1 for r in used])
        low, high = _interval(values, weights, resamples, seed)
        result |= {key: mean, f"{key}_low": low, f"{key}_high": high}
    return result


def _interval(
    values: np.ndarray, weights: np.ndarray, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the weighted mean, clips drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(resamples, len(values)))
    means = (values * weights)[drawn].sum(1) / weights[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def write_rows(rows: Sequence[dict], path: Path) -> None:
    """The table clip by clip, as CSV."""
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6f}" if isinstance(v, float) else v for k, v in row.items()})


def read_rows(path: Path) -> dict[str, dict[str, float]]:
    """A table clip by clip -> clip -> metric -> score; also peers' (auc, sauc) columns.

    Raises:
        SalemaError: There is no such table, it names no clips, or holds something else
            than numbers.
    """
    renamed = {"auc": "auc_judd", "sauc": "auc_shuffled"}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SalemaError(f"cannot read {path}: {error.strerror} (check --paired)") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SalemaError(f"not a table: {path} (check --paired)") from error
    if not rows or "clip" not in rows[0]:
        raise SalemaError(f"no column clip in {path} (a row a clip is expected)")
    models = list(dict.fromkeys(row.get("model") for row in rows))
    if len(models) > 1:
        raise SalemaError(f"{path} holds {len(models)} models (keep the rows of one: {models})")
    table = {}
    for row in rows:
        scores = {renamed.get(k, k): v for k, v in row.items()}
        scores = {k: v for k, v in scores.items() if k in METRICS and v}
        try:
            table[row["clip"]] = {k: float(v) for k, v in scores.items()}
        except ValueError as error:
            raise SalemaError(f"{path}, clip {row['clip']}: {error} (mend that row)") from error
        if not all(map(math.isfinite, table[row["clip"]].values())):
            raise SalemaError(f"{path}, clip {row['clip']}: a score is not finite (mend that row)")
    return table


# ---------------------------------------------------------------------- what the commands do


def evaluate_folder(
    folder: Path, clips: Sequence[Clip], protocol: str, *, every: int = 1,
    seen: dict[str, list[str]] | None = None, allow_seen: bool = False,
    paired: Path | None = None, csv: Path | None = None, resamples: int = 10_000,
    everyone: Sequence[Clip] | None = None,
) -> dict:  # fmt: skip
    """Score anybody's maps, print a table with intervals, and return the summary.

    What `salema predict --dataset` left beside its maps tells which clips their weights saw.

    Raises:
        SalemaError: Maps are missing, a clip was seen, the tables share no clip, or `csv`
            exists.
    """
    if not folder.is_dir():
        raise SalemaError(f"no such folder of maps: {folder} (check the path)")
    if csv is not None and csv.exists():
        raise SalemaError(f"{csv} exists (choose another name, or remove it)")
    table_of_others = None if paired is None or paired.is_dir() else read_rows(paired)
    if table_of_others is not None and not {clip.name for clip in clips} & set(table_of_others):
        raise SalemaError(f"{paired} and these maps share no clip (compare the same data set)")
    seen = _union(seen or {}, *map(told_by, sorted(folder.glob("*_predictions.json"))))
    options = {"every": every, "seen": seen, "allow_seen": allow_seen, "everyone": everyone}
    scores = score_clips(clips, Maps(folder), protocol, **options)
    result = summary(scores, protocol, resamples, seed=0)
    print(table(result, f"{clips[0].dataset}, {protocol}"))
    if csv is not None:
        write_rows([s.row() for s in scores], csv)
    if paired is not None:
        other = table_of_others
        if other is None:
            others = score_clips(clips, Maps(paired), protocol, every=every, everyone=everyone)
            other = {s.clip: s.row() for s in others}
        print(differences({s.clip: s.row() for s in scores}, other, resamples))
    return result


def table(result: dict, title: str) -> str:
    """A summary as lines of text."""
    mark = f", {result['seen']} SEEN IN TRAINING" if result["seen"] else ""
    lines = [f"{title}: {result['clips']} clips, {result['frames']} frames scored, "
             f"{result['skipped']} without gaze{mark}; 95 % bootstrap over clips"]  # fmt: skip
    for key in METRICS:
        if key in result:
            low, high = result[f"{key}_low"], result[f"{key}_high"]
            lines.append(f"  {NAMES[key]:6} {result[key]:7.4f}  [{low:.4f}, {high:.4f}]")
    return "\n".join(lines)


def differences(rows: dict[str, dict], other: dict[str, dict], resamples: int) -> str:
    """Paired differences, rows - other, over the clips that both have, as lines of text.

    Raises:
        SalemaError: They share no clip.
    """
    shared = sorted(set(rows) & set(other))
    if not shared:
        raise SalemaError("the two tables share no clip (compare the same data set)")
    lines = [f"paired difference over {len(shared)} clips; 95 % bootstrap"]
    for key in METRICS:
        pairs = [(rows[c].get(key), other[c].get(key)) for c in shared]
        pairs = np.array([pair for pair in pairs if None not in pair], float)
        if len(pairs):
            mean, low, high = metrics.paired_bootstrap(pairs[:, 0], pairs[:, 1], resamples)
            sure = "" if low <= 0 <= high else "  *"
            lines.append(f"  {NAMES[key]:6} {mean:+7.4f}  [{low:+.4f}, {high:+.4f}]{sure}")
    return "\n".join([*lines, "  * the interval does not contain 0"])


def seen_by(weights: Path | None) -> dict[str, list[str]]:
    """Data set -> training clips, as a weights file of ours tells; {} without one."""
    if weights is None:
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, "np") as file:
            return json.loads((file.metadata() or {})["salema"])["seen"]
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise SalemaError(f"{weights} does not tell its training clips (is it ours?)") from error


def told_by(path: Path) -> dict[str, list[str]]:
    """Data set -> training clips, as `salema predict --dataset` tells beside its maps.

    Raises:
        SalemaError: It is something else.
    """
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))["seen"]
        return {dataset: list(clips) for dataset, clips in seen.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SalemaError(f"{path} does not tell what its maps' weights saw (move it)") from error


def _union(*some: dict[str, list[str]]) -> dict[str, list[str]]:
    names = dict.fromkeys(name for seen in some for name in seen)
    return {name: sorted({c for seen in some for c in seen.get(name, [])}) for name in names}


def compare_protocols(params: Params, run: str) -> Path:
    """Score a run's clips by every protocol; writes `reports/<profile>/protocols.csv`.

    Of a set with more than `COMPARED` frames each n-th is taken: on 1080p the older
    definitions take a tenth of a second a frame.

    Raises:
        SalemaError: No such run, or its maps are missing.
    """
    choose(run, params.runs, "run")
    maps, seen = Maps(params.run_folder(run) / "maps"), seen_by(_weights_of(params, run))
    columns = ("protocol", "dataset", "clips", "frames", *METRICS)
    path = params.report_folder / "protocols.csv"
    with atomic(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for dataset, split in params.data.evaluate.items():
            clips, everyone = (datasets.load(params.root, dataset, part) for part in (split, None))
            stride = 1 + sum(clip.n_frames for clip in clips) // COMPARED
            for protocol in protocols.NAMES:
                every = max(params.evaluate.every, stride // protocols.get(protocol).every)
                scores = score_clips(clips, maps, protocol, every=every, seed=params.seed,
                                     seen=seen, everyone=everyone)  # fmt: skip
                row = summary(scores, protocol, params.evaluate.resamples, params.seed)
                rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow({"dataset": dataset, **rounded})
    return path


def _weights_of(params: Params, run: str) -> Path:
    return params.run_folder(run) / "weights.safetensors"


def evaluate_run(params: Params, run: str, allow_seen: bool = False) -> Path:
    """The study: score a run, or a baseline, on every set of the profile.

    Writes `reports/<profile>/metrics/<run>.csv` and `.json`; returns the latter.

    Raises:
        SalemaError: No such run, its maps are missing, or a clip was seen in training.
    """
    choose(run, [*params.runs, *params.baselines], "run")
    baseline = run if run in params.baselines else None
    folder = params.run_folder(run)
    seen = {} if baseline else seen_by(_weights_of(params, run))
    settings, rows, result = params.evaluate, [], {}
    for dataset, split in params.data.evaluate.items():
        clips = datasets.load(params.root, dataset, split)
        if baseline == "human" and not any(clip.has_observers for clip in clips):
            continue
        prior = None
        if baseline == "centre-prior":
            prior = baselines.centre_prior(params.root, dataset)
        maps = Maps(None if baseline else folder / "maps", baseline, prior)
        scores = score_clips(clips, maps, settings.protocol, every=settings.every,
                             seed=params.seed, seen=seen, allow_seen=allow_seen,
                             everyone=datasets.load(params.root, dataset))  # fmt: skip
        rows += [s.row() for s in scores]
        result[dataset] = summary(scores, settings.protocol, settings.resamples, params.seed)
    target = params.report_folder / "metrics" / f"{run}.json"
    write_rows(rows, target.with_suffix(".csv"))
    with atomic(target) as part:
        rounded = {d: {k: round(v, 6) if isinstance(v, float) else v for k, v in s.items()}
                   for d, s in result.items()}  # fmt: skip
        part.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    return target
