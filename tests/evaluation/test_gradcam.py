"""Grad-CAM follows its definition for any network, whatever was frozen, and its checks can tell maps apart."""

from ctscan.core.errors import UserError
from ctscan.core.params import Head
from ctscan.evaluation.gradcam import (
    GradCam,
    choose_examples,
    enlarge,
    randomised,
    sanity_check,
    share_inside,
    similarity,
)
from ctscan.model.backbone import build_backbone
from ctscan.model.freezing import classify, freeze
from ctscan.model.head import build_head

import keras
import numpy as np
import pytest
from networks import SIZE, tiny_network
from scipy.special import logit


def _slices(count: int = 5, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 1), dtype=np.uint8)


def test_maps_are_as_defined() -> None:
    model = tiny_network()
    base, head = model.get_layer("base"), model.get_layer("head")
    head.get_layer("hidden").bias.assign(np.linspace(-1, 1, 8))  # away from the kink of the ReLU
    features = np.asarray(base(np.repeat(_slices() / 127.5 - 1, 3, -1)))
    pooled = features.mean((1, 2))

    def score(values: np.ndarray) -> np.ndarray:
        return np.asarray(logit(np.asarray(head(values, training=False), float)[:, 0]))

    step = 1e-3
    slopes = np.stack([score(pooled + step * way) - score(pooled - step * way) for way in np.eye(3)], -1) / (2 * step)
    weighted = np.einsum("nhwd,nd->nhw", features, slopes) / features[0, ..., 0].size
    called = score(pooled) >= 0
    expected = np.maximum(np.where(called, 1, -1)[:, None, None] * weighted, 0)

    result = GradCam(model).explain(_slices(), 0.5)
    np.testing.assert_allclose(result.probabilities, model.predict_on_batch(_slices())[:, 0], rtol=1e-5)
    np.testing.assert_allclose(result.maps, expected, atol=2e-2 * np.abs(weighted).max())
    other = GradCam(model).explain(_slices(), 0.5, ~called)
    np.testing.assert_allclose(other.maps - result.maps, np.where(called, -1, 1)[:, None, None] * weighted, atol=1e-3)
    assert weighted.any()


def brightness_network(rising: bool) -> keras.Model:
    """A network of one channel whose score rises with the brightness of a slice, or falls."""
    model = tiny_network(channels=1)
    for name in ("wide", "last"):
        layer = model.get_layer("base").get_layer(name)
        layer.set_weights([np.full(layer.kernel.shape, 0.1), np.zeros(1)])
    hidden, last = model.get_layer("head").get_layer("hidden"), model.get_layer("head").get_layer("probability")
    hidden.set_weights([np.ones((1, 8)), np.zeros(8)])
    last.set_weights([np.full((8, 1), 1.0 if rising else -1.0), np.full(1, 0.0 if rising else 10.0)])
    return model


def test_a_map_shows_the_spot_that_the_score_hangs_on() -> None:
    model = brightness_network(rising=True)
    slices = np.zeros((1, SIZE, SIZE, 1), np.uint8)
    slices[:, 2:8, 14:20] = 255
    for layer, size in (("wide", 12), ("last", 6)):
        cam = GradCam(model, layer)
        maps = cam.explain(slices, 0.5, np.array([True])).maps
        assert maps.shape == (1, size, size)
        spot = np.zeros((SIZE, SIZE))
        spot[:12, 12:] = 1
        assert share_inside(enlarge(maps, SIZE), spot[None])[0] > 0.7
        assert not cam.explain(slices, 0.5, np.array([False])).maps.any()


def test_what_is_missing_speaks_for_a_class_once_maps_have_a_reference() -> None:
    model = brightness_network(rising=False)
    bright = np.full((3, SIZE, SIZE, 1), 255, np.uint8)
    dark_spot = bright[:1].copy()
    dark_spot[:, 2:8, 14:20] = 0
    spot = np.zeros((SIZE, SIZE))
    spot[:12, 12:] = 1
    for layer in ("wide", "last"):
        cam = GradCam(model, layer)
        assert not cam.explain(dark_spot, 0.5, np.array([True])).maps.any()
        cam.compare_with(bright)
        assert share_inside(enlarge(cam.explain(dark_spot, 0.5, np.array([True])).maps, SIZE), spot[None])[0] > 0.7
        for positive in (True, False):
            np.testing.assert_allclose(cam.explain(bright[:1], 0.5, np.array([positive])).maps, 0, atol=1e-6)


def test_the_reference_is_the_mean_of_the_feature_maps() -> None:
    model, slices = tiny_network(), _slices(11)
    cam = GradCam(model)
    cam.compare_with(slices)
    features = np.asarray(model.get_layer("base")(np.repeat(slices / 127.5 - 1, 3, -1)))
    np.testing.assert_allclose(cam.reference, features.mean(0), rtol=1e-4, atol=1e-5)


def test_a_saturated_probability_has_the_map_of_its_logit() -> None:
    model = tiny_network()
    probability = model.get_layer("head").get_layer("probability")
    kernel, bias = probability.get_weights()
    plain = GradCam(model).explain(_slices(), 0.0)
    probability.set_weights([kernel, bias + 200])
    saturated = GradCam(model).explain(_slices(), 0.0)
    assert (model.predict_on_batch(_slices()) == 1).all()
    np.testing.assert_allclose(saturated.maps, plain.maps, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_what_was_frozen_changes_no_map(depth: int) -> None:
    expected = GradCam(tiny_network(), "wide").explain(_slices(), 0.5).maps
    model = tiny_network()
    freeze(model.get_layer("base"), depth)
    model.get_layer("head").trainable = depth > 0
    assert np.array_equal(GradCam(model, "wide").explain(_slices(), 0.5).maps, expected)
    assert expected.any()


def test_an_unknown_layer_is_a_line_that_names_some() -> None:
    with pytest.raises(UserError, match=r"'conv9' is not a layer .* norm \(12x12\), last \(6x6\)$"):
        GradCam(tiny_network(), "conv9")
    with pytest.raises(UserError, match="'hidden' is not a layer"):
        GradCam(tiny_network(), "hidden")


@pytest.mark.usefixtures("float32_policy")
def test_mixed_precision_gives_close_maps() -> None:
    expected = GradCam(tiny_network()).explain(_slices(), 0.5)
    weights = tiny_network().get_weights()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny_network()
    model.set_weights(weights)
    result = GradCam(model).explain(_slices(), 0.5, expected.probabilities >= 0.5)
    np.testing.assert_allclose(result.maps, expected.maps, atol=0.05 * expected.maps.max())


def test_randomised_draws_the_head_then_all_and_gives_the_weights_back() -> None:
    model = tiny_network()
    own = model.get_weights()
    kernels = [model.get_layer("base").get_layer("last"), model.get_layer("head").get_layer("probability")]
    drawn = {
        turn: {level: [np.array(layer.kernel) for layer in kernels] for level in randomised(GradCam(model), seed=3)}
        for turn in (1, 2)
    }
    assert np.array_equal(drawn[1]["head"][0], drawn[2]["head"][0])
    assert all(np.array_equal(*pair) for pair in zip(drawn[1]["all"], drawn[2]["all"], strict=True))
    assert all(np.array_equal(*pair) for pair in zip(own, model.get_weights(), strict=True))
    trained = [np.array(layer.kernel) for layer in kernels]
    for level, changed in (("head", [False, True]), ("all", [True, True])):
        assert [not np.array_equal(*pair) for pair in zip(drawn[1][level], trained, strict=True)] == changed


def test_an_interrupted_check_leaves_the_network_as_it_was() -> None:
    model = tiny_network()
    own = model.get_weights()
    for level in randomised(GradCam(model), seed=3):
        if level == "head":
            break
    assert all(np.array_equal(*pair) for pair in zip(own, model.get_weights(), strict=True))


def test_the_check_observes_the_random_network_where_the_layer_is_not_the_last() -> None:
    model, slices = tiny_network(channels=16), _slices(8)
    training = _slices(20)[8:]

    def compared() -> GradCam:
        cam = GradCam(model, "wide")
        cam.compare_with(training)
        return cam

    cam = compared()
    trained = cam.explain(slices, 0.5)
    called = trained.probabilities >= 0.5
    expected = {
        level: similarity(trained.maps, compared().explain(slices, 0.5, called).maps)
        for level in randomised(cam, seed=1)
    }
    report = sanity_check(cam, slices, training, 0.5, seed=1)
    assert report["levels"] == expected
    assert (report["slices"], report["blank"]) == (8, int((~trained.maps.any((1, 2))).sum()))
    assert np.array_equal(cam.explain(slices, 0.5).maps, trained.maps)


def test_similarity_ranks_maps_and_counts_those_without_ranks() -> None:
    maps = np.random.default_rng(0).random((4, 6, 6))
    assert similarity(maps, maps**3) == {"spearman": pytest.approx(1), "slices": 4, "undefined": 0}
    assert similarity(maps, -maps)["spearman"] == pytest.approx(-1)
    others = maps.copy()
    others[0] = 0
    assert similarity(maps, others) == {"spearman": pytest.approx(1), "slices": 3, "undefined": 1}
    assert similarity(maps, np.zeros_like(maps)) == {"spearman": None, "slices": 0, "undefined": 4}


def test_the_sanity_check_tells_a_map_that_ignores_the_weights() -> None:
    cam = GradCam(tiny_network(channels=16))
    report = sanity_check(cam, _slices(40), _slices(3), 0.5, seed=1)
    assert (report["layer"], report["resolution"]) == ("last", [6, 6])
    for level in ("head", "all"):
        assert report["levels"][level]["slices"] + report["levels"][level]["undefined"] == 32
        assert abs(report["levels"][level]["spearman"]) < 0.9
    assert sanity_check(cam, _slices(40), _slices(3), 0.5, seed=1) == report
    assert sanity_check(cam, _slices(40), _slices(3), 0.5, seed=2) != report


def test_share_inside_of_an_indifferent_map_is_the_area() -> None:
    masks = np.zeros((3, 8, 8))
    masks[:, :2] = 1
    maps = np.stack([np.ones((8, 8)), masks[0] * 3, np.zeros((8, 8))])
    shares = share_inside(maps, masks)
    assert shares[:2].tolist() == [0.25, 1]
    assert np.isnan(shares[2])


def test_enlarged_maps_reach_from_0_to_1_and_blank_ones_stay_blank() -> None:
    maps = np.zeros((2, 3, 3))
    maps[0, 0, 2] = 1e-6
    large = enlarge(maps, 30)
    assert large.shape == (2, 30, 30)
    assert large[0].max() == pytest.approx(1)
    assert np.unravel_index(large[0].argmax(), (30, 30))[1] >= 20
    assert not large[1].any()


def test_examples_are_the_extremes_of_each_kind() -> None:
    labels = np.array([1, 1, 1, 0, 0, 1])
    scores = np.array([0.6, 0.9, 0.7, 0.1, 0.4, 0.2])
    assert choose_examples(labels, scores, 0.5) == [
        (1, "true positive, most certain"),
        (0, "true positive, least certain"),
        (3, "true negative, most certain"),
        (4, "true negative, least certain"),
        (5, "false negative, most certain"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("MobileNetV2", "block_4_add"),
        ("ConvNeXtTiny", None),
    ],
)
def test_any_backbone_has_maps(name: str, layer: str | None) -> None:
    backbone = build_backbone(name, "random", 64, seed=0)
    head = build_head(backbone.output_shape[-1], Head(units=8, l2=0.01, dropout=0.5), 0)
    model = keras.Model(backbone.input, classify(backbone.output, head))
    slices = _slices(2, 64)
    for chosen in {None, layer}:
        result = GradCam(model, chosen).explain(slices, 0.5)
        np.testing.assert_allclose(result.probabilities, model.predict_on_batch(slices)[:, 0], rtol=1e-4)
        both = [GradCam(model, chosen).explain(slices, 0.5, np.full(2, way)).maps for way in (False, True)]
        assert any(maps.any() for maps in both)
