"""A backbone holds its preprocessing and the weights that it was asked for."""

import sys

from ctscan.core.errors import UserError
from ctscan.model.backbone import build_backbone, weights_hash

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
