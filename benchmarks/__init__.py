"""Measurements, each beside a baseline of the same run. Ratios and medians count; machines are noisy."""
