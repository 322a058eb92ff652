"""A trained model at work.

Read in this order:

    cpu         faster equivalents of the layers
    authors     the original release's checkpoints -> our models
    predictor   frames -> maps, in order and in constant memory
    sources     videos, folders, whole data sets -> files of maps
"""
