"""Stage finetune: the last layers of the backbone and the head, from the best initial model."""

from pathlib import Path

from ctscan.augmentation import augmented
from ctscan.boundary import boundary_cache
from ctscan.determinism import make_deterministic
from ctscan.history import publish_history
from ctscan.images import image_batches, slice_reader
from ctscan.manifest import image_paths, read_manifest, rows
from ctscan.models import load_model, save_model
from ctscan.params import Params
from ctscan.partition import classify, freeze, freeze_normalization, partition
from ctscan.stage import SCRATCH, checkpoint, publish, run_stage
from ctscan.training import compile_classifier, examples, train

import keras


def recipe(params: Params) -> None:
    make_deterministic()
    keras.config.set_dtype_policy(params.precision)
    manifest = read_manifest()
    backbone = load_model(Path("models/backbone.keras"))
    base = backbone.get_layer("base")
    head = load_model(Path("models/initial.keras"))
    trunk, frontier = partition(base, params.unfreeze_depth)
    freeze(base, params.unfreeze_depth)
    freeze_normalization(head)
    whole = keras.Model(backbone.input, classify(backbone.output, head), name="classifier")
    size = backbone.input_shape[1]
    seen = manifest.iloc[rows(manifest, "train", "val")]

    with checkpoint("finetune") as folder, boundary_cache(SCRATCH / "boundary", len(seen), frontier) as cache:
        if params.augment.enabled:
            classifier, fetch = augmented(whole, params.augment, params.seed), slice_reader(seen, size)
        elif cache is None:
            classifier, fetch = whole, slice_reader(seen, size)
        else:
            preprocessed = backbone.get_layer("preprocessing").output
            cache.fill(keras.Model(backbone.input, trunk(preprocessed)), image_batches(image_paths(seen), size))
            classifier, fetch = keras.Model(frontier, classify(base.output, head), name="tail"), cache.rows
        compile_classifier(classifier, params.finetune_lr)
        history = train(
            classifier,
            examples(seen, "train", fetch),
            examples(seen, "val", fetch),
            settings=params.finetune,
            batch_size=params.batch_size,
            seed=params.seed,
            checkpoint=folder,
        )
        with publish(Path("models/finetuned.keras")) as path:
            save_model(whole, path)
        publish_history("finetune", history, params.finetune_lr)


if __name__ == "__main__":
    run_stage("finetune", recipe)
