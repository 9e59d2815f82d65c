"""Baselines under the same protocol: what a method has to beat, and what it has to explain."""
