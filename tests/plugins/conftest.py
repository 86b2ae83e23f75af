"""The plugin's own tests run where it is installed: `test_plugins.py` does that."""

collect_ignore = ["tone_tagging"]
