"""Model a sweep of 1,000 runs on 100 machines, to see when the hub or the remote holds the machines up.

    python benchmarks/cluster_model.py

Each machine does one run after the other: it clones the hub, pulls from the remote, computes, pushes to the remote and
then to the hub. Hub and remote serve one request after the other, in the order in which they come. Writes
cluster_model.json and cluster_model.png beside this file.
"""

import heapq
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

HERE = Path(__file__).parent
RUNS, MACHINES = 1000, 100
MINUTES = (0.5, 1, 2, 3, 5, 8, 12, 20, 30, 60)  # of computing in a run
# Measured on 2 cores with a hub in a folder, whose .git is 5 MB: seconds for a clone, and for a push and its checks.
CLONE, PUSH = 0.18, 0.1
OVERHEAD = 4.0  # seconds of a machine: what a worker takes whose stages take no time
# The study's 2481 slices with ResNet101V2, MB: images, features and backbone; both models.
PULLED, PUSHED = 433, 190
LINES = {"remote, 1 Gbit/s": 118, "remote, 10 Gbit/s": 1180, "remote, 25 Gbit/s": 2950}  # MB/s
CACHED = "1 Gbit/s, each machine pulls once"


class Load(NamedTuple):
    """What one run asks for, in seconds of each server when it serves nobody else."""

    clone: float  # of the hub
    pull: float  # of the remote
    overhead: float  # of the machine, for processes of git and DVC
    compute: float  # of the machine, for the run itself
    push: float  # of the remote
    announce: float  # of the hub


class Outcome(NamedTuple):
    """How a sweep went."""

    seconds: float  # from the first clone to the last push
    hub: float  # share of that time in which the hub was busy
    remote: float  # and the remote
    machines: float  # share of the machines' time that went into runs


def simulate(runs: int, machines: int, load: Load, pull_once: bool = False) -> Outcome:
    """Do `runs` runs on `machines` machines; `pull_once` for machines that keep what they have pulled."""
    free = {"hub": 0.0, "remote": 0.0}
    alone = load.overhead + load.compute
    steps = (("hub", load.clone), ("remote", load.pull), ("", alone), ("remote", load.push), ("hub", load.announce))
    events = [(0.0, machine, 0) for machine in range(machines)]  # when, which machine, its next step
    waiting, end = runs, 0.0
    done = [0] * machines
    busy = dict.fromkeys(free, 0.0)
    while events:
        now, machine, step = heapq.heappop(events)
        if step == 0:
            if waiting == 0:
                continue
            waiting -= 1
        server, seconds = steps[step]
        if pull_once and step == 1 and done[machine]:
            seconds = 0.0
        if server:
            free[server] = ready = max(now, free[server]) + seconds
            busy[server] += seconds
        else:
            ready = now + seconds
        if step + 1 < len(steps):
            heapq.heappush(events, (ready, machine, step + 1))
        else:
            done[machine] += 1
            end = max(end, ready)
            heapq.heappush(events, (ready, machine, 0))
    return Outcome(end, busy["hub"] / end, busy["remote"] / end, runs * load.compute / (machines * end))


def load(minutes: float, megabytes_per_second: float) -> Load:
    """A run of the study with so many minutes of computing, and a remote of that speed."""
    pull, push = PULLED / megabytes_per_second, PUSHED / megabytes_per_second
    return Load(CLONE, pull, OVERHEAD, 60 * minutes, push, PUSH)


def curves() -> dict[str, list[Outcome]]:
    """An outcome for each of `MINUTES`, for each kind of remote."""
    found = {
        name: [simulate(RUNS, MACHINES, load(minutes, speed)) for minutes in MINUTES] for name, speed in LINES.items()
    }
    slow = min(LINES.values())
    found[CACHED] = [simulate(RUNS, MACHINES, load(minutes, slow), pull_once=True) for minutes in MINUTES]
    return found


def draw(path: Path, found: dict[str, list[Outcome]]) -> None:
    """The share of the machines' time that is used, over the minutes that a run computes."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, outcomes in found.items():
        style = "--" if name == CACHED else "-"
        axes.plot(MINUTES, [100 * outcome.machines for outcome in outcomes], style, marker="o", label=name)
    axes.set_xscale("log")
    axes.set_xticks(MINUTES, [f"{minutes:g}" for minutes in MINUTES])
    axes.minorticks_off()
    axes.set(
        xlabel="minutes that a run computes",
        ylabel="used share of the machines' time (%)",
        ylim=(0, 102),
        title=f"{RUNS} runs on {MACHINES} machines, {PULLED} MB pulled and {PUSHED} MB pushed by each",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def table(found: dict[str, list[Outcome]], minutes: Sequence[float]) -> str:
    """Markdown: a row for each kind of remote and length of run."""
    rows = ["| remote | minutes a run | whole sweep | machines used | remote busy | hub busy |", "| --- " * 6 + "|"]
    for name, outcomes in found.items():
        for chosen in minutes:
            one = outcomes[MINUTES.index(chosen)]
            shares = " | ".join(f"{share:.0%}" for share in (one.machines, one.remote, one.hub))
            rows.append(f"| {name.removeprefix('remote, ')} | {chosen:g} | {one.seconds / 3600:.1f} h | {shares} |")
    return "\n".join(rows)


def main() -> None:
    found = curves()
    draw(HERE / "cluster_model.png", found)
    record = {name: [outcome._asdict() for outcome in outcomes] for name, outcomes in found.items()}
    (HERE / "cluster_model.json").write_text(json.dumps({"minutes": MINUTES, "curves": record}, indent=2) + "\n")
    print(table(found, (1, 5, 20)))


if __name__ == "__main__":
    main()
