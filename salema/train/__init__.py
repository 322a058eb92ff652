"""One training loop for images and clips.

Read in this order:

    windows     clips -> windows of frames and targets, augmented
    losses      BCE, BCE with an adversary, the metrics as a loss
    optimizer   which parameters train, how fast, and the learning-rate schedule
    loop        tune, finetune; epochs, steps, checkpoints
"""
