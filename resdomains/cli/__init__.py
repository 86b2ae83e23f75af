"""The command `resdomains`."""
