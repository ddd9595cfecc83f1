"""Stage train-initial: the study's head, on the features of the frozen backbone."""

from pathlib import Path

from ctscan.core.files import publish
from ctscan.core.params import Params
from ctscan.core.seeds import configure_keras
from ctscan.core.stage import checkpoint, run_stage
from ctscan.images.manifest import image_paths, read_manifest
from ctscan.model.head import build_head
from ctscan.model.saving import save_model
from ctscan.training.history import publish_history
from ctscan.training.phases import train_head

import numpy as np


def recipe(params: Params) -> None:
    configure_keras(params.precision)
    manifest = read_manifest()
    features = np.load("features.npy")
    head = build_head(features.shape[1], params.head, params.seed)

    with checkpoint("train-initial") as folder:
        history = train_head(head, features, manifest, image_paths(manifest), params, folder)
        with publish(Path("models/initial.keras")) as path:
            save_model(head, path)
            publish_history("initial", history)


if __name__ == "__main__":
    run_stage("train-initial", recipe)
