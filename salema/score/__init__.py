"""Maps and annotations -> scores.

Read in this order:

    roc         areas under the ROC curve, by ranks and by thresholds
    metrics     one pure function per metric
    negatives   the fixations that s-AUC compares with, drawn from the other clips
    protocols   the definitions of the metrics, by name
    statistics  means with intervals, and tests of differences; groups of clips
    baselines   chance, centre prior, spectral residual, one half of the observers
    maps        the maps of a clip: from a folder, or of a baseline
    controls    what of a memory's gain is smoothing, delay or less noise
    tables      tables of scores, written and read
    evaluate    scores clip by clip, the study
"""
