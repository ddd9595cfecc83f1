"""Train a model for one phase, with early stopping on the validation loss, so that a killed run can continue.

The checkpoints are our own and not those of Keras' BackupAndRestore, because that callback restores the model and the
epoch but not what EarlyStopping remembers (the best loss so far, its epoch and its weights): a continued run would stop
later and could end with other weights. Here the checkpoint holds the history of all epochs, from which alone it
follows when to stop and which epoch is best, so a continued run ends in the same bits as one that was never killed.
"""

import json
import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError, writing
from ctscan.core.params import Training
from ctscan.core.seeds import derive_seed
from ctscan.training.devices import device_count, synchronized_normalization
from ctscan.training.examples import Examples
from ctscan.training.optimizer import FusedRMSprop

import keras
import numpy as np
from tqdm import tqdm

Record = dict[str, float]
Arrays = list[np.ndarray]


def compile_classifier(
    model: keras.Model,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    steps_per_execution: int = 1,
) -> None:
    """RMSprop on the binary cross-entropy, the study's optimiser, with accuracy at 0.5 and ROC AUC.

    Args:
        steps_per_execution: how many steps TensorFlow takes before it goes back to Python, which costs a millisecond.
            On several devices it is 1, because Keras 3.15 fails with more there.
    """
    model.compile(
        FusedRMSprop(learning_rate),
        loss=keras.losses.BinaryCrossentropy(),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        steps_per_execution=steps_per_execution if device_count() == 1 else 1,
    )


def best_epoch(history: list[Record]) -> int:
    """The epoch, from 0, of the lowest validation loss; the earliest of equals."""
    return min(range(len(history)), key=lambda epoch: history[epoch]["val_loss"])


def train(
    model: keras.Model,
    training: Examples,
    validation: Examples,
    settings: Training,
    batch_size: int,
    seed: int,
    checkpoint: Path,
) -> list[Record]:
    """Train a compiled `model` until the validation loss has not fallen for `settings.patience` epochs.

    The model ends with the weights of its best epoch. After each epoch, everything that the next one depends on is
    written to the folder `checkpoint` while the next one is trained. Where a killed run has left such a folder,
    training continues from it and ends in the same bits.

    Returns:
        One record per epoch: loss, accuracy, auc and time in seconds, of training and (`val_`) of validation, and the
        learning rate `lr` at its start.

    Raises:
        UserError: the loss is no longer a number, or `checkpoint` can't be written to; what it held before stays whole.
    """
    with ThreadPoolExecutor(max_workers=1) as writer:  # at its end, also after an error, it finishes what it has begun
        state = _Checkpoint(model, checkpoint, writer)
        history = state.restore()
        start = len(history)
        if start:
            print(f"continuing after epoch {start}, from {checkpoint}")
        if start < settings.epochs and not _finished(history, settings.patience):
            steps = training.steps(batch_size)
            with synchronized_normalization(model):
                model.fit(
                    training.shuffled(batch_size, seed, range(start, settings.epochs)),
                    validation_data=validation.ordered(batch_size),
                    initial_epoch=start,
                    epochs=settings.epochs,
                    shuffle=False,  # the dataset comes in the order of each epoch
                    steps_per_epoch=steps,
                    verbose=0,
                    callbacks=[_Epochs(history, state, settings, steps, seed)],
                )
        state.load_best(best_epoch(history))
    return history


def _finished(history: list[Record], patience: int) -> bool:
    return bool(history) and len(history) - 1 - best_epoch(history) >= patience


class _Epochs(keras.callbacks.Callback):
    """Seeds and records each epoch, saves the checkpoint, stops early and shows the progress."""

    def __init__(self, history: list[Record], state: "_Checkpoint", settings: Training, steps: int, seed: int) -> None:
        super().__init__()
        self.history, self.state, self.patience, self.steps, self.seed = history, state, settings.patience, steps, seed
        self.progress = tqdm(
            total=settings.epochs * steps, initial=len(history) * steps, desc="training", unit="step", mininterval=0.5
        )

    def on_epoch_begin(self, epoch: int, logs: Record | None = None) -> None:
        self.started = time.monotonic()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.rate = float(f"{rate:.7g}")  # the digits that float32 holds
        for index, source in enumerate(_seed_generators(self.model)):
            source.state.assign([derive_seed(self.seed, "epoch", epoch, index), 0])

    def on_test_begin(self, logs: Record | None = None) -> None:
        self.validating = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Record | None = None) -> None:
        self.progress.update(len(self.history) * self.steps + batch + 1 - self.progress.n)

    def on_epoch_end(self, epoch: int, logs: Record | None = None) -> None:
        record = {name: float(value) for name, value in sorted((logs or {}).items())}
        record["time"] = self.validating - self.started
        record["lr"] = self.rate
        record["val_time"] = time.monotonic() - self.validating
        if not all(map(math.isfinite, record.values())):
            raise UserError(
                f"training diverged in epoch {epoch + 1} (loss {record['loss']}); try a lower learning rate"
            )
        self.history.append(record)
        self.state.save(self.history)
        self.model.stop_training = _finished(self.history, self.patience)
        best = best_epoch(self.history) + 1
        self.progress.set_postfix_str(
            f"epoch {epoch + 1}: val loss {record['val_loss']:.4f}, val AUC {record['val_auc']:.4f}, best {best}"
        )

    def on_train_end(self, logs: Record | None = None) -> None:
        self.progress.close()


def _seed_generators(model: keras.Model) -> list[keras.random.SeedGenerator]:
    return [
        layer.seed_generator for layer in model._flatten_layers() if getattr(layer, "seed_generator", None) is not None
    ]


class _Checkpoint:
    """The folder that holds the state between epochs: `last` (weights, optimiser, history) and `best` (weights).

    `save` copies the state at once and has it written by the thread of `writer`, while training goes on. An error in
    that thread is raised by the next call.
    """

    def __init__(self, model: keras.Model, folder: Path, writer: ThreadPoolExecutor) -> None:
        self.model, self.folder, self.writer = model, folder, writer
        self.pending: Future[None] | None = None

    @property
    def weights(self) -> list[keras.Variable]:
        """What training changes: the trained weights, and the statistics of layers that are not frozen."""
        frozen = {id(v) for layer in self.model._flatten_layers() if not layer.trainable for v in layer.variables}
        return [variable for variable in self.model.variables if id(variable) not in frozen]

    def save(self, history: list[Record]) -> None:
        self.finish()
        self.model.optimizer.build(self.model.trainable_variables)
        weights, optimizer = _copies(self.weights), _copies(self.model.optimizer.variables)
        self.pending = self.writer.submit(self._write, history.copy(), weights, optimizer)

    def finish(self) -> None:
        """Wait until the last state is written."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def _write(self, history: list[Record], weights: Arrays, optimizer: Arrays) -> None:
        best = self.folder / f"best-{best_epoch(history)}.npz"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if best_epoch(history) == len(history) - 1:
                _save_arrays(best, weights)
            _save_arrays(self.folder / "last.npz", weights + optimizer, json.dumps(history))
            for stale in self.folder.glob("best-*.npz"):
                if stale != best:
                    stale.unlink()

    def restore(self) -> list[Record]:
        path = self.folder / "last.npz"
        if not path.exists():
            return []
        self.model.optimizer.build(self.model.trainable_variables)
        with np.load(path) as arrays:
            _assign(self.weights + self.model.optimizer.variables, arrays)
            history: list[Record] = json.loads(str(arrays["history"]))
        return history

    def load_best(self, epoch: int) -> None:
        self.finish()
        with np.load(self.folder / f"best-{epoch}.npz") as arrays:
            _assign(self.weights, arrays)


def _copies(variables: list[keras.Variable]) -> Arrays:
    return [np.array(variable) for variable in variables]


def _save_arrays(path: Path, values: Arrays, history: str = "") -> None:
    fresh = path.with_suffix(".fresh")
    with fresh.open("wb") as stream:
        arrays: dict[str, Any] = {str(index): value for index, value in enumerate(values)}
        np.savez(stream, history=np.array(history), **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _assign(variables: list[keras.Variable], arrays: dict[str, np.ndarray]) -> None:
    for index, variable in enumerate(variables):
        variable.assign(arrays[str(index)])
