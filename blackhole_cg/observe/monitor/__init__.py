"""Watching what services use: samples of cgroups and processes, fed to the rules of core."""
