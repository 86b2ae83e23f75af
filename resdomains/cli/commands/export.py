"""`resdomains export`: write a checkpoint's network for another library."""

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError

HELP = """\
usage: resdomains export --ckpt_path FILE --output FOLDER [options]

Write the network of a checkpoint as another library loads it, with what it needs beside the weights.

  --ckpt_path FILE      the checkpoint; it is all that is needed
  --output FOLDER       a new or empty folder
  --overwrite BOOL      true replaces an earlier export in that folder (false)
  --format FORMAT       onnx: classifiers of pictures and detectors, for any program that runs ONNX: pixels in,
                        probabilities or boxes out, in model.onnx; spec.json says what a program must know.
                        huggingface: a text classifier for transformers, for networks that it has
                        too: BERT, RoBERTa and DistilBERT with the head FirstTokenHead
  --plugin MODULE       import a module of yours that the checkpoint's task needs
  --traceback           show where an error comes from

A task has options of its own, such as --nms of object detection:
`resdomains export --ckpt_path FILE --help` shows them.

examples:
  resdomains export --ckpt_path runs/.../checkpoints/best.ckpt --output my_model
  resdomains export --ckpt_path detector.ckpt --output my_detector --nms outside
  python -c 'from transformers import pipeline
  print(pipeline("text-classification", "my_model")("A fine film."))'"""

OPTIONS = ("ckpt_path", "output", "overwrite", "format", "plugin")


def run(name: str, tokens: list[str]) -> int:
    """Export; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        rest = [token for token in tokens if token not in ("-h", "--help")]
        arguments = split(rest, options=OPTIONS, others=True)
        if "ckpt_path" in arguments.options:
            from resdomains.cli.exporting import explain

            explain(arguments)
        return 0
    arguments = split(tokens, options=OPTIONS, others=True)
    for option, what in (("ckpt_path", "FILE"), ("output", "FOLDER")):
        if option not in arguments.options:
            raise CliError(f"`resdomains export` needs --{option} {what}")
    arguments.flag("overwrite", False)
    from resdomains.cli.exporting import export

    return export(arguments)
