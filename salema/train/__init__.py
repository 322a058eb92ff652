"""One training loop for images and clips.

Read in this order:

    windows     clips -> windows of frames and targets, augmented
    losses      BCE, BCE and adversarial, the metrics as a loss
    loop        epochs, steps, learning rates, checkpoints
"""
