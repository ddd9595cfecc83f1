"""A fine-tuning step of ours beside the same step in eager PyTorch: images/s, in turn, and their ratio.

    pip install torch     # no dependency of this repository; any environment will do:
    python benchmarks/torch_tail.py [--torch-python PYTHON] [--precision bfloat16] [--batch-size 16 32] [--rounds 3]

Both train the last 150 layers of ResNet101V2 at 224 pixels and the study's head on what crosses the frontier, with
BatchNormalization frozen, RMSprop, and tensors already in memory; PyTorch under autocast, channels last. Each round is
two new processes, each of which gives the median of its steps.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEPS, WARM_UP = 6, 2
FRONTIER = ((14, 14, 256), (14, 14, 1024))  # of ResNet101V2 at 224 pixels, cut before its last 150 layers
DEPTH, SIZE = 150, 224


def main() -> None:
    parser = argparse.ArgumentParser(description="Our fine-tuning step beside eager PyTorch's.")
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch; default: this one")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[16, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=["ours", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step = {"ours": our_step, "torch": torch_step}[options.child](options.batch_size[0], options.precision)
        print(options.batch_size[0] / _seconds(step))
        return
    pythons = {"ours": sys.executable, "torch": options.torch_python}
    for size in options.batch_size:
        rates: dict[str, list[float]] = {way: [] for way in pythons}
        for _ in range(options.rounds):
            for way, python in pythons.items():
                rates[way].append(_child(python, way, size, options.precision))
        middle = {way: statistics.median(found) for way, found in rates.items()}
        ratios = sorted(a / b for a, b in zip(rates["ours"], rates["torch"], strict=True))
        print(
            f"{options.precision}, batch {size}: ours {middle['ours']:.1f}, PyTorch {middle['torch']:.1f} images/s, "
            f"ours / PyTorch {middle['ours'] / middle['torch']:.2f} (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def _child(python: str, way: str, size: int, precision: str) -> float:
    command = [python, __file__, "--child", way, "--batch-size", str(size), "--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"torch-tail: {way} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout.split()[-1])


def _seconds(step: Callable[[], object]) -> float:
    taken = []
    for _ in range(WARM_UP + STEPS):
        clock = time.perf_counter()
        step()
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken[WARM_UP:])


def our_step(batch: int, precision: str) -> Callable[[], object]:
    """A step as stage finetune takes it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
    from ctscan.core.params import Head
    from ctscan.core.seeds import make_deterministic
    from ctscan.model.backbone import build_backbone
    from ctscan.model.bfloat16 import use_fused_normalization, use_matrix_products
    from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
    from ctscan.model.head import build_head
    from ctscan.training.loop import compile_classifier

    import keras
    import tensorflow as tf

    make_deterministic()
    keras.config.set_dtype_policy({"bfloat16": "mixed_bfloat16"}.get(precision, precision))
    base = build_backbone("ResNet101V2", "random", SIZE, seed=0).get_layer("base")
    head = build_head(base.output_shape[-1], Head(units=1024, l2=0.01, dropout=0.5), seed=0)
    _, frontier = cut_network(base, DEPTH)
    if tuple(tensor.shape[1:] for tensor in frontier) != FRONTIER:
        sys.exit(f"torch-tail: the frontier is {frontier}, no longer {FRONTIER}")
    freeze(base, DEPTH)
    use_matrix_products(base)
    use_fused_normalization(base)
    freeze_normalization(head)
    tail = keras.Model(frontier, classify(base.output, head))
    compile_classifier(tail, 1e-5)
    inputs = [tf.cast(tf.random.normal((batch, *tensor.shape[1:])), tensor.dtype) for tensor in frontier]
    labels = tf.cast(tf.range(batch) % 2, tf.float32)[:, None]
    return lambda: tail.train_on_batch(inputs, labels)


def torch_step(batch: int, precision: str) -> Callable[[], object]:
    """The same layers and the same step in eager PyTorch, on as many cores as it takes by itself."""
    import torch
    from torch import nn

    class Normalization(nn.Module):
        """Frozen: statistics and weights stay, whatever mode the network is in."""

        def __init__(self, channels: int, dimensions: int = 2) -> None:
            super().__init__()
            self.inner = (nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm1d)(channels, eps=1.001e-5)
            self.inner.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.inner.eval()
            return self.inner(x)

    class Block(nn.Module):
        """Pre-activation bottleneck; `cut` starts at the ReLU before its last convolution."""

        def __init__(self, channels: int, width: int, stride: int = 1, project: bool = False) -> None:
            super().__init__()
            self.before = nn.Sequential(Normalization(channels), nn.ReLU())
            self.project = nn.Conv2d(channels, 4 * width, 1) if project else None
            self.shorten = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
            self.branch = nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False), Normalization(width), nn.ReLU(),
                nn.Conv2d(width, width, 3, stride, 1, bias=False), Normalization(width), nn.ReLU(),
                nn.Conv2d(width, 4 * width, 1),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            activated = self.before(x)
            return self.branch(activated) + (self.project(activated) if self.project else self.shorten(x))

    class Tail(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Sequential(nn.ReLU(), nn.Conv2d(256, 1024, 1))
            self.blocks = nn.Sequential(
                *(Block(1024, 256) for _ in range(9)), Block(1024, 256, stride=2),
                Block(1024, 512, project=True), Block(2048, 512), Block(2048, 512),
                Normalization(2048), nn.ReLU(),
            )  # fmt: skip
            self.head = nn.Sequential(
                nn.Linear(2048, 1024), nn.ReLU(), Normalization(1024, 1), nn.Dropout(0.5), nn.Linear(1024, 1)
            )

        def forward(self, branch: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
            return self.head(self.blocks(self.cut(branch) + shortcut).mean((2, 3)))

    torch.manual_seed(0)
    tail = Tail().to(memory_format=torch.channels_last)
    trained = [weights for weights in tail.parameters() if weights.requires_grad]
    optimizer = torch.optim.RMSprop(trained, 1e-5)
    inputs = [torch.randn(batch, c, h, w).to(memory_format=torch.channels_last) for h, w, c in FRONTIER]
    labels = (torch.arange(batch) % 2).float()[:, None]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            logits = tail(*inputs)
        loss = nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
        (loss + 0.01 * tail.head[0].weight.square().sum()).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
