"""The frozen and the trained part are the whole network, and train as it does, wherever it is cut."""

from ctscan.core.errors import UserError
from ctscan.core.params import Head
from ctscan.model.backbone import build_backbone
from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
from ctscan.model.head import build_head

import keras
import numpy as np
import pytest

SIZE = 64
BACKBONES = ["MobileNetV2", "ResNet50V2", "EfficientNetB0"]
DEPTHS = [0, 1, 7, 37, -1, None]  # -1: all layers but the input, None: all


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> keras.Model:
    return build_backbone(request.param, "random", SIZE, seed=3)


def _depth(base: keras.Model, depth: int | None) -> int:
    return len(base.layers) if depth is None else len(base.layers) - 1 if depth < 0 else depth


def _slices() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 1)).astype("float32")


def _split(backbone: keras.Model, depth: int) -> tuple[keras.Model, list[keras.KerasTensor]]:
    frozen_part, cut = cut_network(backbone.get_layer("base"), depth)
    preprocessed = backbone.get_layer("preprocessing").output
    return keras.Model(backbone.input, frozen_part(preprocessed)), cut


@pytest.mark.parametrize("depth", DEPTHS)
def test_both_parts_are_the_whole(backbone: keras.Model, depth: int | None) -> None:
    _both_parts_are_the_whole(backbone, depth)


def test_operations_that_are_no_layers_stay_where_they_stand() -> None:
    backbone = build_backbone("ConvNeXtTiny", "random", SIZE, seed=3)  # its residual additions
    assert len(backbone.get_layer("base").operations) > len(backbone.get_layer("base").layers)
    _both_parts_are_the_whole(backbone, 60)


def _both_parts_are_the_whole(backbone: keras.Model, depth: int | None) -> None:
    base = backbone.get_layer("base")
    frozen_part, cut = _split(backbone, _depth(base, depth))
    pooled = keras.layers.GlobalAveragePooling2D()(base.output)
    trained_part = keras.Model(cut, pooled)
    whole = keras.layers.GlobalAveragePooling2D()(backbone(_slices(), training=False))
    np.testing.assert_allclose(
        trained_part(frozen_part(_slices(), training=False), training=False), whole, rtol=1e-4, atol=1e-5
    )


# EfficientNet drops units at random inside its base.
@pytest.mark.parametrize(("name", "depth"), [("MobileNetV2", 0), ("MobileNetV2", None), ("ResNet50V2", 37)])
def test_one_step_on_the_trained_part_is_one_step_on_the_whole(name: str, depth: int | None) -> None:
    backbone = build_backbone(name, "random", SIZE, seed=3)
    base = backbone.get_layer("base")
    depth = _depth(base, depth)
    start = base.get_weights()
    ends = []
    for split in (False, True):
        base.set_weights(start)
        head = build_head(base.output_shape[-1], Head(units=8, l2=0.01, dropout=0.0), seed=5)
        # Away from zero, where rounding would decide which units a ReLU lets through.
        head.get_layer("hidden").bias.assign(np.linspace(-1, 1, 8))
        freeze(base, depth)
        freeze_normalization(head)
        frozen_part, cut = _split(backbone, depth)
        model = (
            keras.Model(cut, classify(base.output, head))
            if split
            else keras.Model(backbone.input, classify(backbone.output, head))
        )
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
        inputs = frozen_part.predict_on_batch(_slices()) if split else _slices()
        model.train_on_batch(inputs, np.array([0.0, 1.0, 1.0, 0.0]))
        ends.append(base.get_weights() + head.get_weights())
    changed = sum(not np.array_equal(old, new) for old, new in zip(start, ends[0], strict=False))
    assert bool(changed) == (depth > 1)
    for whole, parts in zip(*ends, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-5)


def test_the_cut_through_a_residual_block_of_the_studys_network() -> None:
    base = build_backbone("ResNet101V2", "random", SIZE, seed=3).get_layer("base")
    _, cut = cut_network(base, 150)
    assert base.layers[-150].name == "conv4_block13_2_relu"
    assert [tensor.shape[-1] for tensor in cut] == [256, 1024]
    assert sum(layer.count_params() for layer in base.layers[-150:]) == pytest.approx(26.4e6, rel=0.01)


@pytest.mark.parametrize("depth", [-1, 155, 10_000])
def test_a_depth_beyond_the_network_names_key_value_and_range(depth: int) -> None:
    base = build_backbone("MobileNetV2", "random", SIZE, seed=3).get_layer("base")
    with pytest.raises(UserError, match=rf"unfreeze_depth = {depth}; .* >= 0 and <= 154"):
        cut_network(base, depth)


def test_normalization_keeps_its_statistics_in_training() -> None:
    backbone = build_backbone("MobileNetV2", "random", SIZE, seed=3)
    base = backbone.get_layer("base")
    head = build_head(base.output_shape[-1], Head(units=8, l2=0.0, dropout=0.0), seed=5)
    freeze(base, 60)
    freeze_normalization(head)
    model = keras.Model(backbone.input, classify(backbone.output, head))
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    normalizations = [layer for part in (base, head) for layer in part.layers if _is_normalization(layer)]
    before = [weights for layer in normalizations for weights in layer.get_weights()]
    kernels = base.layers[-3].get_weights()
    model.fit(_slices(), np.array([0.0, 1.0, 1.0, 0.0]), epochs=2, verbose=0)
    after = [weights for layer in normalizations for weights in layer.get_weights()]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    assert not np.array_equal(kernels[0], base.layers[-3].get_weights()[0])


@pytest.mark.parametrize("normalization", ["frozen", "trained"])
def test_normalization_is_trained_where_asked_and_only_in_the_trained_part(normalization: str) -> None:
    base = build_backbone("MobileNetV2", "random", SIZE, seed=3).get_layer("base")
    freeze(base, 60, normalization)
    model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    layers = [(at < len(base.layers) - 60, layer) for at, layer in enumerate(base.layers) if _is_normalization(layer)]
    before = [layer.get_weights() for _, layer in layers]
    model.fit(np.repeat(_slices(), 3, axis=-1), np.array([0.0, 1.0, 1.0, 0.0]), verbose=0)
    for (in_frozen_part, layer), old in zip(layers, before, strict=True):
        kept = all(np.array_equal(*pair) for pair in zip(old, layer.get_weights(), strict=True))
        assert kept == (in_frozen_part or normalization == "frozen"), layer.name


def _is_normalization(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)
