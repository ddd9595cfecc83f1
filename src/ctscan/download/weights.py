"""Fetch the ImageNet weights of the backbone in params.yaml ahead of a run, so that the run needs no network.

python src/fetch_weights.py
"""

import sys

from ctscan.core.errors import UserError
from ctscan.core.params import read_params
from ctscan.model.backbone import fetch_imagenet

from keras.src.utils import file_utils


def main() -> None:
    """Exits 1 after a `UserError`, 130 after Ctrl-C."""
    try:
        params = read_params()
        file, path = fetch_imagenet(params.backbone, params.image_size)
    except UserError as error:
        sys.exit(f"fetch-weights: {error}")
    except KeyboardInterrupt:
        print("\nfetch-weights: interrupted; Keras' cache is as it was", file=sys.stderr)
        sys.exit(130)
    checked = f"md5 {file.md5}, as Keras publishes it" if file.md5 else "Keras publishes no hash of this file"
    print(f"{path}: {path.stat().st_size} bytes, {checked}\n  sha256 {file_utils.hash_file(path)}\n  from {file.url}")
    if params.weights != "imagenet":
        print(f"params.yaml: weights = {params.weights}; `dvc exp run -S weights=imagenet` starts from this file")


if __name__ == "__main__":
    main()
