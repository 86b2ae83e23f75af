"""`resdomains predict`: apply a checkpoint to files or texts; needs neither config nor data set."""

from resdomains.cli.arguments import split
from resdomains.cli.errors import CliError

HELP = """\
usage: resdomains predict --ckpt_path FILE [INPUTS...] [options]

Apply a checkpoint to files, or to all files of folders that the task can read. Speech recognition takes recordings
of any length (WAV, FLAC, MP3, OGG); when each word was said is in json and csv. Text classification takes tables
(CSV, TSV, JSON lines, Parquet, a text a line), the texts themselves in quotes, and - for standard input, a text a
line; pairs of texts are JSON lists of two. A policy plays episodes where there are no inputs, and says what it would
do for recorded observations (.npy).

  --ckpt_path FILE      the checkpoint; it is all that is needed
  --format FORMAT       table, json (a line an item) or csv, or one of the task's own, such as coco of object detection
  --output FILE         write there instead of to the terminal
  --pictures FOLDER     also draw each item, of a task that can, as PNG in a new or empty folder; episodes as GIF
  --top N               how many of the ranked results to show (5)
  --embeddings FILE     also write the features before the head: a .npz with source, embedding
  --batch_size N        items at once (32)
  --bad_samples WHAT    refuse (stop at the first sample that cannot be read) or skip
  --                    what follows are inputs, even if they begin with --
  --accelerator NAME    auto, cpu or cuda
  --precision NAME      auto (as in training: the config's, else bf16 where the device is fast at it), bf16 or 32
  --plugin MODULE       import a module of yours that the checkpoint's task needs
  --traceback           show where an error comes from

A task has options of its own, such as the threshold of object detection:
`resdomains predict --ckpt_path FILE --help` shows them.

examples:
  resdomains predict --ckpt_path runs/.../checkpoints/best.ckpt photo.jpg folder/
  resdomains predict --ckpt_path best.ckpt folder/ --format csv --output labels.csv
  resdomains predict --ckpt_path best.ckpt interview.mp3 calls/ --format json --output transcripts.jsonl
  resdomains predict --ckpt_path best.ckpt street.jpg --threshold 0.5 --pictures seen
  resdomains predict --ckpt_path best.ckpt folder/ --format coco --output found.json
  resdomains predict --ckpt_path best.ckpt "a text" "another" reviews.csv --format json
  resdomains predict --ckpt_path best.ckpt --episodes 10 --pictures played
  cut -f 2 log.tsv | resdomains predict --ckpt_path best.ckpt -"""

OPTIONS = (
    "ckpt_path",
    "format",
    "output",
    "pictures",
    "top",
    "embeddings",
    "batch_size",
    "bad_samples",
    "accelerator",
    "precision",
    "plugin",
)
PRECISIONS = ("auto", "bf16", "32")


def run(name: str, tokens: list[str]) -> int:
    """Predict; returns the exit status."""
    if {"-h", "--help"} & set(tokens):
        print(HELP)
        rest = [token for token in tokens if token not in ("-h", "--help")]
        arguments = split(rest, options=OPTIONS, files=True, others=True)
        if "ckpt_path" in arguments.options:
            from resdomains.cli.prediction import explain

            explain(arguments)
        return 0
    arguments = split(tokens, options=OPTIONS, files=True, others=True)
    if "ckpt_path" not in arguments.options:
        raise CliError("`resdomains predict` needs --ckpt_path FILE")
    arguments.choice("bad_samples", "refuse", ("refuse", "skip"))
    arguments.choice("accelerator", "auto", ("auto", "cpu", "cuda"))
    arguments.choice("precision", "auto", PRECISIONS)
    arguments.number("top", 5)
    arguments.number("batch_size", 32)
    from resdomains.cli.prediction import predict

    return predict(arguments)
