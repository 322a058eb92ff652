"""The definitions, written out slowly: an oracle for the tests, a yardstick for the bench.

One fixation, one threshold, one split at a time, and nothing shared between metrics.
"""

import math

import numpy as np

EPSILON = 2.220446049250313e-16  # MATLAB's eps


def minmax(values):
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def to_sum_one(values):
    return values / values.sum() if values.sum() > 0 else np.full(values.shape, 1 / values.size)


def auc_pairs(positives, negatives):
    """Every positive against every negative: a win counts 1, a tie 1/2."""
    score = 0.0
    for positive in positives:
        score += np.sum(positive > negatives) + 0.5 * np.sum(positive == negatives)
    return score / (len(positives) * len(negatives))


def auc_ranks(positives, negatives):
    """The textbook form: the sum of the positives' mid-ranks in the pooled sample."""
    pooled = np.concatenate([positives, negatives])
    _, inverse, counts = np.unique(pooled, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    midranks = (last - (counts - 1) / 2)[inverse]
    n, m = len(positives), len(negatives)
    return (midranks[:n].sum() - n * (n + 1) / 2) / (n * m)


def auc_judd(saliency, fixations):
    return auc_pairs(saliency[fixations], saliency[~fixations])


def auc_shuffled(saliency, fixations, negatives):
    return auc_pairs(saliency[fixations], saliency.ravel()[negatives])


def nss(saliency, fixations):
    saliency = saliency.astype(np.float64)
    if saliency.max() == saliency.min():
        return 0.0
    standard = (saliency - saliency.mean()) / saliency.std()
    return float(np.mean([standard[y, x] for y, x in zip(*np.nonzero(fixations), strict=True)]))


def cc(saliency, density):
    if saliency.max() == saliency.min() or density.max() == density.min():
        return 0.0
    return float(np.corrcoef(saliency.ravel().astype(float), density.ravel().astype(float))[0, 1])


def sim(saliency, density):
    p = to_sum_one(minmax(saliency.astype(np.float64)))
    q = to_sum_one(minmax(density.astype(np.float64)))
    return float(np.minimum(p, q).sum())


def kld(saliency, density):
    p = to_sum_one(minmax(saliency.astype(np.float64)))
    q = to_sum_one(minmax(density.astype(np.float64)))
    return float(np.sum(q * np.log(EPSILON + q / (p + EPSILON))))


def information_gain(saliency, fixations, prior, uniform=0.01):
    """Bits per fixation, in plain Python: one pixel, one fixation at a time."""
    logs = []
    for values in (saliency, prior):
        values = [float(value) for value in values.ravel()]
        lowest = min(0.0, *values)
        values = [value - lowest for value in values]
        total, n = math.fsum(values), len(values)
        mixed = [(1 - uniform) * (v / total if total else 1 / n) + uniform / n for v in values]
        logs.append([math.log2(mixed[place]) for place in np.flatnonzero(fixations)])
    return sum(a - b for a, b in zip(*logs, strict=True)) / len(logs[0])


def score_frame(saliency, fixations, density, negatives):
    """What `salema.score.metrics.score_frame` gives, one metric after the other."""
    return {
        "auc_judd": auc_judd(saliency, fixations),
        "auc_shuffled": auc_shuffled(saliency, fixations, negatives),
        "nss": nss(saliency, fixations),
        "cc": cc(saliency, density),
        "sim": sim(saliency, density),
        "kld": kld(saliency, density),
    }


def judd_trapezoid(saliency, fixations):
    """The usual AUC-Judd: a threshold at each fixation's value, then the trapezoid."""
    at_fixations = sorted(saliency[fixations], reverse=True)
    n_fixations, n_pixels = len(at_fixations), saliency.size
    hits, alarms = [0.0], [0.0]
    for found, threshold in enumerate(at_fixations, start=1):
        above = np.sum(saliency >= threshold)
        hits.append(found / n_fixations)
        alarms.append((above - found) / (n_pixels - n_fixations))
    return float(np.trapezoid([*hits, 1.0], [*alarms, 1.0]))


def split_roc(at_fixations, drawn, thresholds, divisor=None):
    """One random split of the usual s-AUC: thresholds in steps of .1, then the trapezoid."""
    divisor = divisor or len(drawn)
    hits, alarms = [0.0], [0.0]
    for threshold in sorted(thresholds, reverse=True):
        hits.append(np.mean(at_fixations >= threshold))
        alarms.append(sum(value >= threshold for value in drawn) / divisor)
    return float(np.trapezoid([*hits, 1.0], [*alarms, 1.0]))


def bilinear(values, shape):
    """Each new pixel from its four neighbours, pixel by pixel; the edge is repeated."""
    (height, width), made = values.shape, np.empty(shape)
    for row in range(shape[0]):
        y = min(max((row + 0.5) * height / shape[0] - 0.5, 0), height - 1)
        top, down = int(y), y - int(y)
        for column in range(shape[1]):
            x = min(max((column + 0.5) * width / shape[1] - 0.5, 0), width - 1)
            left, right = int(x), x - int(x)
            corners = values[top : top + 2, left : left + 2]
            across = corners[:, 0] * (1 - right) + corners[:, -1] * right
            made[row, column] = across[0] * (1 - down) + across[-1] * down
    return made


def ntire26(saliency, fixations, density):
    """The challenges' four metrics of one frame; fixations are a list of (row, column)."""
    saliency = bilinear(minmax(saliency.astype(np.float64)), density.shape)
    density = minmax(density.astype(np.float64))
    values = [saliency[row, column] for row, column in fixations]
    hits, alarms = [0.0], [0.0]
    for found, threshold in enumerate(sorted(values, reverse=True), start=1):
        hits.append(found / len(values))
        alarms.append((np.sum(saliency >= threshold) - found) / (saliency.size - 2))
    p, q = saliency / saliency.sum(), density / density.sum()
    return {
        "auc_judd": float(np.trapezoid([*hits, 1.0], [*alarms, 1.0])),
        "nss": float(np.mean([(value - saliency.mean()) / saliency.std() for value in values])),
        "cc": cc(saliency, density),
        "sim": float(sum(min(a, b) for a, b in zip(p.ravel(), q.ravel(), strict=True))),
    }
