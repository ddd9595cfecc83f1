"""Training stops early, keeps the best epoch, and ends in the same bits after a kill."""

import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import Head, Training
from ctscan.model.head import build_head
from ctscan.training import loop
from ctscan.training.examples import Examples
from ctscan.training.loop import best_epoch, compile_classifier, train
from ctscan.training.optimizer import FusedRMSprop

import keras
import numpy as np
import pytest
import tensorflow as tf

HEAD = Head(units=16, l2=0.001, dropout=0.5)
COUNT, BATCH = 50, 8


def _examples(seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    labels = np.arange(COUNT) % 2
    features = tf.constant((rng.normal(size=(COUNT, 6)) + labels[:, None]).astype("float32"))
    return Examples(np.arange(COUNT), labels, lambda positions: tf.gather(features, positions))


def _run(
    checkpoint: Path, epochs: int = 6, patience: int = 100, lr: float = 0.01, steps_per_execution: int = 1
) -> tuple[keras.Model, list]:
    head = build_head(6, HEAD, seed=1)
    model = keras.Model(head.inputs, head(head.inputs[0]))
    compile_classifier(model, lr, steps_per_execution)
    settings = Training(epochs=epochs, patience=patience)
    history = train(model, _examples(0), _examples(1), settings, BATCH, seed=2, checkpoint=checkpoint)
    assert all(record["time"] > 0 and record["val_time"] > 0 for record in history)
    return model, [{name: record[name] for name in record if "time" not in name} for record in history]


def _bits(model: keras.Model) -> list[bytes]:
    return [weights.tobytes() for weights in model.get_weights()]


def test_the_model_ends_with_the_weights_of_its_best_epoch(tmp_path: Path) -> None:
    model, history = _run(tmp_path, epochs=12, lr=0.1)
    best = best_epoch(history)
    assert best < len(history) - 1, "the learning rate is meant to overshoot"
    loss = model.evaluate(_examples(1).ordered(BATCH), verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(min(record["val_loss"] for record in history), rel=1e-5)


def test_training_stops_when_patience_runs_out(tmp_path: Path) -> None:
    _, history = _run(tmp_path, epochs=60, patience=3, lr=0.1)
    assert len(history) < 60
    assert len(history) - 1 - best_epoch(history) == 3


def test_divergence_is_one_line_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    _run(tmp_path, epochs=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    head = build_head(6, HEAD, seed=1)
    model = keras.Model(head.inputs, head(head.inputs[0]))
    compile_classifier(model, 0.01)
    spoilt = Examples(np.arange(COUNT), np.arange(COUNT) % 2, lambda positions: tf.fill((len(positions), 6), np.nan))
    with pytest.raises(UserError, match=r"diverged in epoch 2 .* lower learning rate"):
        train(model, spoilt, _examples(1), Training(epochs=3, patience=3), BATCH, seed=2, checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_ties_go_to_the_earliest_epoch() -> None:
    assert best_epoch([{"val_loss": loss} for loss in (3.0, 1.0, 2.0, 1.0)]) == 1


class Killed(Exception):  # noqa: N818
    """Stands for a kill at that moment."""


@pytest.mark.parametrize(
    ("moment", "epoch"), [("training", 1), ("training", 4), ("writing best", 3), ("writing last", 1), ("renaming", 3)]
)
def test_a_run_killed_at_any_moment_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, epoch: int
) -> None:
    model, history = _run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        _kill(patch, epoch, moment)
        with pytest.raises(Killed):
            _run(tmp_path / "killed")
    resumed, continued = _run(tmp_path / "killed")
    assert continued == history
    assert _bits(resumed) == _bits(model)


def _kill(patch: pytest.MonkeyPatch, epoch: int, moment: str) -> None:
    if moment == "training":
        patch.setattr(loop._Epochs, "on_train_batch_end", _at(3 + 7 * epoch, loop._Epochs.on_train_batch_end))
        return
    name = {"writing best": "best", "writing last": "last", "renaming": "last"}[moment]
    written = loop._save_arrays
    seen = 0

    def write(path: Path, variables: list, history: str = "") -> None:
        nonlocal seen
        seen += path.name.startswith(name)
        if seen <= epoch:
            written(path, variables, history)
        elif moment == "renaming":
            path.with_suffix(".fresh").write_bytes(b"all there, not yet in place")
            raise Killed
        else:
            path.with_suffix(".fresh").write_bytes(b"half a file")
            raise Killed

    patch.setattr(loop, "_save_arrays", write)


def _at(call: int, function: Callable) -> Callable:
    calls = 0

    def killing(*arguments: object, **keywords: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return function(*arguments, **keywords)

    return killing


def test_a_checkpoint_is_written_beside_the_next_epoch_and_holds_the_end_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, history = _run(tmp_path / "whole")
    trained_on = threading.Event()
    beside = []
    shown, written = loop._Epochs.on_train_batch_end, loop._save_arrays

    def step(self: loop._Epochs, batch: int, logs: Any = None) -> None:
        shown(self, batch, logs)
        if self.history and batch == 2:
            trained_on.set()
            raise Killed

    def write(*arguments: Any) -> None:
        beside.append(trained_on.wait(timeout=60))
        written(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Epochs, "on_train_batch_end", step)
        patch.setattr(loop, "_save_arrays", write)
        _run(tmp_path / "killed")
    assert beside == [True, True]
    resumed, continued = _run(tmp_path / "killed")
    assert continued == history
    assert _bits(resumed) == _bits(model)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, history = _run(tmp_path / "whole")
    folder = tmp_path / "full"
    _run(folder, epochs=2)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    written = loop._save_arrays

    def refused(*arguments: Any) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
        try:
            written(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    saved = loop._Checkpoint.save

    def save(self: loop._Checkpoint, history: list) -> None:
        saved(self, history)
        self.finish()  # the limit is the whole process': nothing else may write meanwhile

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"full: .*; .* and run again"):
        patch.setattr(loop, "_save_arrays", refused)
        patch.setattr(loop._Checkpoint, "save", save)
        _run(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".npz"} == before
    resumed, continued = _run(folder)
    assert continued == history
    assert _bits(resumed) == _bits(model)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, history = _run(tmp_path, epochs=60, patience=3, lr=0.1)
    monkeypatch.setattr(keras.Model, "fit", None)
    again, same = _run(tmp_path, epochs=60, patience=3, lr=0.1)
    assert same == history
    assert _bits(again) == _bits(model)


def test_resuming_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path, epochs=2)
    _run(tmp_path, epochs=3)
    assert "continuing after epoch 2" in capsys.readouterr().out


def test_the_fused_optimiser_is_keras_own_rmsprop() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(40, 30)).astype("float32")
    gradients = [(10.0 ** rng.integers(-6, 2)) * rng.normal(size=start.shape).astype("float32") for _ in range(30)]
    ends = []
    for optimizer in (FusedRMSprop(1e-2), keras.optimizers.RMSprop(1e-2)):
        weights = keras.Variable(start)
        for gradient in gradients:
            optimizer.apply([tf.constant(gradient)], [weights])
        ends.append(np.asarray(weights))
    assert np.abs(ends[1] - start).max() > 0.1
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-5, atol=1e-6)


def test_steps_without_a_stop_between_them_train_the_same(tmp_path: Path) -> None:
    model, history = _run(tmp_path / "step by step")
    together, same = _run(tmp_path / "by epochs", steps_per_execution=-(-COUNT // BATCH))
    assert same == history
    assert _bits(together) == _bits(model)
