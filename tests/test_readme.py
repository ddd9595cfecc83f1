"""The commands that pages print work as printed, and what the pages link to and name exists."""

import hashlib
import re
from pathlib import Path

from ctscan.experiments.studies import BEGIN, END

import pytest
import yaml
from quick_clone import commit, draw_images, make_quick_clone, run
from repository import REPO

PAGES = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(REPO)) for path in sorted(REPO.glob("docs/*.md")))]
PAGES += [str(path.relative_to(REPO)) for path in sorted([*REPO.glob("studies/*.md"), *REPO.glob("studies/*/*.md")])]

# The commands in the order in which they are run, and what each prints. The first makes the run itself.
RUN = {
    "make repro": "finetuned",
    "ctscan --help": "predict",
    "dvc repro": "Data and pipelines are up to date.",
    "ctscan check-lock": "in step",
    "dvc exp run -S lr=3e-4": "Ran experiment",
    "ctscan predict split/images/test": "intervals over",
    "ctscan results": "beats controls",
    "ctscan explain split/images/test/COVID/*1*.png": "drawn in explanations",
    "ctscan export --format savedmodel": "use it so",
    "ctscan plots": "dvc_plots/index.html",
    "ctscan report": "report/report.md",
    "dvc exp show --only-changed": "lr",
    "dvc metrics diff": "metrics/test.json",
    "dvc params diff": "0.0003",
    "dvc plots diff": "index.html",
    "dvc plots show": "index.html",
    "git checkout params.yaml dvc.lock metrics plots": "",
    "git checkout params.yaml dvc.lock metrics plots && dvc repro": "is cached",
    "dvc status data.dvc": "data",
    "dvc add data": "git add data.dvc",
    "git tag -a ct-classifier@v1.0.0 -m model": "",
    "dvc artifacts get . ct-classifier -o got.keras": "",
}
# Those that no test can run as printed, and why.
DOWNLOADS = "downloads packages"
NAMELESS = "stands for a command with a name in it"
CLUSTER = "needs a cluster; tests/pipeline/test_engines.py starts one"
NOT_RUN = {
    "git clone <this repository> && cd <its folder>": "names no repository; what follows is run in a copy of this one",
    "source .venv/bin/activate": "puts .venv first on the path of a shell, as the commands here have it",
    "make repro GPU=1": DOWNLOADS,
    "pip download --require-hashes -r requirements.txt -d wheels": DOWNLOADS,
    "PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels make repro": "needs the downloaded packages",
    "make data": "downloads the dataset; tests/download serves it one",
    "ctscan data": "downloads the dataset; tests/download serves it one",
    "ctscan data --archive path/to/archive.zip": "needs the dataset's archive; tests/download makes one",
    "ctscan data --pin": "needs the dataset; tests/download pins one",
    "ctscan weights": "downloads the weights; tests/model/test_weights.py serves it some",
    "ctscan weights path/to/file.h5": "needs a weights file; tests/model/test_weights.py makes some",
    "dvc exp run -n study -S dataset=data -S weights=imagenet": "needs the dataset and the weights",
    "dvc exp run -S dataset=data -S image_size=128 -S initial.epochs=40": "needs the dataset",
    "ctscan repeats": "takes minutes; tests/experiments/test_repeats.py runs it on few images",
    "ctscan repeats --strategy random --seeds 5": "the same",
    "ctscan repeats --strategy blocked --seeds 5": "the same",
    "ctscan sweep": "names no values",
    "ctscan sweep lr=1e-4,3e-4,1e-3": "takes minutes; tests/experiments/test_sweep.py has what it queues and ranks",
    "ctscan sweep finetune_lr=3e-5,1e-4 --until finetune": "the same",
    "ctscan sweep unfreeze_depth=50,150,250 --until finetune": "the same",
    "dvc exp run --queue -S lr=1e-4,3e-4,1e-3": "queues what `ctscan sweep` runs, under names of DVC's own",
    "dvc queue start -j 2": "returns at once and goes on in the background",
    "dvc exp run -S split.strategy=grouped": "takes minutes; tests/split/test_strategies.py splits so",
    "dvc exp run -S dataset=scans -S classes.positive=covid -S classes.negative=healthy -S split.strategy=grouped": (
        "takes minutes; tests/split/test_check.py reads such folders"
    ),
    "dvc exp run -S backbone=DenseNet121 -S unfreeze_depth=120": "takes minutes; tests/model/test_backbone.py has it",
    "dvc exp run --temp": "takes minutes; the text says where it imports from",
    "dvc repro --dry": "is what `ctscan check-lock` reads",
    "dvc exp apply NAME": NAMELESS,
    "dvc checkout": "fails as docs/dataset.md says, while the dataset is not there",
    "dvc checkout --force": "deletes a dataset that is not in the cache",
    "dvc add scans": "names a folder of the reader's; tests/experiments/test_sweep.py has what it is for",
    "git add scans.dvc .gitignore": "the same",
    "git diff --quiet": "is what the text says not to read",
    "dvc status --quiet": "the same",
    "git status --porcelain": "is what commands read; tests/experiments/test_programs.py has it",
    "dvc status --json": "the same",
    "pip install python-gdcm": DOWNLOADS,
    "pip install pylibjpeg pylibjpeg-openjpeg": DOWNLOADS,
    "dvc pull": "fails as docs/design.md says: the dataset is on no remote",
    "git reset --hard": "drops what is not committed",
    "python src/NAME.py": NAMELESS,
    "ctscan predict FOLDER": NAMELESS,
    "ctscan predict FOLDER --shard 2/8 --output part-2.jsonl": NAMELESS,
    "ctscan predict FOLDER --merge part-*.jsonl --output all.csv": NAMELESS,
    "ctscan predict FOLDER --patients": NAMELESS,
    "ctscan predict FOLDER --prevalence 0.05": NAMELESS,
    "ctscan external FOLDER --name NAME": NAMELESS,
    "ctscan folds": "needs the experiments of all folds; tests/experiments/test_folds.py pools some",
    "ctscan sweep split.folds=5 split.fold=0,1,2,3,4 --until evaluate": "takes minutes",
    "ctscan sweep lr=1e-4,3e-4,1e-3 --on local --jobs 3": (
        "takes minutes; tests/experiments/test_driver.py runs such sweeps on stages that take no time"
    ),
    "ctscan sweep lr=1e-4,3e-4,1e-3 seed=7,8,9 --on slurm --jobs 9 --gpus 1": CLUSTER,
    "ctscan folds --folds 5 --on ray --jobs 5": CLUSTER,
    "ctscan repeats --strategy blocked --seeds 10 --on slurm --jobs 10": CLUSTER,
    "export SBATCH_PARTITION=gpu SBATCH_ACCOUNT=mylab": CLUSTER,
    "ctscan sweep lr=1e-4,3e-4,1e-3 --on slurm --jobs 24 --cpus 4 --gpus 1 --minutes 120 --detach": CLUSTER,
    "ctscan sweep lr=1e-4,3e-4,1e-3 --on slurm --collect": CLUSTER,
    "ctscan sweep ... --on local --collect": CLUSTER,
    "ctscan worker FILE": NAMELESS,
    "ctscan worker lr=1e-4.json": "needs a trial; tests/experiments/test_worker.py makes some",
    "git init --bare": "makes a hub; tests/helpers/toy_repository.py makes one",
    "pip install 'submitit==1.5.4'": DOWNLOADS,
    "pip install 'ray==2.60.0'": DOWNLOADS,
    "pip install 'dvc-s3==3.3.0'": DOWNLOADS,
    "dvc remote add store s3://bucket/ctscan": "names a bucket; tests/experiments/test_driver.py serves one",
    "dvc remote modify store endpointurl https://minio.example.org": "the same",
    "dvc remote add store /shared/ctscan-store": "names a folder; tests/helpers/toy_repository.py has a remote in one",
    "dvc cache dir --local /shared/dvc-cache": "names a folder; tests/experiments/test_worker.py shares a cache",
    "dvc exp pull": "is what `ctscan sweep --on` does at its end",
    "dvc gc": "deletes what it is not told to keep",
    "ctscan record-folds NAME": "needs folds on real images; tests/experiments/test_folds.py records some",
    "ctscan record-study NAME": "needs a run on real images; tests/experiments/test_studies.py records one",
    "ctscan readme-tables": "rewrites the pages; tests/experiments/test_readme_tables.py compares them",
    "ctscan explain --phantoms 40": "takes minutes; tests/inference/test_explain.py draws two",
    "ctscan draw-sample": "takes a minute; tests/test_phantoms.py draws it",
    "ctscan verify": "runs the pipeline once more; tests/experiments/test_verify.py compares runs",
    "make test": "runs this test",
    "make format": "changes sources",
    "make lint": "checks this repository, not a copy; .ci/run has it",
    "pre-commit install": "writes into .git of the repository",
    "pytest tests/training -k killed": "runs tests within a test",
    "pytest -m 'not slow'": "runs tests within a test",
}


def read(page: str) -> str:
    """A page without what `ctscan record-study` wrote into it, which tests/experiments/test_studies.py compares."""
    text = (REPO / page).read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*?{END}", "", text, flags=re.DOTALL)


def printed_commands(text: str) -> list[str]:
    """Every line of a console block without its comment, and whatever else stands in backticks and is a command."""
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    programs = "dvc|make|python3?|pip|pytest|git|source|bash|ctscan|pre-commit"
    inline = re.findall(rf"`((?:[A-Z_]+=\S+ )*(?:{programs}) [^`]+)`", prose)
    return list(dict.fromkeys([*(re.sub(r"\s+#.*", "", line) for line in blocks if line), *inline]))


def test_every_command_is_run_or_there_is_a_reason() -> None:
    commands = {command for page in PAGES for command in printed_commands(read(page))}
    assert commands - {*RUN, *NOT_RUN} == set(), "add it to RUN, or to NOT_RUN with the reason"
    assert {*RUN, *NOT_RUN} - commands == set(), "no page prints it any longer"
    assert not set(RUN) & set(NOT_RUN)


def test_the_readme_is_short() -> None:
    words = [word for word in read("README.md").split() if any(mark.isalnum() for mark in word)]
    assert len(words) <= 920


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", read(page))
    targets = {one or other for one, other in links}
    missing = {target for target in targets if ":" not in target and not (REPO / page).parent.joinpath(target).exists()}
    assert missing == set()


def test_the_readme_names_files_that_exist_and_the_stages_of_the_pipeline() -> None:
    text = read("README.md")
    (tree,) = re.findall(r"```text\n(params\.yaml .*?)```", text, re.DOTALL)
    names = [name for line in tree.splitlines() for name in re.split(r"\s{2,}", line)[0].split() if name != "..."]
    assert [name for name in names if not (REPO / name).exists()] == []

    stages = yaml.safe_load((REPO / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    rows = re.findall(r"^\| `([a-z-]+)` \|[^|]+\| (.+) \|$", text, re.MULTILINE)
    assert [stage for stage, _ in rows] == list(stages)
    for stage, causes in rows:
        assert set(re.findall(r"`(\w+)`", causes)) <= set(stages[stage]["params"]), stage
    (graph,) = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert re.findall(r"--> ([a-z-]+)", graph) == list(stages)


def test_commands_are_found_wherever_they_stand() -> None:
    block = "```console\nmake all   # or\nls -l\n```\n```text\ndvc no\n```"
    text = f"`a.py`, `dvc pull x`\n{block}\n| `A=1 make b` | `dvc.yaml` |\n"
    assert printed_commands(text) == ["make all", "ls -l", "dvc pull x", "A=1 make b"]


@pytest.fixture
def quick_clone(tmp_path: Path) -> Path:
    return make_quick_clone(tmp_path / "a clone")


@pytest.mark.slow
def test_the_commands_work_as_printed(quick_clone: Path) -> None:
    first, *rest = RUN
    works(quick_clone, first)
    commit(quick_clone)
    for command in rest:
        if command.startswith("dvc exp run"):
            run(quick_clone, "git checkout -q . && dvc checkout -q")  # each starts from the committed run
        if command == "dvc status data.dvc":  # not before: `dvc checkout` removes what data.dvc pins and no cache holds
            draw_images(quick_clone / "data")
        works(quick_clone, command)
    the_model_is_the_released_one(quick_clone)


def the_model_is_the_released_one(clone: Path) -> None:
    outs = yaml.safe_load(run(clone, "git show HEAD:dvc.lock").stdout)["stages"]["finetune"]["outs"]
    (md5,) = (out["md5"] for out in outs if out["path"] == "models/finetuned.keras")
    assert hashlib.md5((clone / "got.keras").read_bytes()).hexdigest() == md5


def works(clone: Path, command: str) -> None:
    done = run(clone, command)
    seen = f"{command}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, seen
    assert RUN[command] in done.stdout, seen
    assert not re.search("^ERROR|Traceback", done.stderr, re.MULTILINE), seen
