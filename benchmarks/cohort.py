"""Make a dataset of any number of slices with patients, quickly, to measure how the pipeline grows with its images.

    python benchmarks/cohort.py FOLDER --images 100000 [--size 96] [--slices 40] [--seed 0]

FOLDER then holds half of the images in each class, named as in the study's set, and groups.csv with their patients. No
two images are copies of one another: a patient is a phantom of the sample that is shifted, has a contrast, a brightness
and a coarse texture of its own, and each of its slices is a cut between those of the phantom with a texture and noise
of its own. The same arguments and library versions give the same bytes. The classes differ by the phantoms' lesions.
"""

import argparse
import csv
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.seeds import generator
from ctscan.phantoms import PATIENTS, SAMPLE_SEED, SLICES, draw_slice

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = {True: ("COVID", "Covid"), False: ("non-COVID", "Non-Covid")}  # folder and beginning of file names
MARGIN = 1 / 12  # of the size, on each side: how far a patient may be shifted
CELLS = 14  # of a texture, along each side: as fine as what a perceptual hash looks at
# Standard deviations, in grey levels. With these, no hashes of slices are so alike as those of copies.
PATIENT_TEXTURE, SLICE_TEXTURE, NOISE = 10, 8, 3

Greys = npt.NDArray[np.float32]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A large synthetic dataset, named as the study's.")
    parser.add_argument("folder", type=Path, help="must not exist")
    parser.add_argument("--images", type=int, required=True, help="in both classes together")
    parser.add_argument("--size", type=int, default=96, help="pixels")
    parser.add_argument("--slices", type=int, default=40, help="of each patient; the last one of a class has the rest")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.folder.exists():
        parser.error(f"{options.folder} is there already; name a folder that isn't")
    if options.images < 2 or options.slices < 1 or options.size < 32:
        parser.error("it needs 2 images, 1 slice and 32 pixels at least")
    make_cohort(options.folder, options.images, options.size, options.slices, options.seed)


def make_cohort(folder: Path, images: int, size: int, slices: int, seed: int) -> None:
    """Write `images` PNGs of `size` x `size` greys into `folder`, and groups.csv when all of them are there."""
    rows: list[tuple[str, str]] = []
    # Not forked: a process that has threads, as a test run with TensorFlow has, may not be.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        for positive, (place, stem) in CLASSES.items():
            (folder / place).mkdir(parents=True)
            number = images // 2 if positive else images - images // 2
            starts = range(0, number, slices)
            kinds = min(PATIENTS, len(starts))
            phantoms = list(pool.map(partial(_draw_phantom, positive=positive, size=size), range(1, kinds + 1)))
            write = partial(_write_patient, folder / place, stem, size=size, seed=seed)
            counts = [min(slices, number - start) for start in starts]
            used = (phantoms[at % kinds] for at in range(len(starts)))
            for paths, start in zip(pool.map(write, used, starts, counts, chunksize=4), starts, strict=True):
                rows += [(f"{place}/{path}", f"{stem.lower()}-{start // slices + 1}") for path in paths]
    with (folder / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "group"), *rows])


def _draw_phantom(patient: int, positive: bool, size: int) -> Greys:
    """The slices of a phantom (SLICES, s, s), where s is `size` and a margin on each side."""
    side = size + 2 * round(MARGIN * size)
    drawn = (draw_slice(patient, position, positive, SAMPLE_SEED)[0] for position in range(1, SLICES + 1))
    return np.stack([np.asarray(Image.fromarray(grey).resize((side, side)), np.float32) for grey in drawn])


def _write_patient(folder: Path, stem: str, phantom: Greys, start: int, count: int, size: int, seed: int) -> list[str]:
    """Write the images `start` + 1 to `start` + `count` of a class into `folder`; their names."""
    draw = generator(seed, "cohort", stem, start)
    top, left = draw.integers(0, phantom.shape[1] - size + 1, 2)
    cuts = phantom[:, top : top + size, left : left + size]
    at = np.linspace(0, len(cuts) - 1, count, dtype=np.float32)[:, None, None]
    below = np.minimum(at.astype(int)[:, 0, 0], len(cuts) - 2)
    images = cuts[below] + (at - below[:, None, None]) * (cuts[below + 1] - cuts[below])
    images = images * np.float32(draw.uniform(0.85, 1.15)) + np.float32(draw.uniform(-8, 8))
    images += PATIENT_TEXTURE * _texture(draw, size)
    names = []
    for number, image in enumerate(images, start=start + 1):
        image += SLICE_TEXTURE * _texture(draw, size) + NOISE * draw.standard_normal((size, size), np.float32)
        names.append(f"{stem} ({number}).png")
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / names[-1], compress_level=1)
    return names


def _texture(draw: np.random.Generator, size: int) -> Greys:
    """A smooth random field (size, size)."""
    cells = Image.fromarray(draw.standard_normal((CELLS, CELLS), np.float32))
    return np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
