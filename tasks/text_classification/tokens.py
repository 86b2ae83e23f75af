"""What a token is: characters, bytes, learned pieces of words, or what a pretrained model reads.

Each kind ends in a `tokenizers.Tokenizer`, whose JSON holds all that turns a text into ids; so there is one way to
encode, and a checkpoint carries it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from resdomains.training import read_checkpoint

from .spec import TextSpec

PAD, UNKNOWN, FIRST, SEPARATOR = "[PAD]", "[UNK]", "[CLS]", "[SEP]"

# Conneau et al. 2017: with padding, the unknown and the space 69 ids.
_VDCNN = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/|_#$%^&*~`+=<>()[]{}"


class Tokens(ABC):
    """How texts are cut into tokens; id 0 is padding.

    Attributes:
        vocabulary: Number of ids, some perhaps unused: what the network takes as `in_channels`.
    """

    vocabulary: int

    @abstractmethod
    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer, learned on the training texts where it learns; equal texts give equal ones.

        Raises:
            ValueError: If the texts do not suffice.
        """


def readable(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts without lone surrogates, which have no UTF-8 and which `tokenizers` refuses."""
    for text in texts:
        yield text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


class Characters(Tokens):
    """A token for each character (Zhang et al. 2015, Conneau et al. 2017), for convolutional networks.

    Ids are 0 for padding, 1 for characters that are not in the alphabet, then the alphabet in its order. An unknown
    character stands between the texts of a pair.

    Args:
        alphabet: The characters; VDCNN's 66 and the space, with which there are 69 ids, if not given.
        lowercase: Whether capital letters are read as small ones.

    Raises:
        ValueError: If a character occurs twice.
    """

    def __init__(self, alphabet: str = _VDCNN + " ", lowercase: bool = True) -> None:
        twice = sorted({c for c in alphabet if alphabet.count(c) > 1})
        if not alphabet or twice:
            raise ValueError(
                f"alphabet must hold each character once, got {''.join(twice)!r} more than once"
                if twice
                else "alphabet must hold at least one character"
            )
        self.alphabet, self.lowercase = alphabet, lowercase
        self.vocabulary = len(alphabet) + 2

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer; it learns nothing."""
        ids = {PAD: 0, UNKNOWN: 1}
        ids |= {character: number for number, character in enumerate(self.alphabet, 2)}
        tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
        if self.lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return _between(tokenizer)


class Bytes(Tokens):
    """A token for each byte of the UTF-8 text, whatever the language: 258 ids.

    Ids are 0 for padding, 1 for what stands between the texts of a pair, then the bytes.
    """

    def __init__(self) -> None:
        self.vocabulary = 258

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer; it learns nothing."""
        ids = {PAD: 0, UNKNOWN: 1}
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        ids |= {letter: number for number, letter in enumerate(letters, 2)}
        tokenizer = Tokenizer(models.BPE(ids, [], unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        return _between(tokenizer)


class WordPiece(Tokens):
    """Pieces of words, learned on the training texts as BERT's were (Devlin et al. 2019): `[CLS] text [SEP]`.

    Args:
        vocabulary: Number of ids; fewer are used where the texts hold no more.
        lowercase: Whether capitals and accents are dropped.

    Raises:
        ValueError: If the vocabulary is too small for the special tokens.
    """

    def __init__(self, vocabulary: int = 8000, lowercase: bool = True) -> None:
        self.vocabulary, self.lowercase = _vocabulary(vocabulary, 6), lowercase

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn the pieces."""
        texts = list(readable(texts))
        normalizer = normalizers.BertNormalizer(lowercase=self.lowercase)
        special = [PAD, UNKNOWN, FIRST, SEPARATOR]
        # Rarer characters of the texts become unknown, so that the vocabulary holds longer pieces too.
        alphabet = _alphabet(
            map(normalizer.normalize_str, texts),
            min(1000, (self.vocabulary - len(special)) // 2),
        )
        # The trainer numbers `##` characters as its hash table gives out words, otherwise in every process, and breaks
        # ties by number. Told before, they have one order; that it calls them special is undone below.
        inner = [f"##{character}" for character in alphabet]
        learner = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        learner.normalizer = normalizer
        learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[*special, *alphabet, *inner],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        learner.train_from_iterator(texts, trainer)
        pieces = learner.get_vocab()
        tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=UNKNOWN))
        tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        tokenizer.add_special_tokens(special)
        return _around(tokenizer)


class BytePairs(Tokens):
    """Runs of bytes, learned on the training texts (Sennrich et al. 2016; bytes as GPT-2): nothing is unknown.

    Args:
        vocabulary: Number of ids; fewer are used where the texts hold no more.

    Raises:
        ValueError: If the vocabulary has no room for the 256 bytes.
    """

    def __init__(self, vocabulary: int = 8000) -> None:
        self.vocabulary = _vocabulary(vocabulary, 260)

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn the runs."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[PAD, UNKNOWN, FIRST, SEPARATOR],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(readable(texts), trainer)
        return _around(tokenizer)


class Pretrained(Tokens):
    """The tokenizer of a pretrained model, as its maker published it, or of an earlier run.

    Args:
        source: A local folder, a hub id, such as `google-bert/bert-base-uncased`, or a run's checkpoint (`.ckpt`).
        vocabulary: Number of ids of the model, if it has more than its tokenizer.

    Raises:
        ValueError: If there is no tokenizer in the folder, or none of the `tokenizers` library, or it has more ids
            than `vocabulary`.
    """

    def __init__(self, source: str, vocabulary: int | None = None) -> None:
        self.source = source
        if source.endswith(".ckpt"):
            self._tokenizer, trained = _of_run(source)
            vocabulary = trained if vocabulary is None else vocabulary
        else:
            self._tokenizer = _published(source)
        # The largest counts, not how many there are: some vocabularies have gaps.
        known = max(self._tokenizer.get_vocab().values()) + 1
        if vocabulary is not None and vocabulary < known:
            raise ValueError(
                f"vocabulary must be at least the {known} ids of the tokenizer of {source}, got {vocabulary}"
            )
        self.vocabulary = known if vocabulary is None else vocabulary

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer; it learns nothing more."""
        return self._tokenizer


def _of_run(source: str) -> tuple[Tokenizer, int]:
    """The tokenizer in a checkpoint, and the number of ids of its network."""
    try:
        spec = TextSpec.of(read_checkpoint(Path(source).expanduser())["resdomains"]["spec"])
        return Tokenizer.from_str(spec.tokenizer), spec.vocabulary
    except Exception as error:  # `tokenizers` raises nothing narrower for JSON that is not its own
        raise ValueError(f"source: {source} holds no tokenizer of texts: {error}") from error


def _published(source: str) -> Tokenizer:
    # Imported here: it takes seconds, which other tokens need not wait.
    from transformers import AutoTokenizer

    folder = Path(source).expanduser()
    if folder.is_file():
        raise ValueError(f"source: {source} is a file; give the folder that holds the tokenizer")
    try:
        found = AutoTokenizer.from_pretrained(
            str(folder) if folder.is_dir() else source, use_fast=True, trust_remote_code=False
        )
    except Exception as error:  # whatever transformers makes of a stranger's folder
        what = (
            "holds no tokenizer" if folder.is_dir() else "is no folder, and no id that can be had"
        )
        first = str(error).strip().splitlines()[:1]
        raise ValueError(
            f"source: {source} {what} from the hub: {''.join(first)}"
            if not folder.is_dir()
            else f"source: the folder {source} {what} (tokenizer.json, or vocab.txt): {''.join(first)}"
        ) from error
    backend = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"source: the tokenizer of {source} ({type(found).__name__}) is not of the `tokenizers` library, "
            "whose JSON a checkpoint can carry"
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _vocabulary(value: int, least: int) -> int:
    if value < least:
        raise ValueError(f"vocabulary must be at least {least}, got {value}")
    return value


def _alphabet(texts: Iterable[str], most: int) -> list[str]:
    """The most frequent characters but blanks, in their own order; of equally frequent ones the smaller."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    found = [character for character in counts if not character.isspace()]
    return sorted(sorted(found, key=lambda c: (-counts[c], c))[:most])


def _between(tokenizer: Tokenizer) -> Tokenizer:
    """Put the unknown between the texts of a pair, and nothing around a single text."""
    return _template(tokenizer, "$A", f"$A {UNKNOWN}:1 $B:1", (UNKNOWN,))


def _around(tokenizer: Tokenizer) -> Tokenizer:
    """Put BERT's tokens around texts."""
    single = f"{FIRST} $A {SEPARATOR}"
    return _template(tokenizer, single, f"{single} $B:1 {SEPARATOR}:1", (FIRST, SEPARATOR))


def _template(tokenizer: Tokenizer, single: str, pair: str, special: tuple[str, ...]) -> Tokenizer:
    ids = [(name, tokenizer.token_to_id(name)) for name in special]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=ids
    )
    return tokenizer
