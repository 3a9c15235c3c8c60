"""Probes: asking services how they are, in this process and without a thread."""
