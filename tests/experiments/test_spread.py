"""The spread over seeds against figures worked out by hand, and the table that shows it."""

from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import read_params
from ctscan.experiments.spread import difference, settings, summary, table

import pytest
from repository import REPO


def _record(auc: float, baseline: float) -> dict[str, Any]:
    return {"models": {"initial": {"roc_auc": auc}}, "baselines": {"hog_svm": {"roc_auc": baseline}}}


RECORDS = [_record(0.9, 0.5), _record(0.7, 0.5), _record(0.8, 0.5)]


def test_mean_sd_and_range_by_hand() -> None:
    found = summary(RECORDS)
    # Deviations .1, -.1 and 0: sd = sqrt((.01 + .01 + 0) / (3 - 1)) = .1
    assert found["models"]["initial"]["roc_auc"] == pytest.approx({"mean": 0.8, "sd": 0.1, "min": 0.7, "max": 0.9})
    assert found["baselines"]["hog_svm"]["roc_auc"] == {"mean": 0.5, "sd": 0, "min": 0.5, "max": 0.5}


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(UserError, match="--seeds 2 or more"):
        summary(RECORDS[:1])


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(REPO)
    params = read_params().model_copy(update={"dataset": "data", "image_size": 128, "weights": "random"})
    return settings(params, {"weights_sha256": "abc"}, range(7, 10), finetuning=False)


def test_settings_hold_what_a_result_depends_on(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    params = read_params().model_copy(update={"dataset": "data", "image_size": 128, "weights": "random"})
    arguments = ({"weights_sha256": "abc"}, range(7, 10))
    slower = params.model_copy(update={"finetune_lr": 0.5})
    blocked = params.model_copy(update={"split": params.split.model_copy(update={"strategy": "blocked"})})
    for same in (slower, blocked):
        assert difference(given, settings(same, *arguments, finetuning=False)) == ""
    assert difference(given, settings(params.model_copy(update={"lr": 0.5}), *arguments, finetuning=False)) == (
        "lr = 0.0001 and 0.5"
    )
    assert difference(given, settings(params, {"weights_sha256": "abd"}, range(7, 10), finetuning=False)) == (
        "weights_sha256 = abc and abd"
    )
    assert "seeds = [7, 8, 9] and [7, 8]" in difference(given, settings(params, arguments[0], range(7, 9), False))
    assert "finetune_lr = None and 0.5" in difference(given, settings(slower, *arguments, finetuning=True))


def test_the_table_sets_strategies_side_by_side(given: dict[str, Any]) -> None:
    random, blocked = (
        {"strategy": strategy, "settings": given, "summary": summary(records)}
        for strategy, records in (("random", RECORDS), ("blocked", RECORDS[:2]))
    )
    assert (
        table([random, blocked])
        == """\
| test                        | random                      | blocked, 20 numbers         |
| --------------------------- | --------------------------- | --------------------------- |
| initial, ROC AUC            | 0.800 ± 0.100 (0.700-0.900) | 0.800 ± 0.141 (0.700-0.900) |
| HOG and linear SVM, ROC AUC | 0.500 ± 0.000 (0.500-0.500) | 0.500 ± 0.000 (0.500-0.500) |

Mean ± sd (range) over 3 splits (seeds 7, 8, 9) of `data`; ResNet101V2, weights random, 128 pixels."""
    )
