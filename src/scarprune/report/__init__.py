"""Findings as figures and one self-contained page; reads artifacts and never a model."""
