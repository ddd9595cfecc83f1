"""Stage evaluate: both models on the test images, beside baselines and controls."""

from contextlib import ExitStack
from pathlib import Path

from ctscan.core.files import publish, write_json, write_record
from ctscan.core.params import Params
from ctscan.core.seeds import make_deterministic
from ctscan.core.stage import run_stage
from ctscan.evaluation import calibration, figures, gradcam, intervals, novelty
from ctscan.evaluation.assess import (
    Subset,
    assess,
    compare,
    confusion_rows,
    controls_table,
    headline_metrics,
    pr_points,
    roc_points,
)
from ctscan.evaluation.baselines import Inputs, run_baselines
from ctscan.evaluation.tables import results_table
from ctscan.images.batches import load_slices
from ctscan.images.manifest import image_paths, read_manifest, together
from ctscan.model.augmentation import augmentation
from ctscan.model.forward import forward, predict
from ctscan.model.saving import load_model

import numpy as np

METRICS, PLOTS = Path("metrics"), Path("plots")


def recipe(params: Params) -> None:
    make_deterministic()
    manifest = read_manifest()
    order, (val, test, train) = together(manifest, "val", "test", "train")
    manifest, features = manifest.iloc[order].reset_index(drop=True), np.load("features.npy")[order]
    labels, groups = manifest["label"].to_numpy(), manifest["group"].to_numpy()
    finetuned = load_model(Path("models/finetuned.keras"))
    images = load_slices(image_paths(manifest), finetuned.input_shape[1])

    judged = slice(val.start, test.stop)
    whole = forward(novelty.with_features(finetuned))
    references = novelty.reference_rows(np.arange(train.start, train.stop), params.seed)
    probabilities, pooled = novelty.observe(whole, images[judged], "finetuned")
    _, known = novelty.observe(whole, images[references], "features of training images")
    scores = {
        "initial": predict(load_model(Path("models/initial.keras")), features[judged], "initial"),
        "finetuned": probabilities,
    }
    resamples = intervals.resample(labels[test], groups[test], params.evaluate.bootstrap, params.seed, "test")
    on_val = {model: Subset(labels[val], values[val], groups[val]) for model, values in scores.items()}
    on_test = {model: Subset(labels[test], values[test], groups[test]) for model, values in scores.items()}
    details = {
        model: assess(model, on_val[model], on_test[model], resamples, params.evaluate, params.classes)
        for model in scores
    }

    detector = novelty.fit_detector(images[references, ..., 0], known, images[val, ..., 0], pooled[val])
    tried = novelty.measure_detector(detector, whole, images[test, ..., 0], pooled[test], params.seed)

    sizes = manifest[["width", "height"]].to_numpy()
    seen = {
        part: Inputs(images[at, ..., 0], sizes[at], features[at]) for part, at in (("train", train), ("test", test))
    }
    baselines = run_baselines(seen["train"], labels[train], seen["test"], groups[train], params.seed)
    controls = controls_table(on_test, baselines, params.evaluate.threshold, resamples)
    cam = gradcam.GradCam(finetuned)
    maps = gradcam.sanity_check(cam, images[test], params.evaluate.threshold, params.seed)
    comparison = compare(on_test["initial"], on_test["finetuned"], params.evaluate.threshold, resamples)

    drawn = {model: subset.scores for model, subset in on_test.items()}
    temperatures = {model: details[model]["calibration"]["temperature"] for model in scores}
    reliability = calibration.before_and_after(labels[test], drawn, temperatures, params.evaluate.bins)
    move = augmentation(params.augment, images.shape[1], params.seed)
    shown = gradcam.gallery(cam, manifest.iloc[test], images[test], drawn["finetuned"], params.evaluate.threshold)
    beside = {"comparison": comparison, "controls": controls, "novelty": tried, "saliency": maps}

    with ExitStack() as stack:  # all outs take their places together, once the last is written

        def out(path: Path) -> Path:
            return stack.enter_context(publish(path))

        write_json(out(METRICS / "test.json"), headline_metrics(details))
        write_record(out(METRICS / "details.json"), {**details, **beside})
        detector.save(out(Path("models/novelty.npz")))
        for name, points in (("roc", roc_points), ("pr", pr_points)):
            found = [row for model in scores for row in points(model, on_test[model], resamples)]
            write_json(out(PLOTS / f"{name}.json"), found)
        for model, subset in on_test.items():
            counted = confusion_rows(subset, params.evaluate, params.classes)
            write_json(out(PLOTS / f"confusion_{model}.json"), counted)
        figures.draw_reliability(out(PLOTS / "reliability.png"), reliability)
        figures.draw_histograms(out(PLOTS / "scores.png"), drawn, labels[test], params.classes)
        figures.draw_controls(out(PLOTS / "controls.png"), controls)
        folder = out(PLOTS / "images")
        figures.draw_classes(folder / "classes.png", images[..., 0], manifest, params.classes)
        figures.draw_augmented(folder / "augmented.png", images[train][:4], lambda slices: move(slices, training=True))
        figures.draw_saliency(folder / "saliency.png", *shown)
    print(results_table({model: details[model] for model in scores}))


if __name__ == "__main__":
    run_stage("evaluate", recipe)
