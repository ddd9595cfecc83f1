"""Run stage extract-features: compute the pooled features of every image with the frozen backbone, once."""

from pathlib import Path

from ctscan.core.files import publish, write_record
from ctscan.core.params import Params
from ctscan.core.seeds import configure_keras
from ctscan.core.stage import run_stage
from ctscan.images.batches import image_batches
from ctscan.images.manifest import SLICES, image_paths, read_manifest
from ctscan.model.backbone import build_backbone, weights_hash
from ctscan.model.forward import forward
from ctscan.model.saving import save_model

import keras
import numpy as np
from tqdm import tqdm


def extract_features(params: Params) -> None:
    """Build the backbone, and compute the pooled features of every image with it.

    Reads split/slices.csv, the dataset and, unless they are random, the weights. Writes models/backbone.keras;
    features.npy, float32 (n, d), with one row per slice; and metrics/backbone.json.
    """
    configure_keras(params.precision)
    backbone = build_backbone(params.backbone, params.weights, params.image_size, params.seed)
    pooling = keras.layers.GlobalAveragePooling2D(dtype="float32")
    pooled = forward(keras.Model(backbone.input, pooling(backbone.output)))

    paths = image_paths(read_manifest(SLICES), params.dataset)
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), backbone.output_shape[-1])}
    with publish(Path("features.npy")) as path, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        with tqdm(total=len(paths), desc="frozen backbone", unit="slice") as progress:
            for batch in image_batches(paths, params.image_size):
                file.write(pooled(batch).numpy().astype("<f4").tobytes())
                progress.update(len(batch))

    with publish(Path("models/backbone.keras")) as path:
        save_model(backbone, path)
    with publish(Path("metrics/backbone.json")) as path:
        base = backbone.get_layer("base")
        report = {
            "backbone": params.backbone,
            "weights": params.weights,
            "weights_sha256": weights_hash(base),
            "layers": len(base.layers),
            "weight_count": base.count_params(),
            "images": len(paths),
        }
        write_record(path, report)


if __name__ == "__main__":
    run_stage("extract-features", extract_features)
