"""Frames to maps: the literal transcription first, then what must not change a map, then errors."""

import cv2
import numpy as np
import oracle
import pytest
import torch

from salema import params, writers
from salema.files import SalemaError
from salema.model import PLACEMENTS, SaliencyModel, State
from salema.params import Model, Placement

SETTINGS = params.read()
STUDIED = {"static": PLACEMENTS["static"], **SETTINGS.placements}
SMALL = Model(size=[80, 112], width=0.125)
