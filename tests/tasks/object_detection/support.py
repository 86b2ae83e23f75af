"""Small data that several tests use."""

from resdomains_tasks.object_detection.spec import DetectionSpec


def small_spec(**changes: object) -> DetectionSpec:
    values: dict[str, object] = {
        "channels": 3,
        "mean": [0.4, 0.4, 0.4],
        "std": [0.2, 0.2, 0.2],
        "size": {"height": 64, "width": 64},
        "classes": ["round", "square"],
    }
    return DetectionSpec(**{**values, **changes})  # type: ignore[arg-type]
