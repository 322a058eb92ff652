"""The tables of the report as Markdown, and `ablation.md`, `ablation.csv` and `bars.csv`."""

import math
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from salema import data
from salema.files import atomic
from salema.model.network import SaliencyModel
from salema.params import Model, Placement
from salema.report.study import FEW_CLIPS, METRICS, SIGN, Study, from_csv, from_json, time_constant
from salema.report.style import ASSETS
from salema.report.words import answers, describe, grid, interval, notice

ARROWS = {metric: f"{name} {'↑' if SIGN[metric] > 0 else '↓'}" for metric, name in METRICS.items()}
MARKS = {"better": " ▲", "worse": " ▼"}
USES = {"train": "{}", "val": "watch {}"}  # of a split by a training stage
COSTS = {"M parameters": ".2f", "GFLOP a frame": ".2f", "ms a frame": ".1f"}


def data_sets(study: Study) -> str:
    """A row for each data set and split that `salema index` found, and which stage uses it."""
    params, rows = study.params, []
    stages = {"tune": params.data.tune, "fine-tune": params.data.finetune}
    stages["continue"] = params.data.continued
    manifest = from_json(params.run_folder("manifest.json"), "manifest")
    for dataset, entry in manifest["sets"].items():
        for split, part in entry["splits"].items():
            names = [stage for stage in stages if dataset in stages[stage]]
            uses = [USES[split].format(name) for name in names if split in USES]
            uses += ["score"] if params.data.evaluate.get(dataset) == split else []
            clips = list(part["clips"].values())
            frames = sorted(clip["frames"] for clip in clips)
            row = {"data set": dataset, "split": split, "used for": ", ".join(uses) or "–"}
            row |= {"clips": len(clips), "in the complete set": part["expected"] or "–"}
            row |= {"frames": sum(frames)}
            row["frames a clip"] = f"{frames[0]}–{frames[-1]}" if frames else "–"
            row["with ground truth"] = sum(clip["annotated"] for clip in clips)
            rows.append({**row, "MB": sum(clip["bytes"] for clip in clips) / 1e6})
    return grid(pd.DataFrame(rows), {"MB": ".1f"})


def observers(study: Study, clips: int = 20) -> str:
    """Who looked at each data set: up to `clips` clips of its split, frames with a fixation."""
    rows = []
    for dataset, split in study.params.data.evaluate.items():
        found = data.load(study.params.root, dataset, split)
        chosen = found[:: max(1, len(found) // clips)][:clips]
        counts, people = [], set()
        for clip in chosen:
            for points in islice(clip.fixations(), 0, None, max(1, clip.n_frames // 10)):
                counts += [len(points)] if len(points) else []
                people |= set(points[:, 2])
        rates = sorted({clip.fps for clip in chosen if clip.fps})
        sizes = {clip.size for clip in chosen}
        height, width = max(sizes, key=math.prod)
        row = {"data set": dataset}
        row["observers"] = len(people) if chosen[0].has_observers else "merged"
        row["fixations a frame"] = np.mean(counts) if counts else np.nan
        row |= {"largest frame": f"{width}x{height}", "frame sizes": len(sizes)}
        ends = dict.fromkeys(f"{rate:g}" for rate in rates[:1] + rates[-1:])
        row["frames a second"] = "–".join(ends) or "–"
        rows.append(row)
    return grid(pd.DataFrame(rows), {"fixations a frame": ".1f"})


def legend(study: Study) -> str:
    """What each row is and what it costs; milliseconds where `benchmarks.rows` measured them."""
    params, rows, path = study.params, [], study.params.report_folder / "speed.json"
    speed = from_json(path, "times") if path.exists() else {"ms": {}}
    for run in params.runs:
        placement = params.placements.get(run) or Placement(recurrence="none")
        parameters, flop = cost(params.model.model_dump_json(), placement.model_dump_json())
        costs = (parameters / 1e6, flop / 1e9, speed["ms"].get(run))
        rows.append((f"`{run}`", describe(params, run), *costs))
    rows += [(f"*{name}*", describe(params, name)) for name in params.baselines]
    table = pd.DataFrame(rows, columns=["row", "what it is", *COSTS])
    table = grid(table.astype(dict.fromkeys(COSTS, float)), COSTS)
    if not (machine := speed.get("machine")):
        return table
    return (
        f"{table}\n\nms a frame: median of {machine['rounds']} rounds, rows in turn, in "
        f"{machine['precision']} on {machine.get('gpu', machine['cpu'])} "
        f"({', '.join(machine['capabilities'])}), {machine['threads']} threads, torch "
        f"{machine['torch']}."
    )


@cache
def cost(model: str, placement: str) -> tuple[int, int]:
    """Parameters and FLOP for one frame of a network, from shapes alone: nothing is computed.

    The frame follows another one; an addition is one FLOP. The arguments are JSON, for the cache.
    """
    config = Model.model_validate_json(model)
    with FakeTensorMode(), torch.no_grad():
        network = SaliencyModel(config, Placement.model_validate_json(placement)).eval()
        frame = torch.zeros((1, 1, *config.size, 3), dtype=torch.uint8)
        _, state = network(frame, None)
        with FlopCounterMode(display=False) as counter:
            network(frame, state)
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops()


def memories(study: Study, rates: list[float]) -> str:
    """How long each EMA remembers after training, in frames, and in seconds at each frame rate."""
    rows = []
    for run, placement in study.params.placements.items():
        for layer in placement.after if placement.recurrence == "ema" else []:
            trained = study.losses[run].get(f"alpha_{layer}", ())
            alpha = float(trained.iloc[-1]) if len(trained) else placement.alpha
            row = {"run": run, "layer": layer, "alpha": alpha, "frames": time_constant(alpha)}
            row |= {f"s at {rate:g} fps": time_constant(alpha, rate) for rate in rates}
            rows.append({**row, "learned": "yes" if placement.learned else "no"})
    forms = {f"s at {rate:g} fps": ".2f" for rate in rates}
    return grid(pd.DataFrame(rows), {"alpha": ".3f", "frames": ".1f", **forms})


def scores(study: Study, dataset: str) -> str:
    """The means of all rows on one data set; bold: the best mean of the runs, †: clips seen."""
    here = study.scores[study.scores.dataset == dataset]
    runs = here[here.kind == "run"]
    best = (runs["mean"] * runs.metric.map(SIGN)).groupby(runs.metric).max()

    def cell(row) -> str:
        mean, rest = interval(row.mean, row.low, row.high).split(" ", 1)
        bold = row.kind == "run" and row.mean * SIGN[row.metric] == best[row.metric]
        return f"**{mean}** {rest}" if bold else f"{mean} {rest}"

    seen = set(here.run[here.seen > 0])
    names = {run: f"`{run}`" + " †" * (run in seen) for run in study.params.runs}
    names |= {name: f"*{name}*" for name in study.params.baselines}
    return _by_metric(here.assign(row=here.run.map(names)), ["row"], list(names.values()), cell)


def differences(study: Study, dataset: str) -> str:
    """Paired differences; bold: the interval leaves out 0; arrow: the sign-flip test agrees."""
    here = study.differences.query("dataset == @dataset and control != 'centre-prior'")

    def cell(row) -> str:
        if row.verdict == "equal":
            return "the same"
        text = interval(row.difference, row.low, row.high, sign=True)
        return f"**{text}**{MARKS.get(row.finding, '')}" if row.verdict in MARKS else text

    here = here.assign(row="`" + here.run + "`", less="`" + here.control + "`")
    order = list(dict.fromkeys(zip(here.row, here.less, strict=True)))
    return _by_metric(here, ["row", "less"], order, cell)


def _by_metric(tidy: pd.DataFrame, index: list[str], order: list, cell: Callable[..., str]) -> str:
    """A tidy table as Markdown: its rows by `index` in this order, a column for each metric."""
    tidy = tidy.assign(cell=[cell(row) for row in tidy.itertuples()])
    table = tidy.pivot(index=index, columns="metric", values="cell")
    table = table.reindex(index=order, columns=list(ARROWS)).rename(columns=ARROWS)
    return grid(table.rename_axis(index=index).reset_index())


def section(study: Study, dataset: str) -> str:
    """One data set: the scores of all rows, then the paired differences."""
    head = f"## {dataset}, {study.params.data.evaluate[dataset]}"
    parts = [head, scores(study, dataset), f"#{head}: paired differences"]
    return "\n\n".join([*parts, differences(study, dataset)]) + "\n"


def protocols(study: Study) -> str:
    """The means of one run by every protocol, as `salema protocols` wrote them."""
    table = from_csv(study.params.report_folder / "protocols.csv", "scores by protocol")
    table = table.sort_values(["dataset", "protocol"], kind="stable").rename(columns=METRICS)
    return grid(table, dict.fromkeys(METRICS.values(), ".4f"))


def published(study: Study) -> str:
    """The authors' tables: the one to compare with, next to our rows, then the leaked one."""
    rows = pd.read_csv(ASSETS / "published.csv", index_col="run")
    names = METRICS | {"run": "our row"}
    ours = study.all_scores.query("protocol == 'salema2019' and dataset == 'DHF1K'")
    shown, beside = rows.rename("`{}`".format).reset_index().rename(columns=names), ""
    if len(ours) and study.params.data.evaluate.get("DHF1K") == "val":
        table = rows[rows.index.isin(ours.run)].astype(object)
        for (run, metric), theirs in table.filter(list(METRICS)).stack().items():
            values = ours[ours.run == run][metric]
            mean, error = values.mean(), f"{values.sem():.3f}" if len(values) > 1 else "–"
            table.loc[run, metric] = f"{theirs:.3f} / {mean:.3f} ± {error} ({mean - theirs:+.3f})"
        text = (ASSETS / "beside.md").read_text(encoding="utf-8")
        table = table.rename("`{}`".format).reset_index().rename(columns=names)
        beside = text.format(clips=ours["clip"].nunique(), table=grid(table))
    text = (ASSETS / "published.md").read_text(encoding="utf-8")
    return text.format(table=grid(shown, ".3f"), beside=beside)


def markdown(study: Study) -> str:
    """The whole of `ablation.md`."""
    params, every = study.params, study.params.evaluate.every
    judged = study.differences.query("control != 'centre-prior'")
    judged = int(judged.verdict.isin(["better", "worse", "open"]).sum())
    scored = study.scores[study.scores.kind == "run"].groupby(["dataset", "split"], sort=False)
    scored = scored[["clips", "frames", "skipped", "seen"]].max().reset_index()
    template = (ASSETS / "ablation.md").read_text(encoding="utf-8")
    return template.format(
        params=params,
        notice=notice(study),
        protocols=", ".join(f"`{name}`" for name in study.scores.protocol.unique()),
        frames="every frame" if every == 1 else f"one in {every} of the frames",
        tuned=", ".join(params.data.tune),
        finetuned=", ".join(params.data.finetune),
        scored=grid(scored.rename(columns={"dataset": "data set", "seen": "seen in training"})),
        legend=legend(study),
        answers=answers(study),
        few=FEW_CLIPS,
        judged=judged,
        by_chance=round(judged / 20),
        sections="\n".join(section(study, dataset) for dataset in params.data.evaluate),
        published=published(study),
    )


def write(study: Study) -> list[Path]:
    """Write `ablation.md`, `ablation.csv` and `bars.csv`, each whole or not at all.

    `ablation.csv` has a row for each data set, run and metric with the difference to its control
    and the verdict of the interval; `bars.csv` has each run's means on the set of the training
    clips, for `dvc plots`. Returns the three paths.
    """
    params, tidy, found = study.params, study.scores, study.differences
    found = found[found.control == found.run.map(study.control)]
    found = found.drop(columns=["clips", "p", "finding"])
    found = found.rename(columns={"low": "difference_low", "high": "difference_high"})
    long = tidy.merge(found, "left", ["dataset", "run", "metric"])
    long.insert(0, "profile", params.profile)
    own = tidy[tidy.dataset == next(iter(params.data.finetune), tidy.dataset[0])]
    bars = own.pivot(index="run", columns="metric", values="mean")
    bars = bars.reindex(index=own.run.unique(), columns=[m for m in METRICS if m in bars])
    form = {"float_format": "%.6g", "lineterminator": "\n"}
    contents = {
        study.folder / "ablation.md": markdown(study),
        study.folder / "ablation.csv": long.to_csv(index=False, **form),
        study.folder / "bars.csv": bars.to_csv(**form),
    }
    for path, content in contents.items():
        with atomic(path) as part:
            part.write_text(content, encoding="utf-8")
    return list(contents)
