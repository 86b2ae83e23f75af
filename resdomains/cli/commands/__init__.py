"""One module per subcommand: `run(name, arguments)` returns the exit status."""
