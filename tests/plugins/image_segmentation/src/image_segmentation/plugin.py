"""What the task is called and where its parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="image_segmentation",
    summary="What each pixel of a picture shows",
    task="image_segmentation.task:ImageSegmentation",
    data={"Digits": "image_segmentation.data:Digits"},
    configs="image_segmentation.configs",
)
