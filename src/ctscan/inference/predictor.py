"""Predict CT slices with the fine-tuned model: calibrated probability, predicted class and novelty score."""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.evaluation.calibration import apply_temperature
from ctscan.inference.bundle import ModelBundle
from ctscan.inference.inputs import Incoming, read

import numpy as np
import tensorflow as tf


class Prediction(NamedTuple):
    """What the model says about one slice."""

    path: Path
    name: str  # the path, with the number of the frame where there are several
    score: float  # in [0, 1], before the temperature: what thresholds are for
    probability: float  # of the positive class, calibrated, in [0, 1]
    label: str  # class at the operating point
    novelty: float  # the novelty score
    unfamiliar: bool  # whether the novelty score is above 1
    colour: bool  # whether the file was in colour, of which the model sees only the luma


def predict(
    bundle: ModelBundle, files: Sequence[Path], point: str, min_size: int, batch: int = INFERENCE_BATCH
) -> Iterator[Prediction | UserError]:
    """Give a prediction for each slice of `files`, in their order, and the error for each file that can't be read.

    Threads decode the files a few batches ahead of the network, so memory does not grow with the number of files. An
    error comes as soon as it is met, which is before the predictions of the batch that is being filled.
    """
    waiting: list[Incoming] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Pillow only warns of some kinds of damage, which the pipeline refuses.
        warnings.filterwarnings("error", category=UserWarning, module="PIL|ctscan")
        for found in _ahead(pool, files, bundle.size, min_size, 2 * batch):
            for one in found:
                if isinstance(one, UserError):
                    yield one
                else:
                    waiting.append(one)
            while len(waiting) >= batch:
                yield from _predict_batch(bundle, waiting[:batch], point)
                del waiting[:batch]
        if waiting:
            yield from _predict_batch(bundle, waiting, point)


def _ahead(
    pool: ThreadPoolExecutor, files: Sequence[Path], size: int, min_size: int, depth: int
) -> Iterator[list[Incoming | UserError]]:
    """Give what `files` hold, in their order, while up to `depth` files are decoded or wait to be given."""
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


def _predict_batch(bundle: ModelBundle, batch: Sequence[Incoming], point: str) -> Iterator[Prediction]:
    slices = np.stack([incoming.pixels for incoming in batch])
    outputs, features = bundle.network(tf.constant(slices[..., None]))
    scores = outputs.numpy()[:, 0].astype(float)
    evaluation = bundle.evaluation
    names = (evaluation.classes.negative, evaluation.classes.positive)
    probabilities = apply_temperature(scores, evaluation.temperature)
    novelties = bundle.detector.score(slices, features.numpy())
    for incoming, score, probability, novelty in zip(batch, scores, probabilities, novelties, strict=True):
        yield Prediction(
            incoming.path,
            incoming.name,
            float(score),
            float(probability),
            names[int(score >= evaluation.thresholds[point])],
            float(novelty),
            bool(novelty > 1),
            incoming.colour,
        )
