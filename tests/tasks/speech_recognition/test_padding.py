"""From samples to probabilities, an utterance alone is the utterance in a batch: through whole networks, in eval."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import resdomains.core as core
from resdomains.core import FrameHead
from resdomains_tasks.speech_recognition.frontend import Frontend, LogMel, Waveform

RATE = 16000


def utterances(count: int) -> list[Tensor]:
    """Sounds of 0.1 to 3 seconds, with a constant and silent parts, as recordings have them."""
    generator = torch.Generator().manual_seed(0)
    seconds = torch.rand(count, generator=generator) ** 2 * 2.9 + 0.1
    sounds = []
    for length in (seconds * RATE).long().tolist():
        envelope = torch.rand(length // 1600 + 1, generator=generator).repeat_interleave(1600)
        noise = torch.randn(length, generator=generator)
        sounds.append(0.1 * envelope[:length].round() * noise + 0.01)
    return sounds


class Recogniser(nn.Module):
    """Frontend, backbone and head, with running statistics that are not those of a fresh network."""

    def __init__(self, frontend: Frontend, backbone: core.Backbone) -> None:
        super().__init__()
        self.frontend, self.backbone = frontend, backbone
        self.head = FrameHead(backbone.out_channels[-1], 30)
        generator = torch.Generator().manual_seed(1)
        for part in self.modules():
            if isinstance(part, core.BatchNorm):
                part.running_mean.normal_(0.0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
            if isinstance(part, core.Norm) and part.normalises:
                nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(*self.frontend(waveform, lengths))
        valid = features.valid[-1]
        assert valid is not None
        return self.head(features).log_softmax(2), valid.lengths


def heard(network: Recogniser, sounds: list[Tensor]) -> list[Tensor]:
    """The log-probabilities of each, computed as one batch."""
    lengths = torch.tensor([len(sound) for sound in sounds])
    waveform = nn.utils.rnn.pad_sequence(sounds, batch_first=True)
    # Whatever stands behind a recording must not matter.
    waveform = waveform.masked_fill(torch.arange(waveform.shape[1]) >= lengths[:, None], 0.7)
    with torch.no_grad():
        out, frames = network(waveform, lengths)
    return [row[:count] for row, count in zip(out, frames.tolist(), strict=True)]


def check(network: Recogniser, count: int) -> None:
    network.eval()
    sounds = utterances(count)
    with torch.no_grad():  # logits as large as those of a trained network
        network.head.linear.weight.mul_(3.0 / heard(network, sounds[:1])[0].std())
    alone = [heard(network, [sound])[0] for sound in sounds]
    assert max(float(x.std(0).max()) for x in alone) > 0.01  # frames differ
    for size in (2, 8, 32):
        for begin in range(0, count, size):
            batch = heard(network, sounds[begin : begin + size])
            for found, expected in zip(batch, alone[begin:], strict=False):
                assert found.shape == expected.shape
                torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def resnet() -> core.ResNet1d:
    return core.ResNet1d((1, 1), (8, 16), 1, stem=core.WaveformStem)


SMALL: dict[str, tuple[Callable[[], core.Backbone], int]] = {
    "quartznet": (lambda: core.quartznet(1, 2, 8, (5, 7), 9), 64),
    "quartznet_tiny": (core.quartznet_tiny, 64),
    "citrinet": (lambda: core.citrinet(16), 80),
    "group norm": (
        lambda: core.quartznet(1, 2, 8, (5, 7), 9, norm=lambda c: core.GroupNorm(c, c // 2)),
        64,
    ),
}
NAMED: dict[str, tuple[Callable[[], core.Backbone], int]] = {
    "quartznet5x5": (core.quartznet5x5, 64),
    "conformer_small": (core.conformer_small, 80),
    "citrinet_256": (core.citrinet_256, 80),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_hear_the_same_alone_and_in_batches(name: str) -> None:
    torch.manual_seed(0)
    build, bands = SMALL[name]
    check(Recogniser(LogMel(RATE, bands), build()), 32)


def test_a_network_over_samples_hears_the_same_alone_and_in_batches() -> None:
    torch.manual_seed(0)
    check(Recogniser(Waveform(RATE), resnet()), 32)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_named_networks_hear_the_same_alone_and_in_batches(name: str) -> None:
    torch.manual_seed(0)
    build, bands = NAMED[name]
    check(Recogniser(LogMel(RATE, bands), build()), 50)


@pytest.mark.parametrize("name", ["quartznet", "citrinet"])
def test_the_check_would_find_a_network_that_reads_padding(name: str) -> None:
    """Without lengths the same networks are far off."""
    torch.manual_seed(0)
    build, bands = SMALL[name]
    network = Recogniser(LogMel(RATE, bands), build()).eval()
    blind = network.backbone.forward

    def forward(x: Tensor, lengths: Tensor) -> core.Features:
        features = blind(x, lengths)
        return core.Features(blind(x).maps, features.valid)

    network.backbone.forward = forward
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        check(network, 8)
