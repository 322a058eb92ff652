"""Maps and annotations -> scores.

Read in this order:

    roc         areas under the ROC curve, by ranks and by thresholds
    metrics     one pure function a metric
    negatives   the fixations of all clips, from which s-AUC draws negatives
    protocols   which definition of a metric, by name
    baselines   chance, centre prior, spectral residual, one half of the observers
    maps        where the maps of a clip come from: a folder, or a baseline
    evaluate    scores clip by clip, with intervals
"""
