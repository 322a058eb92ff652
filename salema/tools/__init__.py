"""Tools around the study. Only `crossvalidate` is a stage of it.

Read in this order:

    options     the options of the command line
    trials      maps under several conditions, scored
    crossvalidate  the two arms: an average put in, and rows trained on folds
    export      one step of the network as ONNX
    view        one self-contained HTML page for a video
    doctor      what this machine has, and what is missing
"""
