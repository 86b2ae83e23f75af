"""What text classification is called and where its parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="text_classification",
    summary="Which class, which labels, or which number a text or a pair of texts has",
    task="resdomains_tasks.text_classification.task:TextClassification",
    data={
        "Docstrings": "resdomains_tasks.text_classification.docstrings:Docstrings",
        "TextFiles": "resdomains_tasks.text_classification.files:TextFiles",
    },
    configs="resdomains_configs.text_classification",
    extra="text",
    reads_from_disk=("TextFiles",),
)
