"""A sixth domain, outside the tree: what each pixel of a picture shows."""
