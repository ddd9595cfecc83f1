"""Predict CT slices with the fine-tuned model: its calibrated probability, its call, and a notice of unlike images."""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError
from ctscan.evaluation.calibration import apply_temperature
from ctscan.inference.bundle import Evaluated
from ctscan.inference.inputs import Incoming, read

import numpy as np
import tensorflow as tf

BATCH = 32


class Prediction(NamedTuple):
    """What the model says of one slice."""

    path: Path
    name: str  # the path, with the number of the frame where there are several
    score: float  # in [0, 1], before the temperature: what thresholds are for
    probability: float  # of the positive class, calibrated, in [0, 1]
    label: str  # class at the operating point
    novelty: float
    unlike: bool  # novelty above 1: unlike the training images
    colour: bool  # the file was in colour, of which only the luma is seen


def predict(
    evaluated: Evaluated, files: Sequence[Path], point: str, min_size: int, batch: int = BATCH
) -> Iterator[Prediction | UserError]:
    """A prediction for each slice of `files`, in their order, or the fault of a file that has none.

    Files are decoded by threads a few batches ahead of the network: memory does not grow with their number. A fault
    comes as soon as it is met, so before the predictions of the batch that is being filled.
    """
    waiting: list[Incoming] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Pillow warns of damage that it can live with: the pipeline doesn't.
        warnings.filterwarnings("error", category=UserWarning, module="PIL|ctscan")
        for found in _ahead(pool, files, evaluated.size, min_size, 2 * batch):
            for one in found:
                if isinstance(one, UserError):
                    yield one
                else:
                    waiting.append(one)
            while len(waiting) >= batch:
                yield from _predict_batch(evaluated, waiting[:batch], point)
                del waiting[:batch]
        if waiting:
            yield from _predict_batch(evaluated, waiting, point)


def _ahead(
    pool: ThreadPoolExecutor, files: Sequence[Path], size: int, min_size: int, depth: int
) -> Iterator[list[Incoming | UserError]]:
    """What `files` hold, in their order, with up to `depth` files decoded or under way."""
    pending: deque[Future[list[Incoming | UserError]]] = deque()
    try:
        for path in files:
            pending.append(pool.submit(read, path, size, min_size))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _predict_batch(evaluated: Evaluated, batch: Sequence[Incoming], point: str) -> Iterator[Prediction]:
    slices = np.stack([incoming.pixels for incoming in batch])
    outputs, features = evaluated.network(tf.constant(slices[..., None]))
    scores = outputs.numpy()[:, 0].astype(float)
    reading, novelty = evaluated.reading, evaluated.notice.score(slices, features.numpy())
    names = (reading.classes.negative, reading.classes.positive)
    columns = zip(batch, scores, apply_temperature(scores, reading.temperature), novelty, strict=True)
    for incoming, score, probability, distance in columns:
        yield Prediction(
            incoming.path,
            incoming.name,
            float(score),
            float(probability),
            names[int(score >= reading.thresholds[point])],
            float(distance),
            bool(distance > 1),
            incoming.colour,
        )
