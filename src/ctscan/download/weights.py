"""Fetch the ImageNet weights of the backbone in params.yaml ahead of a run, so that the run needs no network.

ctscan weights
"""

import argparse

from ctscan.core.params import read_params

INTERRUPTED = "Keras' cache is as it was"  # said after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the weights can't be had."""
    params = read_params()
    # Here, as TensorFlow takes seconds that help and a faulty params.yaml can do without.
    from ctscan.model.backbone import fetch_imagenet

    from keras.src.utils import file_utils

    file, path = fetch_imagenet(params.backbone, params.image_size)
    checked = f"md5 {file.md5}, as Keras publishes it" if file.md5 else "Keras publishes no hash of this file"
    print(f"{path}: {path.stat().st_size} bytes, {checked}\n  sha256 {file_utils.hash_file(path)}\n  from {file.url}")
    if params.weights != "imagenet":
        print(f"params.yaml: weights = {params.weights}; `dvc exp run -S weights=imagenet` starts from this file")
    return 0
