"""Stage evaluate: both models on the test images, beside baselines and controls."""

from pathlib import Path

from ctscan import calibration, figures, intervals, novelty, saliency
from ctscan.augmentation import augmentation
from ctscan.baselines import Inputs, run_baselines
from ctscan.determinism import make_deterministic
from ctscan.evaluation import Subset, assess, compare, confusion_rows, controls_table, pr_points, roc_points
from ctscan.images import image_batches, predict
from ctscan.manifest import image_paths, read_manifest, rows
from ctscan.models import load_model
from ctscan.params import Params
from ctscan.records import write_json
from ctscan.reports import results_table
from ctscan.stage import publish, run_stage

import numpy as np

METRICS, PLOTS = Path("metrics"), Path("plots")


def recipe(params: Params) -> None:
    make_deterministic()
    manifest, features = read_manifest(), np.load("features.npy")
    train, val, test = (rows(manifest, subset) for subset in ("train", "val", "test"))
    labels, groups = manifest["label"].to_numpy(), manifest["group"].to_numpy()
    finetuned = load_model(Path("models/finetuned.keras"))
    images = np.concatenate([batch.numpy() for batch in image_batches(image_paths(manifest), finetuned.input_shape[1])])

    judged = np.concatenate([val, test])
    whole, references = novelty.with_features(finetuned), novelty.reference_rows(train, params.seed)
    probabilities, pooled = novelty.observe(whole, images[judged], "finetuned")
    _, known = novelty.observe(whole, images[references], "features of training images")
    scores = {
        "initial": predict(load_model(Path("models/initial.keras")), features[judged], "initial"),
        "finetuned": probabilities,
    }
    resamples = intervals.resample(labels[test], groups[test], params.evaluate.bootstrap, params.seed, "test")
    on_val = {model: Subset(labels[val], values[: len(val)], groups[val]) for model, values in scores.items()}
    on_test = {model: Subset(labels[test], values[len(val) :], groups[test]) for model, values in scores.items()}
    details = {
        model: assess(model, on_val[model], on_test[model], resamples, params.evaluate, params.classes)
        for model in scores
    }

    notice = novelty.fit(images[references, ..., 0], known, images[val, ..., 0], pooled[: len(val)])
    tried = novelty.validate(notice, whole, images[test, ..., 0], pooled[len(val) :], params.seed)

    sizes = manifest[["width", "height"]].to_numpy()
    seen = {
        part: Inputs(images[at, ..., 0], sizes[at], features[at]) for part, at in (("train", train), ("test", test))
    }
    baselines = run_baselines(seen["train"], labels[train], seen["test"], groups[train], params.seed)
    controls = controls_table(on_test, baselines, params.evaluate.threshold, resamples)
    cam = saliency.GradCam(finetuned)
    maps = saliency.sanity_check(cam, images[test], params.evaluate.threshold, params.seed)
    comparison = compare(on_test["initial"], on_test["finetuned"], params.evaluate.threshold, resamples)

    with publish(METRICS / "evaluate.json") as path:
        write_json(path, {model: details[model]["test"] for model in scores})
    with publish(METRICS / "details.json") as path:
        beside = {"comparison": comparison, "controls": controls, "novelty": tried, "saliency": maps}
        write_json(path, {**details, **beside})
    with publish(Path("models/novelty.npz")) as path:
        notice.save(path)
    with publish(PLOTS / "roc.json") as path:
        write_json(path, [row for model in scores for row in roc_points(model, on_test[model], resamples)])
    with publish(PLOTS / "pr.json") as path:
        write_json(path, [row for model in scores for row in pr_points(model, on_test[model], resamples)])
    for model, subset in on_test.items():
        with publish(PLOTS / f"confusion_{model}.json") as path:
            write_json(path, confusion_rows(subset, params.evaluate, params.classes))

    drawn = {model: subset.scores for model, subset in on_test.items()}
    temperatures = {model: details[model]["calibration"]["temperature"] for model in scores}
    reliability = calibration.before_and_after(labels[test], drawn, temperatures, params.evaluate.bins)
    with publish(PLOTS / "reliability.png") as path:
        figures.draw_reliability(path, reliability)
    with publish(PLOTS / "scores.png") as path:
        figures.draw_histograms(path, drawn, labels[test], params.classes)
    with publish(PLOTS / "controls.png") as path:
        figures.draw_controls(path, controls)
    move = augmentation(params.augment, images.shape[1], params.seed)
    with publish(PLOTS / "images") as folder:
        figures.draw_classes(folder / "classes.png", images[..., 0], manifest, params.classes)
        figures.draw_augmented(folder / "augmented.png", images[train[:4]], lambda slices: move(slices, training=True))
        shown = saliency.gallery(cam, manifest.iloc[test], images[test], drawn["finetuned"], params.evaluate.threshold)
        figures.draw_saliency(folder / "saliency.png", *shown)
    print(results_table({model: details[model] for model in scores}))


if __name__ == "__main__":
    run_stage("evaluate", recipe)
