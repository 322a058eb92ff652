"""The official layouts -> clips with lazily read frames, maps and fixations.

Everything lies in `<root>/<set>/...`, as published. Read in this order:

    splits      which clips train, validate and test; where sets come from; the blur
    gaze        fixations and maps: their files, and one from the other
    clip        one clip and its readers
    listing     what lies in a folder, and what is wrong with it
    shots       DHF1K, Hollywood-2, UCF-sports, other
    stills      SALICON, OSIE, NUSScene
    hevc33      HEVC33
    catalogue   a set's name -> its clips
    index       the manifest and the check of what is here
    cache       frames and ground truth at the model's size, decoded once
"""

from salema.datasets.cache import FrameCache, study_cache
from salema.datasets.catalogue import find, load
from salema.datasets.clip import Clip
from salema.datasets.gaze import blur, fixation_map
from salema.datasets.index import scan, stumbles, table
from salema.datasets.listing import Problem
from salema.datasets.splits import DATASETS, SPLITS, sigma

__all__ = [
    "DATASETS",
    "SPLITS",
    "Clip",
    "FrameCache",
    "Problem",
    "blur",
    "find",
    "fixation_map",
    "load",
    "scan",
    "sigma",
    "study_cache",
    "stumbles",
    "table",
]
