"""The shipped configs, installed as `resdomains_configs`: one YAML file per run."""
