"""What `make bench` runs: one run measures everything, so that its ratios can be compared.

Read in this order.

    timing           rounds, rows of the table, the machine
    straightforward  the network as the released code runs it: frame by frame, fp32, NCHW
    scale            how much of each measurement, and the models measured
    network          the network alone: the limit of the machine, placements, widths and sizes
    video            file to PNG and to overlay; time and memory over the length of a video
    training         a training step on clips, and the share of it that waits for data
    metrics          the metrics of a frame, compared with their literal definitions
    precision        how bf16 changes the scores on the sample
    rows             ms a frame of each row of a study (a separate command)
"""
