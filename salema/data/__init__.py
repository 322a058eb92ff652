"""The official layouts -> clips with lazily read frames, maps and fixations.

Everything lies in `<root>/<set>/...`, as published. Read in this order:

    sets        which clips train, validate and test; where sets come from; the blur
    gaze        fixations and maps: their files, and one from the other
    clip        one clip and its readers
    listing     what lies in a folder, and what is wrong with it
    videos      DHF1K, Hollywood-2, UCF-sports, other
    images      SALICON, OSIE, NUSScene
    hevc33      HEVC33
    catalogue   a set's name -> its clips
    manifest    what is here, and what is wrong with it
    cache       frames and ground truth at the model's size, decoded once
    index       the manifest of what a profile needs
"""

from salema.data.cache import FrameCache, study_cache
from salema.data.catalogue import find, load
from salema.data.clip import Clip
from salema.data.gaze import blur, fixation_map
from salema.data.listing import Problem
from salema.data.manifest import scan, stumbles, table
from salema.data.sets import DATASETS, SPLITS, sigma

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
