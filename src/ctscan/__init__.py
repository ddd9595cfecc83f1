"""Classify chest CT slices as COVID or non-COVID: the library that the stages and the commands share.

Imports only go down: `core` (parameters, errors, random numbers, files) is below `images` (decode and read slices),
`model` (the network) and `phantoms` (draw synthetic slices). These are below `split`, `training`, `evaluation` and
`download`, and those below `inference` (use the model) and `experiments` (compare runs). Packages of one level do not
import each other. No stage imports `download`, `inference` or `experiments`.
"""

import gc
import os
import sys

from ctscan.core.tensorflow_messages import QuietTensorFlow

# TensorFlow and Keras read these when they are first imported, so ctscan has to be imported before them.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.meta_path.insert(0, QuietTensorFlow())

# TensorFlow and a network are half a million objects that stay. Python would look for garbage among all of them several
# times while they are made, which takes a second a stage; with this limit it does so seldom.
gc.set_threshold(50_000)
