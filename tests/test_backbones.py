"""Backbones by name: preprocessing inside, weights from where they are said to come."""

import sys
from pathlib import Path

from ctscan.backbones import build_backbone, weights_hash
from ctscan.errors import UserError

import keras
import numpy as np
import pytest

SIZE = 64


@pytest.mark.parametrize("name", ["MobileNetV2", "DenseNet121", "EfficientNetB0", "ResNet50"])
def test_the_model_holds_its_familys_preprocessing(name: str) -> None:
    backbone = build_backbone(name, "random", SIZE, seed=1)
    application = getattr(keras.applications, name)
    base = application(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    base.set_weights(backbone.get_layer("base").get_weights())
    greys = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 1)).astype("float32")
    preprocessed = sys.modules[application.__module__].preprocess_input(np.repeat(greys, 3, axis=3))
    np.testing.assert_allclose(backbone(greys), base(preprocessed), rtol=1e-3, atol=1e-4)


def test_random_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (
        weights_hash(build_backbone("MobileNetV2", "random", SIZE, seed).get_layer("base")) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("ResNet101", 16, "image_size = 16 does not fit backbone ResNet101"), ("ResNet7", 64, "backbone = 'ResNet7'")],
)
def test_an_impossible_backbone_is_one_line(name: str, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_backbone(name, "random", size, seed=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    base = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    path = tmp_path / f"mobilenet{suffix}"
    if suffix == ".h5":
        import h5py
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:  # the format in which keras.applications publishes its weights
            save_weights_to_hdf5_group(file, base)
    else:
        base.save_weights(path)
    loaded = build_backbone("MobileNetV2", str(path), SIZE, seed=1).get_layer("base")
    assert weights_hash(loaded) == weights_hash(base)


def test_wrong_weights_files_are_one_line_each(tmp_path: Path) -> None:
    other = tmp_path / "other.weights.h5"
    keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3)).save_weights(other)
    truncated = tmp_path / "truncated.weights.h5"
    truncated.write_bytes(other.read_bytes()[: other.stat().st_size // 2])
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    for path, message in [
        (other, "not the weights of EfficientNetB0"),
        (truncated, "truncated, or not the weights"),
        (text, "not a Keras weights file"),
        (tmp_path / "absent.h5", "is no file"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            build_backbone("EfficientNetB0", str(path), SIZE, seed=1)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_imagenet_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path), raising=False)
    with pytest.raises(UserError, match="weights = imagenet: the download for MobileNetV2 failed") as caught:
        build_backbone("MobileNetV2", "imagenet", 96, seed=1)
    assert "\n" not in str(caught.value)
