"""What speech recognition is called and where its parts are."""

from resdomains.plugins import TaskPlugin

plugin = TaskPlugin(
    name="speech_recognition",
    summary="The words that are spoken in a recording",
    task="resdomains_tasks.speech_recognition.task:SpeechRecognition",
    data={
        "DigitStrings": "resdomains_tasks.speech_recognition.digit_strings:DigitStrings",
        "YesNo": "resdomains_tasks.speech_recognition.yesno:YesNo",
        "SpokenDigits": "resdomains_tasks.speech_recognition.fsdd:SpokenDigits",
        "SpokenDigitStrings": "resdomains_tasks.speech_recognition.fsdd:SpokenDigitStrings",
        "Manifest": "resdomains_tasks.speech_recognition.manifest:Manifest",
        "LibriSpeech": "resdomains_tasks.speech_recognition.librispeech:LibriSpeech",
        "TranscribedFolder": "resdomains_tasks.speech_recognition.folder:TranscribedFolder",
    },
    configs="resdomains_configs.speech_recognition",
    extra="speech",
    reads_from_disk=(
        "YesNo",
        "SpokenDigits",
        "SpokenDigitStrings",
        "Manifest",
        "LibriSpeech",
        "TranscribedFolder",
    ),
)
