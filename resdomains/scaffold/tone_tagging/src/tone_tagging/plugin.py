"""What the task is called and where its parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="tone_tagging",
    summary="How high a tone is",
    task="tone_tagging.task:ToneTagging",
    data={"Tones": "tone_tagging.data:Tones"},
    configs="tone_tagging.configs",
)
