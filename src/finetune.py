"""Stage finetune: the last layers of the backbone and the head, from the best initial model."""

from pathlib import Path

from ctscan.core.files import SCRATCH, publish
from ctscan.core.params import Params
from ctscan.core.seeds import configure_keras
from ctscan.core.stage import checkpoint, run_stage
from ctscan.images.manifest import image_paths, read_manifest
from ctscan.model.saving import load_model, save_model
from ctscan.training.history import publish_history
from ctscan.training.phases import finetune


def recipe(params: Params) -> None:
    configure_keras(params.precision)
    manifest = read_manifest()
    head = load_model(Path("models/initial.keras"))

    with checkpoint("finetune") as folder:
        whole, history = finetune(head, manifest, image_paths(manifest), params, folder, SCRATCH / "activations")
        with publish(Path("models/finetuned.keras")) as path:
            save_model(whole, path)
            publish_history("finetune", history)


if __name__ == "__main__":
    run_stage("finetune", recipe)
