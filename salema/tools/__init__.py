"""Tools apart from the study: no stage of dvc.yaml depends on them.

Read in this order:

    options     the options of the command line
    export      one step of the network as ONNX
    view        one self-contained HTML page for a video
    doctor      what this machine has, and what is missing
"""
