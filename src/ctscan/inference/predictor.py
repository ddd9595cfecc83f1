"""Predict CT slices with the fine-tuned model: calibrated probability, predicted class and novelty score."""

import os
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.evaluation.calibration import apply_temperature
from ctscan.inference.bundle import ModelBundle, Prediction
from ctscan.inference.inputs import Incoming, read

import numpy as np
import tensorflow as tf


def predict(
    bundle: ModelBundle,
    files: Sequence[Path],
    point: str,
    min_size: int,
    batch: int = INFERENCE_BATCH,
    fill: bool = False,
) -> Iterator[tuple[Path, Prediction | UserError]]:
    """Give each file with a prediction for each of its slices, or its error where it can't be read, in their order.

    Threads decode the files a few batches ahead of the network, so memory does not grow with the number of files.

    Args:
        fill: fill the last batch up, so that a slice's figures do not depend on how many others are predicted with it.
    """
    waiting: list[tuple[Path, Incoming | UserError]] = []
    slices = 0  # of those that are waiting
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # Pillow only warns of some kinds of damage, which the pipeline refuses.
        warnings.filterwarnings("error", category=UserWarning, module="PIL|ctscan")
        for path, found in zip(files, _ahead(pool, files, bundle.size, min_size, 2 * batch), strict=True):
            for one in found:
                waiting.append((path, one))
                slices += isinstance(one, Incoming)
                if slices in (0, batch):
                    yield from _predict_batch(bundle, waiting, point, batch if fill else 0)
                    waiting, slices = [], 0
        yield from _predict_batch(bundle, waiting, point, batch if fill else 0)


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


def _predict_batch(
    bundle: ModelBundle, waiting: Sequence[tuple[Path, Incoming | UserError]], point: str, fill: int
) -> Iterator[tuple[Path, Prediction | UserError]]:
    """What is said of those that are `waiting`, whose slices make one batch, of `fill` slices at least."""
    batch = [one for _, one in waiting if isinstance(one, Incoming)]
    predictions = iter(_predictions(bundle, batch, point, fill) if batch else [])
    for path, one in waiting:
        yield path, one if isinstance(one, UserError) else next(predictions)


def _predictions(bundle: ModelBundle, batch: Sequence[Incoming], point: str, fill: int) -> Iterator[Prediction]:
    slices = np.stack([incoming.pixels for incoming in batch])
    slices = slices[np.arange(max(len(batch), fill)) % len(batch)]  # filled up by repeating it
    outputs, features = bundle.network(tf.constant(slices[..., None]))
    scores = outputs.numpy()[:, 0].astype(float)
    evaluation = bundle.evaluation
    names = (evaluation.classes.negative, evaluation.classes.positive)
    probabilities = apply_temperature(scores, evaluation.temperature)
    novelties = bundle.detector.score(slices, features.numpy())
    for incoming, score, probability, novelty in zip(batch, scores, probabilities, novelties, strict=False):
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
