"""What every data module of speech does: batches, tokens, what it leaves out and what it says of that."""

from typing import Any

import pytest
import torch
from torch import Tensor

from resdomains.training import BadSample
from resdomains_tasks.speech_recognition import (
    Augment,
    Characters,
    Gain,
    Joined,
    Noise,
    Normalization,
    SpeechData,
    SpeechSpec,
    SpeedPerturbation,
    Tokenizer,
    TranscribedFolder,
    Utterance,
)

from .support import RATE, Damaged, Given, Kept, said, spec_of, write_corpus

TEXTS = ["low", "mid high", "high", "low low mid", "mid", "high low", "mid mid", "low high mid"]


def utterances() -> list[Utterance]:
    return [said(text, f"{n}.wav", seed=n) for n, text in enumerate(TEXTS)]


def silent(samples: int, text: str = "low", rate: int = RATE) -> Utterance:
    return Utterance(Kept(torch.zeros(samples), rate), text, f"{samples}.wav")


def batches(data: SpeechData, split: str = "train") -> list[dict[str, Any]]:
    loader: Any = getattr(data, f"{split}_dataloader")()
    return list(loader)


def batch_of(data: SpeechData, *places: int) -> dict[str, Any]:
    found: Any = data.ready_dataset("train")
    return dict(found.__getitems__(list(places)))


def rows(batch: dict[str, Any]) -> dict[int, tuple[Tensor, Tensor]]:
    """What counts of each sample: its sound and its tokens."""
    return {
        int(index): (sound[:length], tokens[:count])
        for index, sound, length, tokens, count in zip(
            batch["index"],
            batch["waveform"],
            batch["lengths"],
            batch["tokens"],
            batch["token_lengths"],
            strict=True,
        )
    }


def test_a_batch_holds_each_sound_and_its_transcripts_ids_and_zeros_behind() -> None:
    given = utterances()
    data = Given(given)
    batch = batch_of(data, 3, 0)
    tokenizer = Tokenizer(data.speech_spec.tokenizer)
    assert batch["index"].tolist() == [3, 0]
    assert batch["waveform"].dtype == torch.float32
    assert "keys" not in batch
    for place, index in enumerate((3, 0)):
        sound, length = batch["waveform"][place], int(batch["lengths"][place])
        assert sound[:length].equal(given[index].audio.read())
        assert not sound[length:].any()
        ids, count = batch["tokens"][place], int(batch["token_lengths"][place])
        assert tokenizer.decode(ids[:count].tolist()) == TEXTS[index]
        assert ids[:count].all()
        assert not ids[count:].any()
    assert batch["lengths"][0] > batch["lengths"][1]


def test_transcripts_are_normalised_before_they_are_spelled() -> None:
    given = [said("low", "a"), Utterance(Kept(torch.zeros(400)), "  LOW,   mid! ", "b")]
    data = Given(given)
    ids = rows(batch_of(data, 1))[1][1].tolist()
    assert Tokenizer(data.speech_spec.tokenizer).decode(ids) == "low mid"
    assert data.describe("train", 1) == {
        "source": "b",
        "seconds": 0.2,
        "text": "  LOW,   mid! ",
        "reference": "low mid",
    }


def test_recordings_are_resampled_and_their_lengths_known_before() -> None:
    rates = [RATE, 3 * RATE, 1100]
    data = Given([silent(600, "low", rate) for rate in rates])
    batch = batch_of(data, 0, 1, 2)
    assert batch["lengths"].tolist() == [600, 200, 1091]
    assert batch["lengths"].tolist() == data.ready_dataset("train").lengths.tolist()  # type: ignore[attr-defined]
    assert [data.describe("train", i)["seconds"] for i in range(3)] == [0.3, 0.1, 0.545]


def test_short_and_long_recordings_train_not_but_are_evaluated_and_are_counted() -> None:
    given = [silent(n) for n in (199, 200, 600, 1000, 1001, 1002)]
    data = Given(given, val=given, shortest=0.1, longest=0.5, notes=["read by hand"])
    train: Any = data.ready_dataset("train")
    assert [u.source for u in train.utterances] == ["200.wav", "600.wav", "1000.wav"]
    assert len(data.ready_dataset("val")) == 6  # type: ignore[arg-type]
    amounts, own, short, long = data.notes
    assert amounts == "recordings: train 3 utterances of 1 s, val 6 utterances of 2 s"
    assert own == "read by hand"
    assert short == (
        "1 training recordings of less than 0.1 s are left out (--data.shortest): 199.wav"
    )
    assert long == (
        "2 training recordings of more than 0.5 s are left out (--data.longest): 1001.wav; 1002.wav"
    )


def test_where_nothing_is_left_the_bounds_are_named() -> None:
    data = Given([silent(100), silent(150)])
    with pytest.raises(
        ValueError,
        match=r"no training recording that can be used; 2 training recordings of less than 0\.1 s .*100\.wav; 150",
    ):
        data.ready()


UNUSABLE = [
    (" ?! ", r"b: the transcript ' \?! ' has no words"),
    ("low ☃", r"b: no token spells '☃'.* \(--data\.bad_samples skip leaves such samples out\)"),
]


@pytest.mark.parametrize(("text", "message"), UNUSABLE)
def test_a_transcript_that_cannot_be_spelled_is_refused_by_its_place(
    text: str, message: str
) -> None:
    bad = Utterance(Kept(torch.zeros(400)), text, "b")
    options: dict[str, Any] = {"tokens": Characters("dghilmow")}
    with pytest.raises(BadSample, match=message):
        Given([said("low"), bad], **options).ready()
    with pytest.raises(BadSample, match=message):
        Given([said("low")], test=[bad], **options).ready()
    data = Given([said("low"), bad], test=[bad, said("mid")], bad_samples="skip", **options)
    assert [len(data.ready_dataset(split)) for split in ("train", "test")] == [1, 1]  # type: ignore[arg-type]
    assert [sample.source for sample in data.left_out] == ["b", "b"]
    assert data.describe("test", 0)["reference"] == "mid"
    assert data.notes[-1].startswith("2 recordings are left out (--data.bad_samples skip): b: ")
    assert "replace or remove" not in data.notes[-1]


def test_where_no_transcript_can_be_spelled_one_is_told_why() -> None:
    data = Given([said("low"), said("mid")], tokens=Characters("xyz"), bad_samples="skip")
    with pytest.raises(
        ValueError, match=r"no training recording that can be used; 2 rec.* skip\): low: "
    ):
        data.ready()


def test_a_split_of_which_nothing_can_be_used_is_none() -> None:
    bad = Utterance(Damaged(), "low", "bad")
    data = Given([said("low")], val=[bad], bad_samples="skip")
    assert not data.has("val")
    assert data.val_dataloader() == []


def test_a_damaged_recording_is_refused_when_it_is_needed_or_left_out_before() -> None:
    given = [said("low"), Utterance(Damaged(), "mid", "t.json:2"), said("high")]
    data = Given(given)
    batch = batch_of(data, 0, 1)
    for split in ("train", "val"):
        with pytest.raises(
            BadSample, match=r"damaged\.wav: cannot be decoded \(--data\.bad_samples skip"
        ):
            data.transform(batch, split)
    data = Given(given, bad_samples="skip")
    train: Any = data.ready_dataset("train")
    assert [u.source for u in train.utterances] == ["low", "high"]
    assert data.notes[-1] == (
        "1 recordings are left out (--data.bad_samples skip): damaged.wav: cannot be decoded"
    )


def test_other_data_are_read_as_the_checkpoints_were() -> None:
    trained = spec_of("abc low mid high", rate=1000)
    data = Given([said("low"), said("mid high")], tokens=Characters("xyz"))
    data.adopt(trained.plain())
    assert data.speech_spec == trained
    sound, ids = rows(batch_of(data, 1))[1]
    assert len(sound) == -(-data.given["train"][1].audio.samples // 2)
    assert Tokenizer(trained.tokenizer).decode(ids.tolist()) == "mid high"
    foreign = Given([said("low"), Utterance(Kept(torch.zeros(400)), "zoo", "z.txt")])
    foreign.adopt(trained.plain())
    with pytest.raises(BadSample, match=r"z\.txt: no token spells 'z'"):
        foreign.ready()


def test_the_description_is_plain_and_rebuilds_itself() -> None:
    data = Given(utterances(), tokens=Characters(normalization=Normalization(case="keep")))
    assert SpeechSpec.of(data.spec) == data.speech_spec
    assert data.speech_spec.output_names == ["<blank>", *"dghilmow", "▁"]
    assert data.speech_spec.vocabulary == 10


@pytest.mark.parametrize("seed", [0, 1])
def test_two_processes_together_see_the_samples_of_one(seed: int) -> None:
    given = utterances() * 3
    data = Given(given, val=given[:5], batch_size=4, seed=seed)
    data.ready()
    alone = data.batch_sampler("train", 0, 1)
    shares = [data.batch_sampler("train", rank, 2) for rank in range(2)]
    for epoch in range(3):
        for batch, first, second in zip(
            alone.batches(epoch), *(share.batches(epoch) for share in shares), strict=True
        ):
            assert sorted(batch) == sorted([*first, *second])
        seen = [index for batch in alone.batches(epoch) for index in batch]
        assert sorted(seen) == list(range(24))
    evaluated = [i for r in range(2) for b in data.batch_sampler("val", r, 2).batches(0) for i in b]
    assert sorted(evaluated) == list(range(5))
    whole = data.batch_sampler("val", 0, 1)
    assert list(whole.batches(0)) == list(whole.batches(1))


def test_batches_hold_equally_much_sound() -> None:
    given = [silent(n) for n in (*range(200, 400, 2), *range(3600, 4000, 40))]
    data = Given(given, batch_size=10)
    padded = [b["waveform"].numel() for b in batches(data)]
    assert len(padded) == 11
    assert max(padded) < 1.3 * sum(padded) / 11
    assert data.amount(250) == "2.5 s of sound"


def transformed(data: SpeechData, *places: int) -> dict[int, tuple[Tensor, Tensor]]:
    return rows(data.transform(batch_of(data, *places), "train"))


PARTS: list[Augment] = [SpeedPerturbation(), Noise((5.0, 20.0), probability=0.7), Gain(-6.0, 6.0)]


class AtEpoch(Given):
    """Stands at an epoch."""

    at = 0

    @property
    def epoch(self) -> int:
        return self.at


def test_augmentation_depends_on_seed_epoch_and_sample_alone() -> None:
    data = AtEpoch(utterances(), augment=PARTS)
    together = transformed(data, *range(8))
    for places in ([5], [7, 2, 5], [5, 0]):
        own, _ = transformed(data, *places)[5]
        assert own.shape == together[5][0].shape
        assert torch.allclose(own, together[5][0], atol=1e-6)
    assert transformed(AtEpoch(utterances(), augment=PARTS), 5)[5][0].equal(
        transformed(data, 5)[5][0]
    )
    other = transformed(AtEpoch(utterances(), augment=PARTS, seed=1), *range(8))
    data.at = 1
    later = transformed(data, *range(8))
    for changed in (other, later):
        assert not any(torch.equal(changed[i][0], together[i][0]) for i in range(8))
    # Each part draws for itself: gains alone are not those of the three parts' first numbers.
    speeds = {len(together[i][0]) / len(utterances()[i].audio.read()) for i in range(8)}
    assert len({round(speed, 2) for speed in speeds}) > 1


def test_training_alone_is_augmented_and_has_keys() -> None:
    data = Given(utterances(), augment=[Gain(-20.0, -10.0)])
    batch = batch_of(data, *range(8))
    train = data.transform(batch, "train")
    assert train["keys"].shape == (8,)
    assert len(set(train["keys"].tolist())) == 8
    assert (train["waveform"].abs().amax(1) < 0.4 * batch["waveform"].abs().amax(1)).all()
    for split in ("val", "test"):
        same = data.transform(batch, split)
        assert "keys" not in same
        assert same["waveform"].equal(batch["waveform"])


def test_without_augmentation_only_keys_are_added() -> None:
    data = Given(utterances())
    batch = batch_of(data, 0, 1)
    assert data.transform(batch, "train")["waveform"].equal(batch["waveform"])
    assert "keys" in data.transform(batch, "train")


def test_no_more_than_kept_mib_of_all_splits_stays_in_memory() -> None:
    def reads(kept_mib: int) -> list[int]:
        given = [silent(100_000) for _ in range(6)]  # 0.4 MB each
        data = Given(given[:4], val=given[4:], longest=100.0, kept_mib=kept_mib)
        for _ in range(2):
            for place in range(6):
                found: Any = data.ready_dataset("train" if place < 4 else "val")
                found.waveform(place % 4)
        return [u.audio.reads for u in given]  # type: ignore[attr-defined]

    assert reads(1) == [1, 1, 2, 2, 2, 2]
    assert reads(0) == [2] * 6
    assert reads(16) == [1] * 6


def test_loader_processes_give_the_same_batches(tmp_path: Any) -> None:
    write_corpus(tmp_path, 20)
    options: dict[str, Any] = {"root": str(tmp_path), "sample_rate": RATE, "batch_size": 4}
    here, elsewhere = (batches(TranscribedFolder(**options, num_workers=n)) for n in (0, 2))
    assert len(here) > 3
    for one, other in zip(here, elsewhere, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)


def test_an_utterance_is_described_and_can_be_heard_as_it_is_evaluated() -> None:
    given = said("low mid", "a/b.wav", speaker="ann")
    data = Given([said("low mid")], test=[given], augment=PARTS)
    data.ready()
    assert data.describe("test", 0) == {
        "source": "a/b.wav",
        "speaker": "ann",
        "seconds": round(given.audio.samples / RATE, 3),
        "text": "low mid",
        "reference": "low mid",
    }
    assert data.sound("test", 0).equal(given.audio.read())


def test_joined_recordings_are_utterances_like_others() -> None:
    parts = [said("low").audio, said("mid", seed=1).audio]
    joined = Utterance(Joined(parts, [0.1]), "low mid", "joined")
    sound, _ = rows(batch_of(Given([joined]), 0))[0]
    assert sound.equal(torch.cat((parts[0].read(), torch.zeros(200), parts[1].read())))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be at least 1 Hz, got 0"),
        ({"shortest": 3.0, "longest": 2.0}, r"rising seconds from 0, got 3\.0 and 2\.0"),
        ({"shortest": -1.0}, r"rising seconds from 0, got -1\.0 and 20\.0"),
        ({"bad_samples": "ignore"}, "bad_samples must be 'refuse' or 'skip', got 'ignore'"),
        ({"kept_mib": -1}, "kept_mib must be at least 0, got -1"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Given([said("low")], **options)
