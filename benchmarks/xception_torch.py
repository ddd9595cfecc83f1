"""Time Xception in PyTorch's eager mode: the forward pass of the frozen part, and a step that trains the last layers.

    python benchmarks/xception_torch.py --precision bfloat16 --memory channels_last

For a Python that has torch; `benchmarks/eager.py` starts it. The weights are random, which costs the same time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

WEIGHTS = 20_861_480  # of Keras' Xception without its top, with the statistics of its normalization
MIDDLE = 8  # blocks of the middle flow
TRAINED = 4  # of them, in the last 56 of Keras' layers
SHAPE = (3, 224, 224)


def normalization(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def separable(channels: int, filters: int) -> nn.Sequential:
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(channels, filters, 1, bias=False), normalization(filters))


class Block(nn.Module):
    """Separable convolutions with a shortcut around them; `halves` makes the sides of the image half as long."""

    def __init__(self, sizes: list[int], halves: bool = False, activated: bool = True) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for place, (channels, filters) in enumerate(pairwise(sizes)):
            # Not in place: the shortcut reads the same tensor.
            parts += [nn.ReLU()] if activated or place else []
            parts.append(separable(channels, filters))
        self.branch = nn.Sequential(*parts, *([nn.MaxPool2d(3, 2, padding=1)] if halves else []))
        resized = nn.Sequential(nn.Conv2d(sizes[0], sizes[-1], 1, 2, bias=False), normalization(sizes[-1]))
        self.shortcut = resized if halves else nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.branch(inputs) + self.shortcut(inputs)


def xception() -> tuple[nn.Sequential, nn.Sequential]:
    """The part that stays frozen, from images (n, 3, s, s), and the part that is trained, to features (n, 2048)."""
    entry = [
        nn.Conv2d(3, 32, 3, 2, bias=False), normalization(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, bias=False), normalization(64), nn.ReLU(),
        Block([64, 128, 128], halves=True, activated=False),
        Block([128, 256, 256], halves=True),
        Block([256, 728, 728], halves=True),
    ]  # fmt: skip
    middle = [Block([728] * 4) for _ in range(MIDDLE)]
    ends = [separable(1024, 1536), nn.ReLU(), separable(1536, 2048), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    last = [Block([728, 728, 1024], halves=True), *ends]
    return nn.Sequential(*entry, *middle[:-TRAINED]), nn.Sequential(*middle[-TRAINED:], *last)


def main() -> None:
    parser = argparse.ArgumentParser(description="Xception in PyTorch, eager, timed.")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--memory", choices=("contiguous", "channels_last"), default="channels_last")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="images of a forward pass")
    parser.add_argument("--step", type=int, default=16, help="images of a step")
    options = parser.parse_args()
    torch.manual_seed(7)
    memory = torch.channels_last if options.memory == "channels_last" else torch.contiguous_format
    frozen, trained = (part.eval().to(memory_format=memory) for part in xception())
    tensors = [tensor for part in (frozen, trained) for tensor in part.state_dict().values() if tensor.ndim]
    if sum(tensor.numel() for tensor in tensors) != WEIGHTS:
        raise SystemExit("this is another network than Keras' Xception")

    head = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.BatchNorm1d(1024), nn.Dropout(0.5), nn.Linear(1024, 1))
    head[2].eval()  # as fine-tuning keeps it
    for part in trained.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.requires_grad_(False)
    weights = [weight for part in (trained, head) for weight in part.parameters() if weight.requires_grad]
    optimizer = torch.optim.RMSprop(weights, lr=1e-5, alpha=0.9, eps=1e-7)
    precision = torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16")

    images = torch.rand(options.batch, *SHAPE).to(memory_format=memory)
    labels = torch.randint(0, 2, (options.step, 1)).float()

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        with precision:
            return frozen(images)

    crossing = forward()[: options.step].clone()

    def step() -> None:
        optimizer.zero_grad()
        with precision:
            scores = head(trained(crossing))
        loss = nn.functional.binary_cross_entropy_with_logits(scores.float(), labels)
        loss.backward()
        optimizer.step()

    print(json.dumps({"forward": seconds(forward, options.rounds), "step": seconds(step, options.rounds)}))


def seconds(work: Callable[[], object], rounds: int) -> float:
    """The median of `rounds` after two that warm up."""
    taken = []
    for _ in range(rounds + 2):
        clock = time.perf_counter()
        work()
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken[2:])


if __name__ == "__main__":
    main()
