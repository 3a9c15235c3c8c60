"""A Linux cgroup-v2 resource-isolating supervisor."""

__version__ = "0.1.0"
