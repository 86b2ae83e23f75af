"""Text classification: one class a text or a pair of texts, several labels, or a number."""
