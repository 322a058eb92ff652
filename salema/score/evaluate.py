"""Maps and annotations -> scores clip by clip, with confidence intervals over clips.

The maps of any model, by any named protocol, on all cores. A clip that the weights were
trained on is refused unless the caller allows it; its row is then marked.
"""

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from salema import data
from salema.data import Clip
from salema.files import SalemaError, atomic
from salema.params import Params, choose
from salema.score import baselines, protocols
from salema.score.maps import Maps
from salema.score.negatives import Negatives, generator
from salema.score.protocols import METRICS, Protocol
from salema.score.statistics import bootstrap, by_group, equivalence, sign_flip, t_interval
from salema.score.tables import Scores, mean, rounded, seen_by, write_csv, write_scores

COMPARED = 400  # approximate number of frames per set on which protocols are compared
MARGIN = 0.1  # in NSS: a smaller difference counts as none
Frame = tuple[int, np.ndarray, np.ndarray, np.ndarray | None]  # index, map, fixations, density


def score_clip(
    clip: Clip, negatives: Negatives, maps: Maps, protocol: Protocol, every: int, seed: int
) -> list[dict[str, float] | None]:
    """Scores of each `every`-th of the frames that the protocol takes; see `Scores.frames`."""
    cv2.setNumThreads(1)
    wanted = range(0, clip.n_frames, protocol.every * every)
    if maps.baseline == "human":
        frames = _halves(clip, wanted, protocol, seed)
    else:
        frames = _predicted(clip, wanted, maps.of(clip), not protocol.own_density)
    scores = {}  # of each frame: one, or one for each split of the observers
    for index, saliency, points, density in frames:
        try:
            score = protocol.score(saliency, points, density, clip.size, negatives, index)
            scores.setdefault(index, []).append(score)
        except ValueError as error:
            where = f"{clip.dataset} {clip.name}, frame {clip.frame_names[index]}"
            raise SalemaError(f"bad map of {where}: {error} (predict this clip again)") from error
    return [mean(found) or None for found in scores.values()]


def _predicted(
    clip: Clip, wanted: range, maps: Iterator[np.ndarray], with_density: bool
) -> Iterator[Frame]:
    """The wanted frames with their maps; the clip must have exactly one map per frame."""
    count = 0
    for count, saliency in enumerate(maps, 1):
        if count > clip.n_frames:
            break
        if count - 1 in wanted:
            (points,) = clip.fixations(count - 1, count)
            # Only for wanted frames: the density of a large frame is as slow as all metrics.
            (density,) = clip.maps(count - 1, count) if with_density else (None,)
            yield count - 1, saliency, points, density
    if count != clip.n_frames:
        found = f"more than {clip.n_frames}" if count > clip.n_frames else count
        what = f"{found} maps for the {clip.n_frames} frames of {clip.dataset} {clip.name}"
        raise SalemaError(f"{what} (predict this clip again)")


def _halves(clip: Clip, wanted: range, protocol: Protocol, seed: int) -> Iterator[Frame]:
    """Each wanted frame for each split: half of the observers is the map, half the ground truth.

    The map is made at the protocol's size, where a blur of a large video is fast.
    """
    points, size, sigma = list(clip.fixations()), clip.size, data.sigma(clip.size)
    draws = (generator(seed, clip.name, "halves", split) for split in range(baselines.SPLITS))
    splits = [baselines.split_half(points, random) for random in draws]
    for index, halves in product(wanted, splits):
        first, second = halves[index]
        second = second if len(first) else first  # without a map, such a frame has no score
        saliency = data.blur(first, size, sigma, protocol.grid(size))
        density = None if protocol.own_density else data.blur(second, size, sigma)
        yield index, saliency, second, density


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
    ranks: Any = None,
) -> list[Scores]:
    """Score clips of one data set on all cores: each `every`-th frame that the protocol takes.

    `clips` are each other's negatives in s-AUC, or `everyone`, all clips of the set, where the
    protocol says so. `seen` maps a data set to the clips that the weights were trained on: they
    are an error, unless `allow_seen` scores and marks them. `seed` is the seed of every draw.
    `ranks`, a connected `predict.ranks.Ranks`, share the clips; each returns those of their `part`.
    """
    if every < 1:
        raise SalemaError(f"--every must be at least 1, not {every} (1 scores each frame)")
    dataset = clips[0].dataset
    rules = protocols.get(protocol, dataset)
    trained = set((seen or {}).get(dataset, []))
    leaked = [clip.name for clip in clips if clip.name in trained]
    if leaked and not allow_seen:
        what = f"{len(leaked)} clips of {dataset}, {leaked[0]} first, were seen in training"
        raise SalemaError(f"{what} (their scores prove nothing; --allow-seen marks the row)")
    others = everyone if everyone is not None and rules.whole_set else clips
    pool = rules.pool(others)
    negatives = [rules.negatives(pool, clip.name, seed) for clip in clips]
    mine, negatives = (ranks.take(x) if ranks else x for x in (clips, negatives))
    score = partial(score_clip, maps=maps, protocol=rules, every=every, seed=seed)
    progress = partial(tqdm, total=len(mine), desc=dataset, unit="clip", disable=None)
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    workers = min(cores, len(mine))
    each = baselines.SPLITS if maps.baseline == "human" else 1
    if workers < 2 or sum(clip.n_frames for clip in mine) * each < 50:
        frames = list(progress(map(score, mine, negatives)))
    else:  # spawn: a fork of a process with threads (torch, notebooks) may hang
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # threads of workers wait for others'
        context, share = multiprocessing.get_context("spawn"), max(1, len(mine) // (8 * workers))
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            frames = list(progress(executor.map(score, mine, negatives, chunksize=share)))
    if ranks:
        clips, frames = ranks.part(clips), ranks.gather(frames)
    pairs, how = zip(clips, frames, strict=True), (protocol, rules.every * every)
    return [Scores(c.name, dataset, c.name in trained, found, *how) for c, found in pairs]


def summary(scores: list[Scores], protocol: str, resamples: int = 10_000, seed: int = 0) -> dict:
    """Means with 95 % intervals over clips, and the counts.

    The intervals are Student's; where a protocol weights clips by their frames, they are those of
    a bootstrap with `resamples`.

    Keys: clips, frames, skipped, seen, protocol, and for each metric `m`: m, m_low, m_high.
    A metric that no frame has is left out.
    """
    clips, rules = [s.row() for s in scores], protocols.get(protocol, scores[0].dataset)
    counts = {key: sum(row[key] for row in clips) for key in ("frames", "skipped", "seen")}
    result = {"clips": len(clips), **counts, "protocol": protocol}
    for key, value in rules.aggregate({s.clip: s.frames for s in scores}, seed).items():
        used = [(row[key], row["frames"]) for row in clips if row[key] is not None]
        values, frames = np.array(used).T
        equal, weights = rules.frame_limit is None, (resamples, seed, frames)
        _, low, high = t_interval(values) if equal else bootstrap(values, *weights)
        result |= {key: value, f"{key}_low": low, f"{key}_high": high}
    return result


def table(result: dict, title: str) -> str:
    """A summary as lines of text."""
    mark = f", {result['seen']} SEEN IN TRAINING" if result["seen"] else ""
    frames = f"{result['frames']} frames scored, {result['skipped']} without gaze{mark}"
    lines = [f"{title}: {result['clips']} clips, {frames}; 95 % interval over clips"]
    for key in METRICS:
        if key in result:
            low, high = result[f"{key}_low"], result[f"{key}_high"]
            lines.append(f"  {METRICS[key]:6} {result[key]:7.4f}  [{low:.4f}, {high:.4f}]")
    return "\n".join(lines)


def differences(
    rows: dict[str, dict],
    other: dict[str, dict],
    groups: dict[str, str] | None = None,
    margin: float = MARGIN,
) -> str:
    """Paired differences, rows - other, over the groups of the clips in both tables, as text.

    `groups` maps a clip to its group (None: each clip is one). `margin` is that of the equivalence
    test, in NSS. See `statistics`.
    """
    shared = sorted(set(rows) & set(other))
    group = {clip: (groups or {}).get(clip, clip) for clip in shared}
    counts, equal = f"{len(shared)} clips in {len(set(group.values()))} groups", []
    lines = [f"paired difference over {counts}; 95 % interval; p: sign flips of groups"]
    for key in METRICS:
        used = [c for c in shared if None not in (rows[c].get(key), other[c].get(key))]
        if not used:
            continue
        apart = by_group([rows[c][key] - other[c][key] for c in used], [group[c] for c in used])
        (mean, low, high), p = t_interval(apart), sign_flip(apart)
        sure = "" if low <= 0 <= high or p >= 0.05 else "  *"
        lines.append(f"  {METRICS[key]:6} {mean:+7.4f}  [{low:+.4f}, {high:+.4f}]  p {p:.2g}{sure}")
        if key == "nss" and len(apart) > 1:
            shown, power = equivalence(apart, margin)
            equal = [f"  equal within {margin:g} NSS: p {shown:.2g} (power {power:.2f} if equal)"]
    return "\n".join([*lines, *equal, "  * 0 is outside the interval, and p is below 0.05"])


def evaluate_run(params: Params, run: str, allow_seen: bool = False) -> Path:
    """Score a run of the study, or a baseline, on every set of the profile, by every protocol.

    Writes `reports/<profile>/metrics/<run>.csv` and `.json`; returns the latter. It maps a set to
    its `summary` by the first protocol, in which the summaries by the others are under their names.
    """
    choose(run, [*params.runs, *params.baselines], "run")
    found = list(_study(params, run, list(dict.fromkeys(params.evaluate.protocols)), allow_seen))
    target = params.report_folder / "metrics" / f"{run}.json"
    write_scores([score for scores, _ in found for score in scores], target.with_suffix(".csv"))
    with atomic(target) as part:
        result = {}
        for scores, means in found:
            entry = result.setdefault(scores[0].dataset, rounded(means, 6))
            if entry["protocol"] != means["protocol"]:
                entry[means["protocol"]] = rounded(means, 6)
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return target


def compare_protocols(params: Params, run: str) -> Path:
    """Score a run by every protocol; writes and returns `reports/<profile>/protocols.csv`.

    Each n-th frame is scored in a set with more than `COMPARED` frames: on 1080p video the
    older definitions take a tenth of a second per frame.
    """
    choose(run, params.runs, "run")
    found = _study(params, run, protocols.NAMES, frames=COMPARED)
    rows = [{"dataset": scores[0].dataset} | rounded(means, 4) for scores, means in found]
    path = params.report_folder / "protocols.csv"
    write_csv(rows, ("protocol", "dataset", "clips", "frames", *METRICS), path)
    return path


def _study(
    params: Params, run: str, names: Sequence[str], allow_seen: bool = False, frames: int = 0
) -> Iterator[tuple[list[Scores], dict]]:
    """Scores and summary of a run, or a baseline, set by set and protocol by protocol.

    With `frames`, each n-th frame of a set is scored so that about that many are.
    """
    folder, settings, maps, seen = params.run_folder(run), params.evaluate, Maps(baseline=run), {}
    if run not in params.baselines:
        maps, seen = Maps(folder / "maps"), seen_by(folder / "weights.safetensors")
    for dataset, split in params.data.evaluate.items():
        clips, everyone = data.load(params.root, dataset, split), data.load(params.root, dataset)
        if maps.baseline == "human" and not any(clip.has_observers for clip in clips):
            continue
        if maps.baseline == "centre-prior":
            prior = baselines.centre_prior(data.load(params.root, dataset, "train"))
            maps = Maps(baseline=run, prior=prior)
        stride = 1 + sum(clip.n_frames for clip in clips) // frames if frames else 0
        options = {"seed": params.seed, "seen": seen, "allow_seen": allow_seen}
        for name in names:
            every = max(settings.every, stride // protocols.get(name).every)
            scores = score_clips(clips, maps, name, every=every, everyone=everyone, **options)
            yield scores, summary(scores, name, settings.resamples, params.seed)
