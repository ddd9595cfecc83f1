"""Fetch the ImageNet weights of the backbone in params.yaml ahead of a run, so that the run needs no network.

python src/fetch_weights.py
"""

import sys

from ctscan.core.errors import UserError
from ctscan.core.params import read_params
from ctscan.model.backbone import fetch_imagenet


def main() -> None:
    """Exits 1 after a `UserError`, 130 after Ctrl-C."""
    try:
        params = read_params()
        folder, values = fetch_imagenet(params.backbone, params.image_size)
    except UserError as error:
        sys.exit(f"fetch-weights: {error}")
    except KeyboardInterrupt:
        print("\nfetch-weights: interrupted; Keras' cache is as it was", file=sys.stderr)
        sys.exit(130)
    print(f"{folder}: holds the ImageNet weights of {params.backbone}, whose values have the sha256 {values}")
    if params.weights != "imagenet":
        print(f"params.yaml: weights = {params.weights}; `dvc exp run -S weights=imagenet` starts from them")


if __name__ == "__main__":
    main()
