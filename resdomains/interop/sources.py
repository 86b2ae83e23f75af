"""Where weights come from: a file, or a name that the library's own loader knows."""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from resdomains.core.heads import TaskHead
from resdomains.core.networks.encoder import ResidualEncoder
from resdomains.interop.encoder_shape import KINDS, check_shape
from resdomains.interop.loading import Loaded, load_state
from resdomains.messages import first_line
from resdomains.plain_files import Damaged, HoldsCode, read_plain

if TYPE_CHECKING:
    from resdomains.training.spec import Spec

# transformers' classes that hold all that can be read, by its names for kinds of models.
_CLASSIFIERS = {
    "resnet": "ResNetForImageClassification",
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
}
_FILES = (".safetensors", ".pth", ".pt", ".bin")


class Weights(ABC):
    """Weights to begin with; ``source`` says where they are."""

    def __init__(self, source: str) -> None:
        self.source = source

    @abstractmethod
    def load(
        self, network: nn.Module, head: TaskHead | None = None, spec: Spec | None = None
    ) -> Loaded:
        """Fills ``network``, and ``head`` where its outputs are those of the source.

        ``spec`` describes the data that the network shall learn; weights that know what their
        inputs and outputs mean compare.

        Raises:
            ValueError: the weights do not fit; nothing has been changed then.
        """


class LibraryWeights(Weights):
    """Pretrained weights of another library.

    ``source`` is a file (``.safetensors``; ``.pth``, ``.pt`` or ``.bin``, read with
    ``weights_only=True``, so that no code in it runs) or a name for the library's own loader.
    """

    library: ClassVar[str]

    @abstractmethod
    def fetch(self, name: str) -> Mapping[str, Tensor]:
        """The state that the library has under ``name``.

        Raises:
            ImportError: the library is not installed; the message says what to install.
        """

    def state(self) -> Mapping[str, Tensor]:
        """The library's state, under its own keys.

        Raises:
            FileNotFoundError: ``source`` names a file that is not there.
            ValueError: the file holds something else than tensors by name, or is a run's checkpoint.
        """
        path = Path(self.source).expanduser()
        if path.suffix == ".ckpt":
            raise ValueError(
                f"source: {self.source} is a run's checkpoint, not {self.library}'s weights; it is "
                f"read by resdomains.interop.Checkpoint (--model.weights Checkpoint)"
            )
        return read_state(path) if path.suffix in _FILES else self.fetch(self.source)

    def load(
        self, network: nn.Module, head: TaskHead | None = None, spec: Spec | None = None
    ) -> Loaded:
        """Fills ``network``, and ``head`` where the number of classes agrees.

        Raises:
            ValueError: the weights do not fit; nothing has been changed then.
        """
        return load_state(network, self.state(), self.library, head)


class Torchvision(LibraryWeights):
    """torchvision: ``resnet50`` (its default weights) or ``ResNet50_Weights.IMAGENET1K_V2``."""

    library = "torchvision"

    def fetch(self, name: str) -> Mapping[str, Tensor]:
        models = library("torchvision.models", "pip install 'resdomains[vision]'")
        try:
            weights = (
                models.get_weight(name) if "." in name else models.get_model_weights(name).DEFAULT
            )
        except Exception as error:  # ValueError, KeyError and AttributeError, by the name
            raise ValueError(
                f"source: torchvision knows no weights {name!r}: {first_line(error)}"
            ) from error
        state: Mapping[str, Tensor] = weights.get_state_dict(check_hash=True, progress=False)
        return state


class Timm(LibraryWeights):
    """timm: any name it has weights for, as ``resnet50d.ra2_in1k`` or ``hf_hub:owner/name``."""

    library = "timm"

    def fetch(self, name: str) -> Mapping[str, Tensor]:
        timm = library("timm", "pip install timm")
        try:
            state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
        except (
            Exception
        ) as error:  # whatever timm makes of a name, the network, or a stranger's files
            raise ValueError(f"source: {name}: {first_line(error)}") from error
        return state


class HuggingFace(LibraryWeights):
    """Hugging Face transformers: a local folder or a hub id, such as ``google-bert/bert-base-uncased``.

    Models of the kinds ResNet, BERT, RoBERTa, CamemBERT, XLM-RoBERTa, ELECTRA and DistilBERT; of a
    model for another task the backbone is read. A file may be given too; its ``config.json`` should
    lie beside it, since tensors alone do not tell the number of heads, the activation or eps.
    """

    library = "huggingface"

    def fetch(self, name: str) -> Mapping[str, Tensor]:
        transformers = _transformers()
        kind = _config(name)["model_type"]
        _check_shards(Path(name).expanduser())
        try:
            # A config can name an attention of its own, which transformers would download and import.
            model, info = getattr(transformers, _CLASSIFIERS[kind]).from_pretrained(
                name, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
            )
        except UnpicklingError as error:
            raise ValueError(
                f"source: {name} holds more than tensors, and loading it could run its code; take weights that are "
                "saved as .safetensors"
            ) from error
        except Exception as error:  # whatever transformers makes of a stranger's folder
            raise ValueError(f"source: {name}: {first_line(error)}") from error
        # A folder without a classifier gets a random one there, which is nothing to load.
        absent = set(info["missing_keys"])
        return {key: value for key, value in model.state_dict().items() if key not in absent}

    def load(
        self, network: nn.Module, head: TaskHead | None = None, spec: Spec | None = None
    ) -> Loaded:
        """Fills ``network``, and ``head`` where the number of classes agrees.

        Raises:
            ValueError: the weights do not fit, or were trained in a network that computes something
                else; nothing has been changed then.
        """
        if isinstance(network, ResidualEncoder):
            config = self._config()
            if config is not None and config["model_type"] in KINDS:
                check_shape(network, config, self.source)
        return super().load(network, head, spec)

    def _config(self) -> Mapping[str, Any] | None:
        """transformers' config of the source; None where a file stands alone."""
        path = Path(self.source).expanduser()
        if path.suffix not in _FILES:
            return _config(self.source)
        return _config(str(path.parent)) if (path.parent / "config.json").is_file() else None


def _config(name: str) -> Mapping[str, Any]:
    auto = _transformers().AutoConfig
    try:
        config = auto.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever transformers makes of a broken file
        raise ValueError(
            f"source: {name} is no model of transformers: {first_line(error)}"
        ) from error
    if config.model_type not in _CLASSIFIERS:
        raise ValueError(
            f"source: expected a model of the kinds {', '.join(_CLASSIFIERS)}, but {name} is "
            f"of the kind {config.model_type}"
        )
    found: Mapping[str, Any] = config.to_dict()
    return found


def _check_shards(folder: Path) -> None:
    """Refuse a list of shards that names files elsewhere.

    Raises:
        ValueError: it does, or it is none.
    """
    for path in folder.glob("*.index.json") if folder.is_dir() else ():
        try:
            shards = set(json.loads(path.read_bytes())["weight_map"].values())
            wrong = [shard for shard in shards if Path(shard).name != shard]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"source: {path} is no list of a model's files: {error}") from error
        if wrong:
            raise ValueError(
                f"source: {path} names {wrong[0]!r}, and the files of a model lie beside its list"
            )


def _transformers() -> Any:
    return library("transformers", "pip install 'resdomains[text]'")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file by name; a training checkpoint's are under ``state_dict`` or ``model``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds something else, or code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"source: there is no file {path}")
    if path.suffix == ".safetensors":
        safetensors = library("safetensors.torch", "pip install safetensors")
        content: Any = safetensors.load_file(path)
    else:
        try:
            content = read_plain(path)
        except HoldsCode as error:
            raise ValueError(
                f"source: {path} holds more than tensors, and loading it could run its code; save "
                f"the state_dict alone, better as .safetensors"
            ) from error
        except Damaged as error:
            raise ValueError(f"source: {path} is damaged or holds no weights ({error})") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(
            f"source: {path} should hold tensors by name, but holds {type(content).__name__}"
        )
    return content


def library(name: str, install: str) -> Any:
    """Another library's module.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name.partition('.')[0]} is needed here: {install}") from error
