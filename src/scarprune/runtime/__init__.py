"""Devices, memory, progress and provenance: the only place that asks the machine."""
