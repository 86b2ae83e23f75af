"""What is measured, not asserted: each module prints a table and writes JSON; none runs in CI."""
