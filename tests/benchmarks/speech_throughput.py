"""Training and decoding of QuartzNet on the CPU: seconds of sound a second.

Training is a step from features to CTC loss, backward pass and AdamW, for quartznet5x5 on recordings of real lengths:
those of an4_mini, and strings of 2 to 6 digits of FSDD. Ours is the core's network under bfloat16 autocast with
batches of like length; the other one is the same network of `nn.Conv1d` and `nn.BatchNorm1d` in float32 with random
batches padded to their longest. Both see the same recordings an epoch, in as many batches, each in a process
of its own. Decoding is from samples to tokens, greedily, for quartznet15x5 in bfloat16 with folded norms. Padding is
not counted.

python -m tests.benchmarks.speech_throughput --root ../shared/data [--threads 2] [--rounds 5]
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resdomains.core import FrameHead, fold, quartznet5x5, quartznet15x5
from resdomains.training.batches import LengthBatches
from resdomains_tasks.speech_recognition.ctc import CTC
from resdomains_tasks.speech_recognition.decoding import Greedy
from resdomains_tasks.speech_recognition.frontend import LogMel
from tests.benchmarks.measure import Apart, figures_in_turn, ratio, report

VOCABULARY = 29
RATE, HOP = 16000, 160
BATCH = 16
CHANNELS = (256, 256, 512, 512, 512)
KERNELS = (33, 39, 51, 63, 75)


def durations(folder: Path) -> list[float]:
    """Return the seconds of all WAV files under a folder."""
    infos = (soundfile.info(path) for path in sorted(folder.rglob("*.wav")))
    return [info.frames / info.samplerate for info in infos]


def strings(folder: Path, count: int) -> list[float]:
    """Return the seconds of strings of 2 to 6 single digits, with up to 0.2 seconds between."""
    draw, takes = random.Random(0), durations(folder)
    return [
        sum(draw.choice(takes) + draw.uniform(0.0, 0.2) for _ in range(draw.randint(2, 6)))
        for _ in range(count)
    ]


class Recordings:
    """Random features and transcripts of given lengths, as many tokens as people speak letters."""

    def __init__(self, seconds: list[float]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.seconds = seconds
        self.frames = torch.tensor([int(s * RATE) // HOP + 1 for s in seconds])
        self.features = [torch.randn(64, n, generator=generator) for n in self.frames.tolist()]
        self.tokens = [
            torch.randint(1, VOCABULARY, (max(1, int(s * 10)),), generator=generator)
            for s in seconds
        ]

    def batch(self, index: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features (B, 64, T), frames, tokens and their lengths."""
        pad = nn.utils.rnn.pad_sequence
        x = pad([self.features[i].T for i in index], batch_first=True).transpose(1, 2)
        tokens = [self.tokens[i] for i in index]
        lengths = torch.tensor([len(t) for t in tokens])
        return x, self.frames[index], pad(tokens, batch_first=True), lengths


class Block(nn.Module):
    """A block of QuartzNet of five separable convolutions, of torch's own parts."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        width = inputs
        for _ in range(5):
            parts += [*separable(width, outputs, kernel), nn.ReLU(inplace=True)]
            width = outputs
        self.branch = nn.Sequential(*parts[:-1])
        self.shortcut = nn.Sequential(
            nn.Conv1d(inputs, outputs, 1, bias=False), nn.BatchNorm1d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, L) to (B, C', L)."""
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


def separable(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1
) -> list[nn.Module]:
    """Return a depthwise and a pointwise convolution and a norm."""
    padding = dilation * (kernel - 1) // 2
    return [
        nn.Conv1d(inputs, inputs, kernel, stride, padding, dilation, inputs, bias=False),
        nn.Conv1d(inputs, outputs, 1, bias=False),
        nn.BatchNorm1d(outputs),
    ]


def plain() -> nn.Sequential:
    """Return quartznet5x5 with its classifier, of torch's own parts: (B, 64, T) to (B, V, T / 2)."""
    widths = (256, *CHANNELS)
    blocks = [Block(*sizes) for sizes in zip(widths, CHANNELS, KERNELS, strict=False)]
    return nn.Sequential(
        *separable(64, 256, 33, stride=2),
        nn.ReLU(inplace=True),
        *blocks,
        *separable(512, 512, 87, dilation=2),
        nn.ReLU(inplace=True),
        nn.Conv1d(512, 1024, 1, bias=False),
        nn.BatchNorm1d(1024),
        nn.ReLU(inplace=True),
        nn.Conv1d(1024, VOCABULARY, 1),
    )


def plain_loss() -> tuple[nn.Module, Callable[..., Tensor]]:
    """Return the network of torch's parts, and the loss of a batch in float32."""
    network = plain()

    def loss(x: Tensor, frames: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        log_probs = network(x).log_softmax(1).permute(2, 0, 1)
        return F.ctc_loss(log_probs, tokens, (frames + 1) // 2, lengths, zero_infinity=True)

    return network, loss


def our_loss() -> tuple[nn.Module, Callable[..., Tensor]]:
    """Return the core's network, and the loss of a batch under autocast."""
    network = quartznet5x5()
    head, ctc = FrameHead(network.out_channels[-1], VOCABULARY), CTC()

    def loss(x: Tensor, frames: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = network(x, frames)
            logits = head(features)
        valid = features.valid[-1]
        assert valid is not None
        losses: Tensor = ctc(logits, valid.lengths, tokens, lengths)[0]
        return losses.mean()

    return nn.ModuleList([network, head]), loss


class Training:
    """Epochs of steps."""

    def __init__(
        self,
        recordings: Recordings,
        batches: Callable[[int], Iterable[list[int]]],
        build: Callable[[], tuple[nn.Module, Callable[..., Tensor]]],
    ) -> None:
        torch.manual_seed(0)
        self.recordings, self.batches = recordings, batches
        self.network, self.loss = build()
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=True)
        self.epoch = 0

    def __call__(self) -> None:
        """Train one epoch."""
        for index in self.batches(self.epoch):
            self.loss(*self.recordings.batch(index)).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.epoch += 1


def like_lengths(recordings: Recordings) -> LengthBatches:
    """Return batches of recordings of like lengths."""
    return LengthBatches(recordings.frames, BATCH, 0, 1, shuffle=True, seed=0)


def our_training(seconds: list[float]) -> Training:
    """Return epochs of ours over recordings of these lengths."""
    recordings = Recordings(seconds)
    return Training(recordings, like_lengths(recordings).batches, our_loss)


def plain_training(seconds: list[float]) -> Training:
    """Return epochs of the network of torch's parts."""
    recordings = Recordings(seconds)
    count = len(list(like_lengths(recordings).batches(0)))

    def batches(epoch: int) -> list[list[int]]:
        order = torch.randperm(len(seconds), generator=torch.Generator().manual_seed(epoch))
        return [some.tolist() for some in order.tensor_split(count)]

    return Training(recordings, batches, plain_loss)


def training(seconds: list[float], rounds: int, threads: int) -> dict[str, list[float]]:
    """Measure both; returns the seconds of each round's epoch."""
    sizes = [
        sum(p.numel() for p in network.parameters()) for network, _ in (our_loss(), plain_loss())
    ]
    assert sizes[0] == sizes[1]
    builds = {"resdomains": our_training, "nn.Conv1d": plain_training}
    things = {name: Apart(partial(build, seconds), threads) for name, build in builds.items()}
    return figures_in_turn(things, rounds)


class Decoding:
    """Greedy decoding of recordings, from samples to tokens."""

    def __init__(self, seconds: list[float], batch: int) -> None:
        torch.manual_seed(0)
        self.seconds, self.batch = sorted(seconds), batch
        self.frontend = LogMel(RATE).eval()
        backbone = quartznet15x5()
        self.head = FrameHead(backbone.out_channels[-1], VOCABULARY).bfloat16()
        self.backbone = fold(backbone).bfloat16()
        self.sounds = [0.1 * torch.randn(int(s * RATE)) for s in self.seconds]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(0, len(self.sounds), self.batch):
            sounds = self.sounds[begin : begin + self.batch]
            yield (
                nn.utils.rnn.pad_sequence(sounds, batch_first=True),
                torch.tensor([len(sound) for sound in sounds]),
            )

    def __call__(self) -> float:
        """Decode all; returns seconds of sound a second."""
        began = time.perf_counter()
        with torch.inference_mode():
            for waveform, lengths in self._batches():
                x, frames = self.frontend(waveform, lengths)
                features = self.backbone(x.bfloat16(), frames)
                valid = features.valid[-1]
                assert valid is not None
                log_probs = self.head(features).float().log_softmax(2)
                Greedy().decode(log_probs, valid.lengths)
        return sum(self.seconds) / (time.perf_counter() - began)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of an4_mini and fsdd")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strings", type=int, default=64, help="how many strings of digits")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = {
        "an4_mini": durations(arguments.root / "an4_mini"),
        "FSDD strings": strings(arguments.root / "fsdd", arguments.strings),
    }
    rows: list[dict[str, Any]] = []
    for name, seconds in data.items():
        epochs = training(seconds, arguments.rounds, arguments.threads)
        rows += [
            {
                "what": "training, quartznet5x5",
                "recordings": name,
                "of": of,
                "seconds of sound a second": sum(seconds) / statistics.median(values),
                "resdomains is faster by": ratio(values, epochs["resdomains"]),
            }
            for of, values in epochs.items()
        ]
        decoding = {f"batches of {size}": Decoding(seconds, size) for size in (1, BATCH)}
        rows += [
            {
                "what": "greedy decoding, quartznet15x5",
                "recordings": name,
                "of": f"resdomains, {of}",
                "seconds of sound a second": statistics.median(values),
            }
            for of, values in figures_in_turn(decoding, arguments.rounds).items()
        ]
    report("speech_throughput", rows)


if __name__ == "__main__":
    main()
