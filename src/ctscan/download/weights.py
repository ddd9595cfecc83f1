"""Get the ImageNet weights of the backbone in params.yaml ahead of a run, so that the run needs no network."""

import argparse

from ctscan.core.params import read_params

INTERRUPTED = "`ctscan weights` downloads the rest"  # said after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the weights can't be had."""
    params = read_params()
    # Here, as TensorFlow takes seconds that help and a faulty params.yaml can do without.
    from ctscan.model.backbone import fetch_imagenet

    folder, values = fetch_imagenet(params.backbone, params.image_size)
    print(f"{folder}: holds the ImageNet weights of {params.backbone}, whose values have the sha256 {values}")
    if params.weights != "imagenet":
        print(f"params.yaml: weights = {params.weights}; `dvc exp run -S weights=imagenet` starts from them")
    return 0
