"""A trained model at work.

Read in this order:

    ranks       the share of the work that a process takes, under torchrun, SLURM or by hand
    arrays      whole clips as arrays, for a notebook or a script
    cpu         faster equivalents of the layers
    authors     the original release's checkpoints -> our networks
    predictor   Predictor, the one path: frames -> maps, in order and in constant memory
    load        weights files -> predictors
    sources     videos, folders, whole data sets -> files of maps
    many        lists of sources, of which any may be broken
    cluster     such lists on a Ray cluster
"""
