"""Tests of the ResourceMonitor."""
