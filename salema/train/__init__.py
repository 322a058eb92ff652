"""One training loop for images and clips.

Read in this order:

    ranks       several processes of torchrun that train one network
    features    what a frozen encoder makes of frames, computed once
    windows     clips -> windows of frames and targets, augmented
    losses      BCE, BCE with an adversary, the metrics as a loss
    optimizer   which parameters train, how fast, and the learning-rate schedule
    checkpoints  when one is due, where it is kept, what differs from the last one
    job         what determines a training
    learner     one training under way: epochs and steps
    loop        tune, finetune
"""
