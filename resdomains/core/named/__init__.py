"""Networks by the names the literature gives them, one module a field."""
