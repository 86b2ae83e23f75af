"""The tasks that ship with resdomains, installed as `resdomains_tasks`; each folder is a plugin."""
