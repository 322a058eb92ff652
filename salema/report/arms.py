"""The two arms of the study: what the table of `salema crossvalidate` says, and how surely.

Groups of clips are the units of every interval and test, because clips of one scene or the same
people are no independent witnesses. The primary contrasts are those that `params.yaml` named before
the results were known; everything else is descriptive.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from salema.files import SalemaError, atomic
from salema.report.study import METRICS, Study, from_csv
from salema.report.tables import ARROWS
from salema.report.words import grid, interval
from salema.score.statistics import (
    Interval,
    by_group,
    equivalence,
    hierarchical,
    holm,
    needed,
    sign_flip,
)

A, B = "A", "B"  # the arms
TRAINED, ALONE = "as trained", "frames alone"
LAYER = 61  # the average of the primary contrast is an average of the maps


class Contrast(NamedTuple):
    """A difference of two rows over groups of clips."""

    interval: Interval  # over groups and seeds
    p: float  # of sign-flips over groups
    groups: np.ndarray  # (G,) differences, means over clips and seeds
    ahead: int  # clips on which the first is higher
    clips: int


@dataclass(frozen=True)
class Arms:
    """The scores of both arms; a table of them has a row a clip and a column a seed."""

    study: Study

    @cached_property
    def table(self) -> pd.DataFrame:
        """`arms.csv`: arm, row, seed, fold, rate, tested, clip, group, frames, the metrics."""
        path = self.study.params.report_folder / "arms.csv"
        table = from_csv(path, "scores of the arms", ["arm", "row", "seed", "tested", "group"])
        if table.empty:
            raise SalemaError("no arm was run (see crossvalidate.rows in params.yaml)")
        ends = table.frames.cumsum()
        return table.assign(seed=table.seed.fillna(0).astype(int), start=ends - table.frames)

    @cached_property
    def curves(self) -> dict[str, np.ndarray]:
        """`arms.npz`: NSS and CC of each scored frame; what the frames of each clip are like."""
        with np.load(self.study.params.report_folder / "arms.npz") as file:
            return dict(file)

    @cached_property
    def groups(self) -> pd.Series:
        """Clip -> its group."""
        return self.table.drop_duplicates("clip").set_index("clip").group

    def scores(
        self, arm: str, row: str, tested: str = TRAINED, metric: str = "nss"
    ) -> pd.DataFrame:
        """Clips x seeds of one condition."""
        here = self.table.query("arm == @arm and row == @row and tested == @tested")
        if here.empty:
            what = f"arm {arm} has no {row}, {tested}"
            raise SalemaError(f"{what} (see crossvalidate in params.yaml)")
        return here.pivot(index="clip", columns="seed", values=metric)

    @cached_property
    def lengths(self) -> pd.Series:
        """Clip -> the time constant, in seconds, that is best on the clips of other groups."""
        taus = self.study.params.crossvalidate.taus
        names = [f"ema{LAYER} tau {tau:g}" for tau in taus]
        means = pd.concat([self.scores("A", "static", n).mean(axis=1) for n in names], axis=1)
        chosen = {}
        for clip, group in self.groups.items():
            others = means[self.groups.loc[means.index] != group]
            chosen[clip] = taus[int(others.groupby(self.groups).mean().mean().to_numpy().argmax())]
        return pd.Series(chosen)

    def average(self, metric: str = "nss") -> pd.DataFrame:
        """Arm A's average of the maps with the length that other groups chose."""
        parts = [
            self.scores("A", "static", f"ema{LAYER} tau {tau:g}", metric).loc[clips.index]
            for tau, clips in self.lengths.groupby(self.lengths)
        ]
        return pd.concat(parts).sort_index()

    def named(self, name: str, metric: str = "nss") -> pd.DataFrame:
        """The scores of a side of a contrast: "average", a row of arm A or one of arm B."""
        if name == "average":
            return self.average(metric)
        if name in ("static", "centre-prior"):
            tested = TRAINED if name == "static" else "as it is"
            return self.scores("A", name, tested, metric)
        return self.scores("B", name, metric=metric)

    def contrast(self, first: pd.DataFrame, second: pd.DataFrame) -> Contrast:
        """The first less the second, by clip and seed; a row without seeds, less each of them."""
        if len(first.columns) > 1 and len(second.columns) > 1:
            both = (first - second).dropna()
        else:
            both = first.sub(second.mean(axis=1), axis=0).dropna()
        groups = self.groups.loc[both.index]
        spread = hierarchical(both.to_numpy(), groups, self.study.params.evaluate.resamples)
        per_group = by_group(both.to_numpy(), groups).mean(axis=1)
        ahead = int((both.mean(axis=1) > 0).sum())
        return Contrast(spread, sign_flip(per_group), per_group, ahead, len(both))


class Primary(NamedTuple):
    """A contrast that was named beforehand, and its test."""

    text: str
    found: Contrast
    equal: bool  # whether it asks for equivalence
    power: float  # of the test of equivalence
    raw: float  # p
    p: float  # by Holm

    @property
    def shown(self) -> bool:
        """Whether the test shows what the contrast asks for."""
        return self.p < 0.05


def contrasts(arms: Arms) -> list[Primary]:
    """The primary contrasts, tested."""
    study, rows = arms.study.params.crossvalidate, []
    for text in study.primary:
        first, kind, second = text.split()
        found = arms.contrast(arms.named(first), arms.named(second))
        test = equivalence(found.groups, study.margin)
        rows.append((text, found, kind == "=", test.power, test.p if kind == "=" else found.p))
    adjusted = holm([raw for *_, raw in rows]) if rows else []
    return [Primary(*row, float(p)) for row, p in zip(rows, adjusted, strict=True)]


def primary(arms: Arms) -> str:
    """The primary contrasts as a table: their differences, tests and what they show."""
    margin, rows = arms.study.params.crossvalidate.margin, []
    for each in contrasts(arms):
        found, asks = each.found, "a difference"
        if each.equal:
            asks = f"equivalence within {margin:g} (power {each.power:.2f})"
        row = {"contrast": each.text, "asks for": asks}
        row["NSS"] = interval(*found.interval, sign=True)
        row |= {"groups": len(found.groups), "ahead": f"{found.ahead} of {found.clips} clips"}
        row |= {"p": f"{each.raw:.2g}", "p (Holm)": f"{each.p:.2g}"}
        rows.append(row | {"result": "shown" if each.shown else "not shown"})
    return grid(pd.DataFrame(rows))


def answers(arms: Arms) -> str:
    """What the primary contrasts show, in sentences, and how many groups equivalence needs."""
    margin, lines = arms.study.params.crossvalidate.margin, []
    for each in contrasts(arms):
        (first, _, second), found = each.text.split(), each.found
        value = f"{interval(*found.interval, sign=True)} NSS, p = {each.p:.2g} (Holm)"
        if each.equal:
            claim = "are equivalent" if each.shown else "are not shown to be equivalent"
            claim = f"`{first}` and `{second}` {claim} within {margin:g} NSS"
            enough = needed(float(found.groups.std(ddof=1)), margin)
            value += f"; a power of .8 takes {enough} groups that differ as much as these"
            value += f" {len(found.groups)}, which give {each.power:.2f}"
        elif each.shown:
            word = "higher" if found.interval.mean > 0 else "lower"
            claim = f"`{first}` scores {word} than `{second}`"
        else:
            claim = f"It is not shown that `{first}` and `{second}` differ"
        lines.append(f"- **{claim}**: {value}.")
    return "\n".join(lines)


def arm_table(arms: Arms, arm: str) -> str:
    """Every row and condition of an arm: means over clips, and the NSS less its control's."""
    rows, table = [], arms.table[arms.table.arm == arm]
    control = ("static" if arm == "A" else "static-video", TRAINED)
    for row, tested in dict.fromkeys(zip(table.row, table.tested, strict=True)):
        scores = {metric: arms.scores(arm, row, tested, metric) for metric in METRICS}
        line = {"row": row, "tested": tested, "seeds": f"{scores['nss'].shape[1]}"}
        line |= {ARROWS[metric]: float(s.to_numpy().mean()) for metric, s in scores.items()}
        line["NSS less control"] = ""
        if (row, tested) != control:
            found = arms.contrast(scores["nss"], arms.scores(arm, *control))
            line["NSS less control"] = f"{interval(*found.interval, sign=True)}, p = {found.p:.2g}"
        rows.append(line)
    return grid(pd.DataFrame(rows), ".3f")


def write(arms: Arms) -> Path:
    """Write `arms.md`: the primary contrasts and both tables; returns it."""
    path = arms.study.folder / "arms.md"
    parts = ["# The two arms", answers(arms), primary(arms)]
    parts += ["## Arm A", arm_table(arms, "A"), "## Arm B", arm_table(arms, "B")]
    with atomic(path) as part:
        part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
