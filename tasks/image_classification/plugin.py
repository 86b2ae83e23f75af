"""What image classification is called and where its parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="image_classification",
    summary="Which class, or which labels, a picture has",
    task="resdomains_tasks.image_classification.task:ImageClassification",
    data={
        "Digits": "resdomains_tasks.image_classification.digits:Digits",
        "MnistFiles": "resdomains_tasks.image_classification.mnist:MnistFiles",
        "Cifar": "resdomains_tasks.image_classification.cifar:Cifar",
        "ImageFolder": "resdomains_tasks.image_classification.folder:ImageFolder",
    },
    configs="resdomains_configs.image_classification",
    extra="vision",
    reads_from_disk=("MnistFiles", "Cifar", "ImageFolder"),
)
