"""Keeping services as desired: observe, plan, carry out one step, observe again."""
