"""Run stage finetune: train the last layers of the backbone and the head, from the best initial model on."""

from pathlib import Path

from ctscan.core.files import SCRATCH, publish
from ctscan.core.params import Params
from ctscan.core.seeds import configure_keras
from ctscan.core.stage import checkpoint, run_stage
from ctscan.images.manifest import image_paths, read_manifest
from ctscan.model.saving import load_model, save_model
from ctscan.training import phases
from ctscan.training.devices import all_devices
from ctscan.training.examples import is_blockwise
from ctscan.training.history import publish_history


def finetune(params: Params) -> None:
    """Train the last layers of the backbone and the head, from the best initial model on.

    Reads split/manifest.csv, the dataset, models/backbone.keras and models/initial.keras. Writes
    models/finetuned.keras, which is the whole network from a grey slice to the probability of the positive class;
    plots/finetune/ and metrics/finetune.json.
    """
    configure_keras(params.precision)
    manifest = read_manifest()
    with checkpoint("finetune") as folder, all_devices(params.batch_size):
        head = load_model(Path("models/initial.keras"))
        paths, activations = image_paths(manifest, params.dataset), SCRATCH / "activations"
        whole, history = phases.finetune(head, manifest, paths, params, folder, activations)
        with publish(Path("models/finetuned.keras")) as path:
            save_model(whole, path)
            publish_history("finetune", history, is_blockwise(manifest, params.augment.enabled))


if __name__ == "__main__":
    run_stage("finetune", finetune)
