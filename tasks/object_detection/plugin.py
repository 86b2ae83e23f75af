"""What object detection is called and where its parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="object_detection",
    summary="Which objects a picture shows, and where",
    task="resdomains_tasks.object_detection.task:ObjectDetection",
    data={
        "Scenes": "resdomains_tasks.object_detection.scenes:Scenes",
        "CocoFiles": "resdomains_tasks.object_detection.coco:CocoFiles",
        "VocFiles": "resdomains_tasks.object_detection.voc:VocFiles",
        "YoloFiles": "resdomains_tasks.object_detection.yolo:YoloFiles",
    },
    configs="resdomains_configs.object_detection",
    extra="vision",
    reads_from_disk=("CocoFiles", "VocFiles", "YoloFiles"),
)
