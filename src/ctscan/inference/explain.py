"""Draw what in a slice speaks for the class that the fine-tuned model calls it (Grad-CAM), or measure such maps.

The score explained is the logit of the predicted class: of the negative class it is minus the logit. A map shows what
speaks for the class in this slice more than in the mean training slice, so the training images of split/manifest.csv
have to be there. A pretty map is no evidence: metrics/details.json (`saliency`) says how alike the maps of random
networks are, and --phantoms how much of the maps lies in the lungs. For research only, not for diagnosis.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctscan.core.errors import UserError, writing
from ctscan.core.files import require
from ctscan.core.params import Params, read_params
from ctscan.images.decode import load_slice, resize
from ctscan.images.manifest import MANIFEST, image_paths, read_manifest, rows
from ctscan.inference.inputs import find, read

import numpy as np
from PIL import Image
from tqdm import tqdm

if TYPE_CHECKING:  # TensorFlow takes seconds, help should not
    import keras

MOST_PHANTOMS = 120  # of a class: 30 pseudo-patients of 4 slices
MODEL = Path("models/finetuned.keras")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files, folders and globs, as for predict")
    parser.add_argument("--layer", help="of the backbone; default: its last feature maps")
    parser.add_argument("--output", type=Path, default=Path("explanations"), help="folder of a PNG for each slice")
    parser.add_argument("--model", type=Path, default=MODEL, help=f"default: {MODEL}")
    parser.add_argument(
        "--phantoms",
        type=int,
        metavar="N",
        help="instead of files: N synthetic slices of each class, of unseen pseudo-patients whose lungs are known; "
        "prints the share of the maps that lies in them, as JSON",
    )


def run(arguments: argparse.Namespace) -> int:
    """0, or 1 where a file could not be explained. Raises `UserError`."""
    if (arguments.phantoms is None) == (not arguments.paths):
        raise UserError("it needs image files, or --phantoms N")
    if arguments.phantoms is not None and not 1 <= arguments.phantoms <= MOST_PHANTOMS:
        raise UserError(f"--phantoms {arguments.phantoms}; it needs 1 to {MOST_PHANTOMS}")
    params = read_params()

    from ctscan.core.seeds import make_deterministic
    from ctscan.model.saving import load_model

    make_deterministic()
    model = load_model(arguments.model.expanduser())
    if arguments.phantoms is not None:
        print(json.dumps(_measure(model, arguments.layer, arguments.phantoms, params), indent=2))
        return 0
    return _draw(model, arguments.layer, arguments.paths, arguments.output.expanduser(), params)


def _draw(model: "keras.Model", layer: str | None, paths: list[str], output: Path, params: Params) -> int:
    from ctscan.evaluation.figures import draw_saliency
    from ctscan.evaluation.gradcam import GradCam, enlarge

    cam, size, threshold = GradCam(model, layer), model.input_shape[1], params.evaluate.threshold
    training = _training_slices(params, size)
    cam.compare_with(training)
    with writing(output):
        try:
            output.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"--output {output}: a file is in the way; name a folder") from None
    faults: list[str] = []
    found = find(paths, faults)
    for line in (*faults, *found.passed_over()):
        print(f"explain: {line}", file=sys.stderr)
    taken: Counter[str] = Counter()
    for path in tqdm(found.files, desc="maps", unit="file"):
        for incoming in read(path, size, params.checks.min_size):
            if isinstance(incoming, UserError):
                tqdm.write(f"explain: {incoming}", file=sys.stderr)
                faults.append(str(incoming))
                continue
            probabilities, maps = cam.explain(incoming.pixels[None, ..., None], threshold)
            called = params.classes.positive if probabilities[0] >= threshold else params.classes.negative
            title = f"{Path(incoming.name).name}\n{params.classes.positive} {probabilities[0]:.4f}: called {called}"
            with writing(output):
                target = output / _name(Path(incoming.name), taken)
                draw_saliency(target, incoming.pixels[None], enlarge(maps, size), [title], columns=1)
    print(
        f"{sum(taken.values())} slices drawn in {output}, at {cam.layer}, for the logit of the predicted class, "
        f"against the mean of {len(training)} training slices of {params.dataset}/; {len(faults)} left out"
    )
    return 1 if faults else 0


def _training_slices(params: Params, size: int) -> np.ndarray:
    """Training slices uint8 (n, size, size, 1) as the maps' reference. Raises `UserError` where they are missing."""
    from ctscan.evaluation.gradcam import reference_rows

    require(MANIFEST)
    manifest = read_manifest()
    train = manifest.iloc[rows(manifest, "train")]
    paths = image_paths(train.iloc[reference_rows(len(train))], params.dataset)
    return np.stack([load_slice(path, size) for path in paths])[..., None]


def _name(path: Path, taken: Counter[str]) -> str:
    """A PNG's name: the folder and stem of `path`, and a number where that is taken."""
    name = "_".join(part for part in (path.parent.name, path.stem) if part)
    taken[name] += 1
    return f"{name}.png" if taken[name] == 1 else f"{name}_{taken[name]}.png"


def _measure(model: "keras.Model", layer: str | None, count: int, params: Params) -> dict[str, Any]:
    """The share of the maps of the network and of `randomised` ones inside the lungs, beside the lungs' area."""
    from ctscan.evaluation.gradcam import GradCam, enlarge, randomised, share_inside
    from ctscan.phantoms import PATIENTS, SAMPLE_SEED, draw_slice

    size, threshold = model.input_shape[1], params.evaluate.threshold
    unseen = SAMPLE_SEED + 1  # pseudo-patients that no training set holds
    wanted = [(positive, index) for positive in (True, False) for index in range(count)]
    slices, masks = [], []
    for positive, index in tqdm(wanted, desc="phantoms", unit="slice"):
        grey, lungs = draw_slice(index % PATIENTS + 1, index // PATIENTS + 1, positive, unseen)
        slices.append(resize(grey, size)[..., None])
        masks.append(
            np.asarray(Image.fromarray(lungs.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))
        )
    images, inside = np.stack(slices), np.stack(masks)

    cam, training = GradCam(model, layer), _training_slices(params, size)
    cam.compare_with(training)
    trained = cam.explain(images, threshold)
    called = trained.probabilities >= threshold
    labels = np.array([positive for positive, _ in wanted])
    shares = {"trained": share_inside(enlarge(trained.maps, size), inside)}
    for level in tqdm(randomised(cam, params.seed), desc="maps of random weights", total=2, unit="network"):
        cam.compare_with(training)
        maps = cam.explain(images, threshold, called).maps
        shares[level] = share_inside(enlarge(maps, size), inside)
    return {
        "layer": cam.layer,
        "resolution": list(trained.maps.shape[1:]),
        "slices": len(images),
        "accuracy": float((called == labels).mean()),
        "lungs_share_of_area": float(inside.mean()),
        "share_of_map_in_lungs": {level: _summary(values) for level, values in shares.items()},
    }


def _summary(shares: np.ndarray) -> dict[str, Any]:
    """Mean and sd over slices whose map is not 0 everywhere; `blank` counts the others."""
    known = shares[~np.isnan(shares)]
    if not len(known):
        return {"mean": None, "sd": None, "blank": len(shares)}
    return {"mean": float(known.mean()), "sd": float(known.std()), "blank": len(shares) - len(known)}
