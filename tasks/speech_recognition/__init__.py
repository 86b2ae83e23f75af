"""Speech recognition: the words that are spoken in a recording."""

from .audio import AudioFile, Joined
from .augment import Augment, Equalizer, Gain, Noise, SpeedPerturbation
from .ctc import CTC
from .data import Recordings, SpeechData
from .decoding import Decoder, Greedy, PrefixBeam
from .digit_strings import DigitStrings
from .folder import TranscribedFolder
from .frontend import BandNorm, FeatureNorm, Frontend, ItemNorm, LogMel, Waveform
from .fsdd import SpokenDigits, SpokenDigitStrings
from .librispeech import LibriSpeech
from .manifest import Manifest
from .masking import SpecAugment
from .normalization import Normalization
from .spec import SpeechSpec
from .task import SpeechRecognition
from .tokens import BytePairs, Characters, Tokenizer, Tokens
from .utterances import Audio, Corpus, Utterance
from .windows import Window, Windows
from .yesno import YesNo

__all__ = [
    "CTC",
    "Audio",
    "AudioFile",
    "Augment",
    "BandNorm",
    "BytePairs",
    "Characters",
    "Corpus",
    "Decoder",
    "DigitStrings",
    "Equalizer",
    "FeatureNorm",
    "Frontend",
    "Gain",
    "Greedy",
    "ItemNorm",
    "Joined",
    "LibriSpeech",
    "LogMel",
    "Manifest",
    "Noise",
    "Normalization",
    "PrefixBeam",
    "Recordings",
    "SpecAugment",
    "SpeechData",
    "SpeechRecognition",
    "SpeechSpec",
    "SpeedPerturbation",
    "SpokenDigitStrings",
    "SpokenDigits",
    "Tokenizer",
    "Tokens",
    "TranscribedFolder",
    "Utterance",
    "Waveform",
    "Window",
    "Windows",
    "YesNo",
]
