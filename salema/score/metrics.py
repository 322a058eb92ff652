"""How well a saliency map predicts where people looked: one pure function per metric.

| metric | compares the map with | chance | best |
|---|---|---|---|
| `auc_judd` | fixations, against all pixels without a fixation | 0.5 | 1 |
| `auc_shuffled` | fixations, against fixations of other clips | 0.5 | 1 |
| `nss` | fixations | 0 | unbounded |
| `cc` | density | 0 | 1 |
| `sim` | density | above 0 | 1 |
| `kld` | density | above 0 | 0 (lower is better) |
| `information_gain` | fixations, and a prior | 0 for the prior | unbounded |

A saliency map is (H, W) of any real scale: every metric gives the same score for `a * map + b`
with a > 0, but `information_gain` takes the map as a distribution, and b matters. Fixations and
negatives are an (H, W) mask, or (N,) flat indices `y * W + x`; a pixel that occurs twice among the
indices counts twice. A density is (H, W) >= 0: the blurred fixations.

Degenerate input: a constant map scores AUC 0.5, NSS 0.0, CC 0.0, and the SIM, KLD and information
gain of the uniform distribution; a constant density is the uniform distribution too. Every function
raises ValueError if there is no fixation, no negative or a blank density, if shapes differ, or if a
map holds NaN or infinity. No function returns NaN.

The AUCs are exact (see `roc`). All passes work on blocks that stay in the cache.
"""

from itertools import repeat

import numpy as np

from salema.score.roc import Map, auc, auc_against_rest, read_map

EPSILON = float(np.finfo(float).eps)  # MATLAB's eps, which the field's code adds inside KLD


def _read(saliency: np.ndarray, density: np.ndarray | None) -> tuple[Map, Map | None]:
    image = read_map(saliency)
    if density is None:
        return image, None
    target, shapes = read_map(density, "density"), (np.shape(density), np.shape(saliency))
    if shapes[0] != shapes[1]:
        raise ValueError(f"density {shapes[0]} and map {shapes[1]} must have one shape")
    if target.low < 0:
        raise ValueError(f"a density must not be negative; this one reaches {target.low:g}")
    if target.low == 0 and target.scale == 0:
        raise ValueError("a density must not be blank; this one is zero everywhere")
    return image, target


def _places(where: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Mask or flat indices -> flat indices, at least one."""
    where = np.asarray(where)
    if where.ndim == 2:
        if where.shape != shape:
            raise ValueError(f"{name} {where.shape} and map {shape} must have one shape")
        where = np.flatnonzero(where)
    elif where.ndim != 1 or (where.size and where.dtype.kind not in "iu"):
        found = f"{where.dtype} {where.shape}"
        raise ValueError(f"{name} must be an (H, W) mask or (N,) flat indices, not {found}")
    elif where.size and not (where.min() >= 0 and where.max() < shape[0] * shape[1]):
        raise ValueError(f"{name} must be flat indices inside the map {shape}")
    if not where.size:
        raise ValueError(f"at least one pixel is needed as {name}; there is none")
    return where


def _moments(image: Map, target: Map | None = None) -> tuple[float, ...]:
    """Mean and variance of the map, the same of the density, and their covariance.

    Sums over [0, 1] do not cancel: a variance is at least about 1 / (2 pixels).
    """
    sums = np.zeros(5)
    for a, b in zip(image.units(), target.units() if target else repeat(None), strict=False):
        sums[:2] += a.sum(), a @ a
        if b is not None:
            sums[2:] += b.sum(), b @ b, a @ b
    x, xx, y, yy, xy = (sums / len(image.values)).tolist()
    return x, xx - x**2, y, yy - y**2, xy - x * y


def _nss(image: Map, places: np.ndarray, moments: tuple[float, ...]) -> float:
    if image.scale == 0:
        return 0.0
    at_fixations = (image.values[places].astype(np.float64) - image.low) * image.scale
    return float((at_fixations.mean() - moments[0]) / np.sqrt(moments[1]))


def _cc(image: Map, target: Map, moments: tuple[float, ...]) -> float:
    if image.scale == 0 or target.scale == 0:
        return 0.0
    _, variance, _, target_variance, covariance = moments
    return float(np.clip(covariance / np.sqrt(variance * target_variance), -1, 1))


def _overlap(image: Map, target: Map, moments: tuple, uniform: float = 0.0) -> tuple[float, float]:
    """SIM and KLD (see it for `uniform`) of the two; a map without mass is the uniform one."""
    n, shared, divergence = len(image.values), 0.0, 0.0
    mean, _, target_mean, *_ = moments
    if mean:
        image = image._replace(scale=image.scale / (n * mean))
    if target_mean:
        target = target._replace(scale=target.scale / (n * target_mean))
    for p, q in zip(image.units(), target.units(), strict=True):
        if not mean:
            p[:] = 1 / n
        if not target_mean:
            q[:] = 1 / n
        shared += np.minimum(p, q).sum()
        p *= 1 - uniform
        p += uniform / n + EPSILON
        ratio = np.divide(q, p, out=p)
        ratio += EPSILON
        divergence += q @ np.log(ratio, out=ratio)
    return float(min(shared, 1.0)), float(divergence)


def auc_judd(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """Area under the ROC curve of the fixations against all pixels without a fixation.

    The exact area in [0, 1]: 0.5 is chance, higher is better. (The usual trapezoid over n
    thresholds lies about 1 / (2 n) above it.) ValueError also if every pixel is fixated.

    Source: Judd et al., ICCV 2009; Riche et al., ICCV 2013.
    """
    return auc_against_rest(read_map(saliency), _places(fixations, np.shape(saliency), "fixations"))


def auc_shuffled(saliency: np.ndarray, fixations: np.ndarray, negatives: np.ndarray) -> float:
    """Area under the ROC curve of the fixations against fixations of other clips.

    The exact area in [0, 1]: 0.5 is chance, also for a map of the centre bias; higher is better.
    The protocol determines the negatives (see `negatives`), which may overlap the fixations.

    Source: Tatler, Baddeley and Gilchrist, Vision Research 45(5), 2005.
    """
    values, shape = read_map(saliency).values, np.shape(saliency)
    places = _places(fixations, shape, "fixations")
    return auc(values[places], values[_places(negatives, shape, "negatives")])


def nss(saliency: np.ndarray, fixations: np.ndarray) -> float:
    """Normalized scanpath saliency: mean z-scored saliency at the fixations.

    In standard deviations of all pixels, as a population: 0 is chance, higher is better.

    Source: Peters et al., Vision Research 45(18), 2005.
    """
    image = read_map(saliency)
    return _nss(image, _places(fixations, np.shape(saliency), "fixations"), _moments(image))


def cc(saliency: np.ndarray, density: np.ndarray) -> float:
    """Pearson's correlation of map and density over all pixels.

    In [-1, 1]: 0 is chance, higher is better; 0.0 if either is constant.

    Source: Le Meur, Le Callet and Barba, Vision Research 47(19), 2007.
    """
    image, target = _read(saliency, density)
    return _cc(image, target, _moments(image, target))


def sim(saliency: np.ndarray, density: np.ndarray, *, minmax: bool = True) -> float:
    """Similarity: the mass that the two distributions share, sum of min(p, q).

    `minmax` scales both to [0, 1] before they are divided by their sums, so that only the shape of
    the map matters. False divides them as they are; then a map must be >= 0. The result is in
    [0, 1]: chance is above 0, higher is better, 1 only for equal distributions.

    Source: Judd, Durand and Torralba, MIT technical report 2012-001.
    """
    image, target = _distributions(saliency, density, minmax)
    return _overlap(image, target, _moments(image, target))[0]


def kld(
    saliency: np.ndarray, density: np.ndarray, *, minmax: bool = True, uniform: float = 0.0
) -> float:
    """Kullback-Leibler divergence of map p from density q: sum of q log(q / p), in nats.

    Computed as q * log(q / (p + eps) + eps), eps = 2.2204e-16, which bounds it at 36. It is 0 for
    equal distributions, lower is better; chance is above 0. `minmax` is that of `sim`; False is
    for models that predict a probability.

    A sharp map is zero where somebody looked, and then eps, not the map, determines the score: each
    percent of the gaze on such pixels costs about 0.3 nats. A share `uniform` in [0, 1] of the map
    is replaced by the uniform distribution, which bounds the score at log(pixels / uniform); 0.01
    suits maps of 8 bits. No protocol does so: state it with the number.

    Source: Kullback and Leibler, Annals of Mathematical Statistics 22(1), 1951.
    """
    if not 0 <= uniform <= 1:
        raise ValueError(f"the uniform share of a map must be in [0, 1], not {uniform}")
    image, target = _distributions(saliency, density, minmax)
    return _overlap(image, target, _moments(image, target), uniform)[1]


def information_gain(
    saliency: np.ndarray, fixations: np.ndarray, prior: np.ndarray, *, uniform: float = 0.01
) -> float:
    """How much better the map predicts fixations than a prior, in bits per fixation.

    The mean over fixations of log2(p / q): p is the map (H, W), q the `prior` of the same shape,
    such as `baselines.centre_prior`; both are divided by their sums (a map with negative values
    after its minimum is subtracted). 0 is the prior itself, higher is better, and a map worse than
    the prior is below 0. A share `uniform` in (0, 1] of both is replaced by the uniform
    distribution, because a zero in p would make the score minus infinity: state it with the number.
    At 0.01, a fixation on a zero costs 6.6 bits less than in the uniform distribution.

    Source: Kuemmerer, Wallis and Bethge, PNAS 112(52), 2015.
    """
    if not 0 < uniform <= 1:
        raise ValueError(f"the uniform share of a map must be in (0, 1], not {uniform}")
    if np.shape(prior) != np.shape(saliency):
        raise ValueError(
            f"prior {np.shape(prior)} and map {np.shape(saliency)} must have one shape"
        )
    places, logs = _places(fixations, np.shape(saliency), "fixations"), []
    for image in (read_map(saliency), read_map(prior, "prior")):
        image = image if image.low < 0 else _from_zero(image)
        mass = sum(float(block.sum()) for block in image.units())
        share = (image.values[places].astype(np.float64) - image.low) * image.scale
        share, n = share / mass if mass else 1 / len(image.values), len(image.values)
        logs.append(np.log2((1 - uniform) * share + uniform / n))
    return float(np.mean(logs[0] - logs[1]))


def _distributions(saliency: np.ndarray, density: np.ndarray, minmax: bool) -> tuple[Map, Map]:
    """Map and density with their offsets: their minima, or zero without `minmax`."""
    image, target = _read(saliency, density)
    if minmax:
        return image, target
    if image.low < 0:
        raise ValueError(f"without min-max a map must be >= 0; this one reaches {image.low:g}")
    return _from_zero(image), _from_zero(target)


def _from_zero(image: Map) -> Map:
    """Divided by its maximum only, so that zero stays zero."""
    high = float(image.values.max())
    return Map(image.values, 0.0, 1 / high if high > 1e-300 else 0.0)


def score_frame(
    saliency: np.ndarray,
    fixations: np.ndarray,
    density: np.ndarray | None = None,
    negatives: np.ndarray | None = None,
) -> dict[str, float]:
    """All metrics of one frame: the same numbers as the single functions, in fewer passes.

    The keys are the names of the functions. None as density leaves out cc, sim and kld; None as
    negatives leaves out auc_shuffled. ValueError as stated in the module, or if every pixel is
    fixated.
    """
    (image, target), shape = _read(saliency, density), np.shape(saliency)
    places = _places(fixations, shape, "fixations")
    moments = _moments(image, target)
    scores = {"auc_judd": auc_against_rest(image, places)}
    if negatives is not None:
        others = image.values[_places(negatives, shape, "negatives")]
        scores["auc_shuffled"] = auc(image.values[places], others)
    scores["nss"] = _nss(image, places, moments)
    if target is not None:
        shared, divergence = _overlap(image, target, moments)
        scores |= {"cc": _cc(image, target, moments), "sim": shared, "kld": divergence}
    return scores
