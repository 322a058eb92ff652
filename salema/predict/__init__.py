"""A trained model at work.

Read in this order:

    arrays      whole clips as arrays, for a notebook or a script
    cpu         faster equivalents of the layers
    authors     the original release's checkpoints -> our networks
    predictor   Predictor, the one path: frames -> maps, in order and in constant memory
    load        weights files -> predictors
    sources     videos, folders, whole data sets -> files of maps
"""
