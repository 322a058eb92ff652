"""`dhf1k` against a second implementation in Octave, written from the definitions alone.

Octave runs MATLAB's language, in which the benchmark is written. `tests/octave/dhf1k.m` shares
no line with `salema.score`; without Octave these tests are skipped.
"""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_protocols import SIZE, example, example_frame, score_example
from trees import mat

from salema.score import protocols
from salema.score.negatives import Pool
from salema.score.protocols import METRICS

NAMES = list(METRICS)
OCTAVE = shutil.which("octave-cli")
SCRIPT = Path(__file__).parents[1] / "octave/dhf1k.m"
pytestmark = pytest.mark.skipif(OCTAVE is None, reason="no octave-cli (apt install octave)")

SEEDS = range(20)  # 100 splits for each
MAPS = {
    "of the clip's size": lambda saliency: saliency,
    "smaller": lambda saliency: cv2.resize(saliency, (26, 15)),
    "larger": lambda saliency: cv2.resize(saliency, (90, 50)),
    "of four levels": lambda saliency: np.floor(4 * saliency) / 4,
    "smaller, of 8 bits": lambda saliency: np.uint8(255 * cv2.resize(saliency, (26, 15)) + 0.5),
}


def mask(cells):
    found = np.zeros(SIZE)
    found.flat[cells] = 1
    return found


def negatives():
    return protocols.get("dhf1k").negatives(Pool(example()), "clip2")


def both(folder, saliency, others, seeds=(0,)):
    """METRICS of the example frame for each seed, by Octave and by `dhf1k`: two (S, 6)."""
    _, fixations, density = example_frame()
    x, y = fixations[:, :2].astype(int).T
    inputs = {
        "saliency": saliency,
        "fixations": mask(y * SIZE[1] + x),
        "density": density,
        "others": mask(others.at(3)),
        "splits": 100,
        "seeds": list(seeds),
    }
    command = [OCTAVE, "--norc", str(SCRIPT), str(mat(folder / "frame.mat", **inputs))]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = [[float(word) for word in line.split()] for line in ran.stdout.splitlines()]
    ours = [
        score_example("dhf1k", saliency=saliency, negatives=replace(others, seed=seed))
        for seed in seeds
    ]
    return np.array(theirs), np.array([[scores[key] for key in METRICS] for scores in ours])


@pytest.mark.parametrize("name", MAPS)
def test_octave_gives_the_scores_of_dhf1k_for_a_map(name, tmp_path):
    """NSS, CC and SIM to rounding; where numbers are drawn, the means over 20 seeds.

    Those may be four standard errors apart, taken from the spread of both over the seeds:
    about 0.01 of s-AUC; of AUC-J nothing, or 0.00006 and 0.004 where fixated pixels have ties
    for the noise to break (at the clip's size, and with four levels).
    """
    theirs, ours = both(tmp_path, MAPS[name](example_frame()[0]), negatives(), SEEDS)
    assert theirs.shape == ours.shape == (len(SEEDS), len(METRICS))
    for column in map(NAMES.index, ("nss", "cc", "sim")):
        np.testing.assert_allclose(theirs[:, column], ours[:, column], rtol=0, atol=1e-9)
    for column in map(NAMES.index, ("auc_judd", "auc_shuffled")):
        apart = theirs[:, column].mean() - ours[:, column].mean()
        variance = theirs[:, column].var(ddof=1) + ours[:, column].var(ddof=1)
        assert abs(apart) < 4 * np.sqrt(variance / len(SEEDS)) + 1e-9


@pytest.mark.parametrize("name", MAPS)
def test_s_auc_equals_octaves_where_every_split_takes_all_negatives(name, tmp_path):
    others = negatives()
    few = replace(others, places=[others.at(3)[::14]])
    assert len(few.at(3)) == 8  # of ten fixated pixels
    theirs, ours = both(tmp_path, MAPS[name](example_frame()[0]), few)
    column = NAMES.index("auc_shuffled")
    assert 0.5 < ours[0, column] < 1
    assert theirs[0, column] == pytest.approx(ours[0, column], abs=1e-9)


def test_kld_equals_octaves_for_a_map_that_starts_at_zero_and_only_for_that(tmp_path):
    """The benchmark reports no KLD; MATLAB's common one does not subtract the minimum."""
    saliency = example_frame()[0].astype(np.float64)
    from_zero = saliency - saliency.min()
    column = NAMES.index("kld")
    theirs, ours = (scores[0, column] for scores in both(tmp_path, from_zero, negatives()))
    assert theirs == pytest.approx(ours, abs=1e-6)
    raised, same = (scores[0, column] for scores in both(tmp_path, from_zero + 0.3, negatives()))
    assert same == pytest.approx(ours, abs=1e-6) and raised > ours + 0.1
