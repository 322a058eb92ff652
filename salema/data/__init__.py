"""The official layouts -> clips with lazily read frames, maps and fixations.

Every set is in `<root>/<set>/...`, as published. Read in this order:

    sets        one row of facts per data set: source, splits, numbers, kind
    gaze        fixations and maps: their files, and one from the other
    clip        one clip and its readers
    listing     what a folder holds, and what is wrong with it
    images      SALICON, OSIE, Crowd, NUSScene
    videos      DHF1K, Hollywood-2, UCF-sports, HEVC33, other
    challenge   NTIRE26, AViMoS
    manifest    the name of a set -> its clips; whether the study can run on them
    cache       frames and ground truth at the model's size, decoded once
"""

from salema.data.cache import FrameCache, study_cache
from salema.data.clip import Clip, is_image
from salema.data.gaze import blur, sigma
from salema.data.manifest import find, folds, load, scan
from salema.data.sets import DATASETS, SETS

__all__ = ["DATASETS", "SETS", "Clip", "FrameCache", "blur", "find", "folds", "is_image", "load"]
__all__ += ["scan", "sigma", "study_cache"]
