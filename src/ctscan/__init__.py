"""COVID vs non-COVID on chest CT slices: the library that the stage scripts share, one topic a module."""

import os

# Read by TensorFlow and Keras when they are first imported, so they are set before anything of ours can do that.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GLOG_minloglevel", "3")
