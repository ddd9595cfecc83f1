"""Run stage train-initial: train the study's head on the features of the frozen backbone."""

from pathlib import Path

from ctscan.core.files import publish
from ctscan.core.params import Params
from ctscan.core.seeds import configure_keras
from ctscan.core.stage import checkpoint, run_stage
from ctscan.images.manifest import image_paths, read_manifest
from ctscan.model.head import build_head
from ctscan.model.saving import save_model
from ctscan.training import phases
from ctscan.training.devices import all_devices
from ctscan.training.examples import is_blockwise
from ctscan.training.history import publish_history

import numpy as np


def train_initial(params: Params) -> None:
    """Train the study's head on the features of the frozen backbone.

    Reads split/manifest.csv and features.npy; under augmentation also the images and models/backbone.keras. Writes
    models/initial.keras, which is the head alone; plots/initial/ and metrics/initial.json.
    """
    configure_keras(params.precision)
    manifest = read_manifest()
    features = np.load("features.npy", mmap_mode="r")
    with checkpoint("train-initial") as folder, all_devices(params.batch_size):
        head = build_head(features.shape[1], params.head, params.seed)
        paths = image_paths(manifest, params.dataset)
        history = phases.train_head(head, features, manifest, paths, params, folder)
        with publish(Path("models/initial.keras")) as path:
            save_model(head, path)
            publish_history("initial", history, is_blockwise(manifest, params.augment.enabled))


if __name__ == "__main__":
    run_stage("train-initial", train_initial)
