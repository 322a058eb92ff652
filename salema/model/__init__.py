"""The network, and nothing that only inference needs.

Read in this order:

    placements      the well-known placements by name
    recurrence      EMA and ConvLSTM over time
    layers          the 62 layers, and the branches they train with
    efficientnet    EfficientNet-Lite0, 1 or 2 in place of the encoder
    network         the layers with a placement: frames and a state -> maps and a state
    device          the device and the precision
    weights         weights files of ours, and the clips they were trained on
"""
